# The two commands on a fresh machine: `make demo` and `make test`. Both build .venv first; pip is the only network use.
PYTHON ?= python3
# The build of FAISS, cpu or gpu; once chosen, it stays. The two builds share their files, so the other one must be away.
FAISS ?= $(if $(wildcard .venv/lib/*/site-packages/faiss_gpu-*),gpu,cpu)
other-cpu := gpu
other-gpu := cpu
OTHER_FAISS := $(or $(other-$(FAISS)),$(error FAISS=$(FAISS): expected cpu or gpu))

BIN := .venv/bin
PIP := $(BIN)/python -m pip -qq --no-input --disable-pip-version-check
LOCKS := requirements.lock requirements-gpu.lock
STAMP := .venv/installed-$(FAISS)-$(shell cat $(LOCKS) pyproject.toml | cksum | tr ' ' '-')
CODE := magnet_core cache extract train

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-all lint bench-extract bench-train clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

venv: $(STAMP) ## build .venv from the lock (again when the lock or pyproject.toml changes); FAISS=gpu for CUDA

# A finished environment has a stamp named after the contents of the locks and of pyproject.toml.
$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
	  { echo 'error: $(PYTHON) is not Python 3.11, 3.12 or 3.13; name one, as in: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; exit 1; }
	@echo '[1/4] creating .venv'
	@$(PYTHON) -m venv .venv
	@echo '[2/4] installing requirements.lock into .venv (some 7 GB; minutes)'
	@$(PIP) uninstall -y faiss-$(OTHER_FAISS)
	@sed '/^faiss-$(OTHER_FAISS)==/d' requirements.lock > .venv/requirements.lock
	@$(PIP) install -r .venv/requirements.lock $(if $(filter gpu,$(FAISS)),-r requirements-gpu.lock)
	@echo '[3/4] installing the project itself'
	@$(PIP) install --no-deps --no-build-isolation -e .
	@echo '[4/4] checking that the versions agree'
	@$(BIN)/python -m pip check >.venv/pip-check.txt || { cat .venv/pip-check.txt >&2; exit 1; }
	@rm -f .venv/installed-* && touch $@

# No network: a small timm model with seeded random weights stands in for pre-trained ones.
DEMO_BACKBONE := timm:test_mambaout

demo: $(STAMP) demo/data/samples.csv ## synthetic slides through extract and train, in demo/
	@echo 'demo [2/3] extract: grids, counts, pixels and frozen features -> demo/store'
	@$(BIN)/extract run --samples demo/data/samples.csv --store demo/store \
	  --backbone $(DEMO_BACKBONE) --weights random --targets 8 --bins 2000 --spots 300 --tokens 2
	@echo 'demo [3/3] train: fold 0 on three slides, tested on the fourth -> demo/runs'
	@$(BIN)/train fit --fold 0 --store demo/store --runs demo/runs --name demo --overwrite \
	  --backbone $(DEMO_BACKBONE) --recipe recipes/demo.toml
	@echo
	@echo 'made:      demo/data/samples.csv and its slides, demo/store, demo/runs/demo/summary.json'
	@echo 'look at:   .venv/bin/cache info demo/store'
	@echo 'try next:  .venv/bin/train fit --fold 1 --store demo/store --runs demo/runs \'
	@echo '             --backbone $(DEMO_BACKBONE) --recipe recipes/demo.toml --set model.rounds=3'

demo/data/samples.csv: | $(STAMP)
	@echo 'demo [1/3] synth: four Visium HD slides of 1 mm, with known truth -> demo/data'
	@$(BIN)/extract synth demo/data --slides 4 --seed 0 --size-mm 1.0

test: export OMP_NUM_THREADS = 1
test: $(STAMP) ## the quick tests, on the CPU and offline
	@$(BIN)/python -m pytest -n 2 -m 'not slow and not gpu'

test-all: $(STAMP) ## every test that this machine can run
	@$(BIN)/python -m pytest

lint: $(STAMP) ## ruff and mypy, on the code and the tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --explicit-package-bases $(CODE) tests

bench-extract: $(STAMP) ## stage one against the limits it cannot beat; minutes
	@$(BIN)/python benchmarks/bench_extract.py

bench-train: $(STAMP) ## stage two against the limits it cannot beat; minutes
	@$(BIN)/python benchmarks/bench_train.py

clean: ## remove what the targets made, .venv included
	@rm -rf .venv demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

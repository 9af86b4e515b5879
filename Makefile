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
COMMA := ,
.PHONY: help venv demo study-demo test test-slow test-all test-faults fuzz lint bench-extract bench-train bench-predict bench-accuracy study-full bench-gpu clean

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

# The slide that fold 0 leaves out.
DEMO_HELD_OUT = $$($(BIN)/python -c "import json; print(json.load(open('demo/runs/folds.json'))['folds'][0]['test'][0])")

demo: $(STAMP) demo/data/samples.csv ## synthetic slides through extract and train, a whole slide from its image, a page
	@echo 'demo [2/5] extract: grids, counts, pixels and frozen features -> demo/store'
	@$(BIN)/extract run --samples demo/data/samples.csv --store demo/store \
	  --backbone $(DEMO_BACKBONE) --weights random --targets 8 --bins 2000 --spots 300 --tokens 2
	@echo 'demo [3/5] train: fold 0 on three slides, tested on the fourth -> demo/runs'
	@$(BIN)/train fit --fold 0 --store demo/store --runs demo/runs --name demo --overwrite \
	  --backbone $(DEMO_BACKBONE) --recipe recipes/demo.toml
	@echo 'demo [4/5] predict: every bin of the slide that was left out, from its image -> demo/runs/demo/predictions'
	@$(BIN)/train predict demo/runs/demo --samples demo/data/samples.csv --slide $(DEMO_HELD_OUT) --measured --overwrite
	@echo 'demo [5/5] report: maps, tables and curves -> demo/report.html'
	@$(BIN)/train report demo/runs/demo --out demo/report.html
	@echo
	@echo 'made:      demo/data/samples.csv and its slides, demo/store, demo/runs/demo: table.txt, .csv, figure.png,'
	@echo "           predictions/$(DEMO_HELD_OUT).h5ad, for scanpy and squidpy"
	@echo 'look at:   demo/report.html in a browser, and .venv/bin/cache info demo/store'
	@echo 'try next, the bin encoder fine-tuned too (minutes):'
	@echo '           .venv/bin/train fit --fold 0 --store demo/store --runs demo/runs --name finetuned \'
	@echo '             --backbone $(DEMO_BACKBONE) --recipe recipes/demo.toml --bins finetuned --set optim.epochs=4'

demo/data/samples.csv: | $(STAMP)
	@echo 'demo [1/5] synth: four Visium HD slides of 1 mm, with known truth -> demo/data'
	@$(BIN)/extract synth demo/data --slides 4 --seed 0 --size-mm 1.0

# Two small encoders, seeded random weights again; cells that are finished are not computed again.
STUDY_BACKBONES := timm:test_mambaout timm:test_resnet
STUDY := $(BIN)/train study
STUDY_OPTIONS := --store study-demo/store --runs study-demo/runs --recipe recipes/study-demo.toml

study-demo: export OMP_NUM_THREADS = 1
study-demo: $(STAMP) study-demo/data/samples.csv ## the paper's four tables, eleven systems, on synthetic slides; 20 minutes
	@for backbone in $(STUDY_BACKBONES); do \
	  echo "study-demo [2/6] extract: features of $$backbone -> study-demo/store"; \
	  $(BIN)/extract run --samples study-demo/data/samples.csv --store study-demo/store \
	    --backbone $$backbone --weights random --bins 800 --spots 200 --tokens 2 || exit 1; \
	done
	@echo 'study-demo [3/6] Table 1: MagNet, six rivals and four plain baselines at 8, 16 and 55 µm'
	@$(STUDY) baselines $(STUDY_OPTIONS) --backbone $(firstword $(STUDY_BACKBONES)) --genes SYN959,SYN835 --published
	@echo 'study-demo [4/6] Table 2: what each block is worth'
	@$(STUDY) blocks $(STUDY_OPTIONS) --backbone $(firstword $(STUDY_BACKBONES)) --published
	@echo 'study-demo [5/6] Table 3: the high resolution alone'
	@$(STUDY) levels $(STUDY_OPTIONS) --backbone $(firstword $(STUDY_BACKBONES)) --published
	@echo 'study-demo [6/6] Table 4: two backbones'
	@$(STUDY) backbones $(STUDY_OPTIONS) --backbones $(subst $() $(),$(COMMA),$(STUDY_BACKBONES)) \
	  --name study-backbones --published
	@echo
	@echo 'made:      study-demo/runs/study-baselines, -blocks, -levels and -backbones: table.txt, .csv, .md, .tex, figure.png'
	@echo 'look at:   study-demo/runs/study-baselines/figure.png and maps-SYN959-8um.png beside it'

study-demo/data/samples.csv: | $(STAMP)
	@echo 'study-demo [1/6] synth: four Visium HD slides of 0.8 mm, with known truth -> study-demo/data'
	@$(BIN)/extract synth study-demo/data --slides 4 --seed 0 --size-mm 0.8

PYTEST := $(BIN)/python -m pytest -n 2 --durations=10
# From Python 3.12 on the interpreter itself can tell which lines run, at next to no cost.
COVERAGE_CORE = $(shell $(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")')

test test-slow: export OMP_NUM_THREADS = 1
test: $(STAMP) ## the quick tests, on the CPU and offline; the ten slowest, and the share of lines that they run
	@COVERAGE_CORE=$(COVERAGE_CORE) $(PYTEST) -m 'not slow and not gpu' --cov --cov-report=
	@for package in $(CODE); do \
	  echo "coverage of $$package: $$($(BIN)/coverage report --format=total --include="$$package/*") %"; \
	done
	@echo "coverage: $$($(BIN)/coverage report --format=total) %"

test-slow: $(STAMP) ## the rest: the wheel in a clean environment, kills, and what needs a GPU where there is one
	@$(PYTEST) -m 'slow or gpu'

test-all: test test-slow ## every test that this machine can run

# Attacks run in forked children of one process, which must have no threads of its own.
RELIABILITY := benchmarks/results/reliability.json
MINUTES ?= 10
JOBS ?= 2

test-faults fuzz: export OMP_NUM_THREADS = 1
test-faults: $(STAMP) ## kills, flipped bits, full disks and other faults, all of them, counted in benchmarks/results; an hour
	@$(BIN)/python -m tests.faults $(ATTACKS) --share 1 --out $(RELIABILITY)

fuzz: $(STAMP) ## damaged files for each parser, MINUTES=10 a parser; those that fail are kept in fuzz-found/
	@$(BIN)/python -m tests.fuzz --minutes $(MINUTES) --out $(RELIABILITY) --found fuzz-found

lint: $(STAMP) ## ruff and mypy, on the code and the tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --explicit-package-bases $(CODE) tests

bench-extract: $(STAMP) ## stage one against the limits it cannot beat; minutes
	@$(BIN)/python benchmarks/bench_extract.py

bench-train: $(STAMP) ## stage two against the limits it cannot beat; minutes
	@$(BIN)/python benchmarks/bench_train.py

bench-predict: $(STAMP) ## every bin of a slide from its image: time, memory, disk, against its limits; BINS=10000; hours
	@PYTHONPATH=. $(BIN)/python benchmarks/bench_predict.py $(if $(BINS),--bins $(BINS))

bench-accuracy: $(STAMP) ## shares of the oracle, seams, rivals, in bench-accuracy/; hours; resumes
	@PYTHONPATH=. $(BIN)/python benchmarks/bench_accuracy.py bench-accuracy $(if $(SECTIONS),--sections $(SECTIONS))

study-full: export OMP_NUM_THREADS = 1
study-full: $(STAMP) ## the paper's four tables and ablations, encoders frozen and fine-tuned, on eight slides, in bench-tables/; hours; resumes
	@PYTHONPATH=. $(BIN)/python benchmarks/bench_tables.py bench-tables --jobs $(JOBS) $(if $(PARTS),--parts $(PARTS))

# With WHEELS=folder, an environment of its own over PYTHON's packages: a torch that is there stays, and what is lacking
# comes from the folder without a network. Needs neither .venv nor an installation of the project.
GPU_BIN := $(if $(WHEELS),.venv-gpu/bin,$(BIN))

bench-gpu: $(if $(WHEELS),.venv-gpu/installed,$(STAMP)) ## all that only a GPU can show, 20 minutes; WHEELS=folder without a network; docs/gpu.md
	@PYTHONPATH=. $(GPU_BIN)/python benchmarks/bench_gpu.py $(if $(PARTS),--parts $(PARTS))

.venv-gpu/installed: pyproject.toml $(wildcard $(WHEELS)/*.whl)
	@$(PYTHON) -m venv --system-site-packages .venv-gpu
	@.venv-gpu/bin/python -c "import tomllib; \
	  print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > .venv-gpu/requirements.txt
	@.venv-gpu/bin/python -m pip -qq --no-input install --no-index --find-links $(WHEELS) -r .venv-gpu/requirements.txt \
	  pytest pytest-timeout $(if $(wildcard $(WHEELS)/faiss_gpu-*),faiss-gpu,faiss-cpu)
	@touch $@

clean: ## remove what the targets made, .venv included
	@rm -rf .venv .venv-gpu demo study-demo fuzz-found build dist *.egg-info .coverage .coverage.* .pytest_cache .ruff_cache .mypy_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

"""The defaults as plain values, literally: digests that name the folders of cells are made of them."""

import hashlib
from typing import Any

import pytest

from cache.canonical import canonical_json
from magnet_core.settings import differing, flat, nested
from train.data.folds import Fold
from train.settings.fit import BEFORE, OUTPUT_NEUTRAL, FitConfig, as_recorded, without_later
from train.studies.cell import ELSEWHERE, LATER, Cell
from train.studies.record import CHOOSES_FEATURES, WHERE, other_settings
from train.studies.settings import StudyConfig
from train.systems.table import rivals_config

FIT: dict[str, Any] = {
    "name": "",
    "overwrite": False,
    "fold": 0,
    "runs": "runs",
    "seed": 0,
    "seeds": 1,
    "device": "auto",
    "sampler": "compact",
    "halo": 0,
    "augment": True,
    "ridge": 0.0,
    "baselines": True,
    "data": {
        "store": "store",
        "target": 8,
        "backbone": "resnet50",
        "settings_digest": "",
        "panel": 250,
        "panel_by": "mean",
        "include": [],
        "standardise": True,
        "own": True,
        "contexts": "blended",
        "normalise": {"library": "panel", "scale": 10000.0, "log": True},
    },
    "split": {"folds": 4, "by": "patient", "seed": 0, "file": "runs/folds.json"},
    "encoder": {"mode": "full", "last_blocks": 2, "lora_rank": 8},
    "model": {
        "width": 256,
        "heads": 4,
        "rounds": 2,
        "transformer_layers": 1,
        "dropout": 0.1,
        "attend": "tokens",
        "fusion": "concat",
        "use_gat": True,
        "use_multires": True,
    },
    "loss": {
        "lambda_fine": 0.8,
        "lambda_context": 0.25,
        "lambda_consistency": 0.1,
        "gamma_prediction": 1.0,
        "gamma_consistency": 0.25,
        "pcc_over": "bins",
        "consistency": True,
        "likelihood": "mse",
    },
    "optim": {
        "name": "sgd",
        "lr": 0.0001,
        "encoder_lr": 1.0,
        "momentum": 0.9,
        "weight_decay": 0.0001,
        "final_lr": 0.01,
        "warmup": 0.0,
        "epochs": 50,
        "batch_size": 256,
        "clip_norm": 0.0,
        "ema": 0.0,
    },
    "finetune": {"epochs": 0, "lr": 0.001, "batch_size": 128},
    "validation": {"share": 0.2, "few": "hold_out", "refit": True, "patience": 0},
    "compute": {
        "precision": "auto",
        "micro_batch": 0,
        "compile": False,
        "resident": "auto",
        "checkpoint_minutes": 10.0,
    },
}
DEFAULT_RIVALS: dict[str, dict[str, float]] = {
    "st_net": {"lr": 1e-06, "momentum": 0.9, "batch_size": 32, "epochs": 50},
    "egn": {
        "exemplars": 9,
        "width": 1024,
        "depth": 8,
        "heads": 16,
        "mlp": 4096,
        "dropout": 0.1,
        "every": 2,
        "token_grid": 4,
        "pcc_weight": 0.5,
        "lr": 0.0005,
        "weight_decay": 0.0001,
        "batch_size": 32,
        "epochs": 50,
    },
    "histogene": {
        "epochs": 100,
        "lr": 1e-05,
        "window": 576,
        "positions": 64,
        "width": 1024,
        "depth": 8,
        "heads": 16,
        "mlp": 2048,
        "dropout": 0.1,
        "pixel_side": 112,
    },
    "bleep": {
        "width": 256,
        "dropout": 0.1,
        "temperature": 1.0,
        "neighbours": 50,
        "lr": 0.001,
        "weight_decay": 0.001,
        "batch_size": 512,
        "epochs": 150,
    },
    "his2st": {
        "epochs": 350,
        "lr": 1e-05,
        "step_epochs": 50,
        "step_factor": 0.9,
        "window": 576,
        "positions": 64,
        "width": 1024,
        "depth": 8,
        "heads": 16,
        "mlp": 1024,
        "dropout": 0.2,
        "sage_layers": 4,
        "neighbours": 4,
        "lstm_layers": 2,
        "pixel_side": 112,
        "patch": 7,
        "channels": 32,
        "mixers": 2,
        "kernel": 5,
        "zinb": 0.25,
        "distil": 0.5,
        "views": 5,
    },
    "triplex": {
        "epochs": 50,
        "lr": 0.0001,
        "batch_size": 128,
        "step_epochs": 50,
        "step_factor": 0.9,
        "distil": 0.3,
        "token_grid": 7,
        "width": 512,
        "heads": 8,
        "mlp": 2048,
        "dropout": 0.1,
        "neighbour_layers": 4,
        "global_layers": 5,
        "fusion_layers": 1,
        "global_window": 4096,
    },
}
# Another value for each setting of a fit whose kind does not say one.
OTHER: dict[str, Any] = {
    "name": "other", "runs": "elsewhere", "device": "cpu", "sampler": "random", "data.store": "other",
    "data.target": 16, "data.backbone": "resnet18", "data.settings_digest": "abc", "data.panel_by": "variance",
    "data.include": ["A"], "data.contexts": "paired", "data.normalise.library": "all", "split.by": "slide",
    "split.file": "other.json",
    "encoder.mode": "lora", "model.width": 64, "model.heads": 8, "model.attend": "graph", "model.fusion": "sum",
    "loss.pcc_over": "genes", "loss.likelihood": "poisson", "optim.name": "adamw", "compute.precision": "fp32",
    "compute.resident": "never", "validation.few": "none",
}  # fmt: skip


def digest_of(system: str, config: FitConfig, patients: int = 0) -> str:
    settings = Cell(system, config, Fold(0, ("a",), ("b",)), rivals_config()).settings([*map(str, range(patients))])
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:12]


def another(name: str, value: Any) -> Any:
    if name in OTHER:
        return OTHER[name]
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value / 2 or 0.5


def test_the_defaults_are_these() -> None:
    assert FitConfig().plain() == FIT
    rivals = {name: {**LATER, **values} for name, values in DEFAULT_RIVALS.items()}
    assert rivals_config().plain() == rivals
    assert StudyConfig().plain() == {"fit": FIT, "rivals": rivals, "protocol": "paper"}
    assert StudyConfig.build(StudyConfig().plain(), where="") == StudyConfig()
    spelt = [canonical_json(value) for value in (FIT, rivals)]  # 1 and 1.0 are spelt otherwise in a digest
    assert [canonical_json(config.plain()) for config in (FitConfig(), rivals_config())] == spelt


def test_what_leaves_the_output_as_it_is_is_said_in_one_place() -> None:
    assert {"device", "overwrite", "compute.checkpoint_minutes", "compute.resident"} == OUTPUT_NEUTRAL
    assert OUTPUT_NEUTRAL < ELSEWHERE


OLDER = {"magnet": "80c200133fef", "egn": "2887b83c4db7", "gene_mean": "47b1388d466f"}


def test_cells_written_before_keep_their_names() -> None:
    before = FitConfig().changed(**nested(BEFORE, where="BEFORE"))
    assert {system: digest_of(system, before, patients) for system in OLDER for patients in (0, 4)} == OLDER


def test_cells_of_five_patients_keep_their_names_as_nothing_else_is_meant_there() -> None:
    before = FitConfig().changed(**nested(BEFORE, where="BEFORE"))
    now = FitConfig().changed(data={"own": False, "contexts": "paired"})
    digests = {system: digest_of(system, now, 5) for system in OLDER}
    assert digests == {system: digest_of(system, before, 5) for system in OLDER}
    assert digests == {"magnet": "80c200133fef", "egn": "9c30b7c1ca69", "gene_mean": "47b1388d466f"}
    assert digest_of("magnet", now.changed(validation={"refit": False}), 5) == OLDER["magnet"]


def test_cells_of_few_patients_have_names_of_their_own() -> None:
    digests = {system: digest_of(system, FitConfig(), 4) for system in OLDER}
    assert digests == {"magnet": "6de2a7ec7abc", "egn": "abc5581e6a48", "gene_mean": "dc4f8852ea88"}
    without_refit = FitConfig().changed(validation={"refit": False})
    assert digest_of("magnet", without_refit, 4) not in {digests["magnet"], OLDER["magnet"]}
    nothing_held_out = [FitConfig().changed(validation={"share": 0, "few": few}) for few in ("hold_out", "none")]
    assert len({digest_of("egn", config, 4) for config in nothing_held_out}) == 1


def test_a_record_without_a_later_setting_means_what_was_meant_then() -> None:
    older = {"seed": 3, "validation": {"share": 0.2, "patience": 1}}
    read = FitConfig.build(as_recorded(older), where="run.json")
    assert (read.seed, read.validation.few, read.validation.patience) == (3, "none", 1)
    told = {"validation": {"few": "hold_out"}}
    assert FitConfig.build(as_recorded(told), where="run.json").validation.few == "hold_out"


def test_a_later_setting_as_it_was_is_left_out_wherever_it_stands() -> None:
    before = {"a.late": [1], "late.one": 0, "kept": 1}
    values = {"a": {"late": [1], "early": 2}, "late": {"one": 0}, "kept": 2}
    assert without_later(values, before) == {"a": {"early": 2}, "kept": 2}
    assert without_later({"a": {"late": [2]}}, before) == {"a": {"late": [2]}}


NOT_NAMED = {*ELSEWHERE, CHOOSES_FEATURES}  # the name of a cell has the features that were meant
LEFT_OUT = {name for name in flat(FIT) if any(name == each or name.startswith(f"{each}.") for each in NOT_NAMED)}


@pytest.mark.parametrize("name", flat(FIT))
def test_a_setting_changes_the_cell_unless_it_is_neutral_or_elsewhere(name: str) -> None:
    value = another(name, flat(FIT)[name])
    mode = "frozen" if name == "ridge" else FIT["encoder"]["mode"]  # where it has a say
    plain, changed = (FitConfig().changed(encoder={"mode": mode}), nested({name: value}, where=name))
    assert (digest_of("magnet", plain.changed(**changed)) == digest_of("magnet", plain)) is (name in LEFT_OUT)
    other = FitConfig().changed(**changed)
    assert flat(other.plain()) == flat(FIT) | {name: value}
    assert bool(differing(other.plain(), FIT, neutral=OUTPUT_NEUTRAL)) is (name not in OUTPUT_NEUTRAL)
    different = other_settings(StudyConfig(fit=other).plain(), StudyConfig().plain())
    assert different == ([] if name in {*OUTPUT_NEUTRAL, *WHERE} else [name])

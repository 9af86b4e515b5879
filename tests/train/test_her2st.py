"""Both stages on a cut of three real breast-tumour sections (legacy ST), where they lie beside the repository."""

import csv
from pathlib import Path

import numpy as np

from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.pipeline import run
from train.pipeline import fit
from train.settings.fit import load_config

MPP = 0.687  # the data set's own statement of the sections' µm/px


def test_real_sections_go_through_both_stages(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "her2st"
    sheet = tmp_path / "samples.csv"
    with sheet.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide_id", "image", "counts", "mpp", "patient"])
        for section in ("B4", "C2", "C3"):
            image, counts = folder / f"imgs/{section}.jpg", folder / f"cnts/{section}.tsv.gz"
            writer.writerow([section, image, counts, MPP, section[0]])
    config = RunConfig(
        samples=sheet,
        store=tmp_path / "store",
        geometry=GeometryConfig(targets=(55,), sampling="uniform", spots=25),
        embedding=EmbeddingConfig(backbone="timm:test_mambaout", weights="random", token_grid=2),
    )
    assert run(config).failed == {}

    settings = [
        f"data.store={config.store}", f"runs={tmp_path / 'runs'}", f"split.file={tmp_path / 'runs/folds.json'}",
        "data.target=55", "data.backbone=timm:test_mambaout", "data.panel=50", "model.width=32",
        "optim.name=adamw", "optim.lr=1e-3", "optim.epochs=1", "optim.batch_size=16",
    ]  # fmt: skip
    result = fit(load_config(None, settings))
    fold = result.cell().cell.fold
    patients = {slide_id[0] for slide_id in fold.test}
    assert patients.isdisjoint(slide_id[0] for slide_id in fold.train)
    for metrics in result.systems.values():
        assert all(np.isfinite(value) for value in metrics.values())
    assert result.systems["gene_mean"]["pcc_gene"] == 0

"""`recipes/hest.toml` and `--protocol hest`, from images to correlations, against the benchmark as it is described."""

import json
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from cache.store import Store
from extract.cli import app
from extract.config import load_run
from extract.pipeline import encoder_of
from magnet_core.resampling import gene_correlations, pool
from tests.train.hest_literal import cut_patches, most_variable, probe
from train.data.fold_choice import choose_folds
from train.pipeline import run_cells
from train.studies.plans import Planner
from train.studies.settings import load_study_config
from train.studies.summary import summarise
from train.systems.plain import hest_ridge

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "hest.toml"
BACKBONE = "timm:test_convnext"
PATIENTS = {"TENX1": "P1", "TENX2": "P1", "TENX3": "P2", "TENX4": "P3"}
MPP, SIDE_PX = 0.5, 224
GENES = [f"G{number:02d}" for number in range(70)]
RARE = 8  # genes that vary most where they are, in too few spots to be eligible
COMPONENTS = 24  # fewer than features, so that some are left out


@dataclass(frozen=True)
class Sample:
    """One slide of the set: its image (H, W, 3), spot centres (N, 2) in its pixels, counts (N, G), names of spots."""

    image: np.ndarray
    centres_px: np.ndarray
    counts: np.ndarray
    barcodes: list[str]


def draw_sample(seed: int) -> Sample:
    """Draw blots of two colours, and genes that follow the redness around a spot, each to its own degree."""
    rng = np.random.default_rng(seed)
    columns, rows = np.meshgrid(np.arange(7), np.arange(6))
    centres_px = np.stack([columns.ravel(), rows.ravel()], axis=1) * 60.0 + 130
    y, x = np.mgrid[:560, :620]
    redness = np.zeros(x.shape)
    for centre_x, centre_y, radius in rng.uniform((30, 30, 20), (590, 530, 90), size=(12, 3)):
        redness += np.exp(-((x - centre_x) ** 2 + (y - centre_y) ** 2) / (2 * radius**2))
    redness /= redness.max()
    image = np.stack([120 + 120 * redness, 90 + 60 * (1 - redness), 160 - 50 * redness], axis=-1)
    image = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
    around = np.array([cut_patches(redness[..., None], centre[None], SIDE_PX).mean() for centre in centres_px])
    steepness, level = np.linspace(-6, 6, len(GENES)), np.linspace(0.2, 1.6, len(GENES))
    counts = rng.poisson(np.exp(level + steepness * (around[:, None] - around.mean())))
    counts[:, :RARE] = 400 * (rng.random((len(counts), RARE)) < 0.05)
    barcodes = [f"spot-{number}" for number in range(len(counts))]
    return Sample(image, centres_px, counts, barcodes)


@pytest.fixture(scope="module")
def samples() -> dict[str, Sample]:
    """Four slides of three patients."""
    return {name: draw_sample(seed) for seed, name in enumerate(PATIENTS)}


@pytest.fixture(scope="module")
def store(samples: dict[str, Sample], tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A folder as HEST-1k has it, through `extract run --recipe recipes/hest.toml`."""
    folder = tmp_path_factory.mktemp("hest")
    (folder / "st").mkdir()
    (folder / "wsis").mkdir()
    lines = ["slide_id,image,counts,patient"]
    for name, sample in samples.items():
        tifffile.imwrite(folder / f"wsis/{name}.tif", sample.image)
        obs, var = pd.DataFrame(index=sample.barcodes), pd.DataFrame(index=GENES)
        spatial = {"spatial": sample.centres_px}
        anndata.AnnData(sample.counts.astype(np.float32), obs, var, obsm=spatial).write_h5ad(folder / f"st/{name}.h5ad")
        lines.append(f"{name},wsis/{name}.tif,st/{name}.h5ad,{PATIENTS[name]}")
    (folder / "samples.csv").write_text("\n".join(lines) + "\n")
    stated = "".join(f"{name},{MPP}\n" for name in samples)
    (folder / "HEST_v1_1_0.csv").write_text(f"id,pixel_size_um_estimated\n{stated}")
    options = ["--samples", folder / "samples.csv", "--store", folder / "store", "--backbone", BACKBONE]
    command = ["run", "--recipe", RECIPE, *options, "--weights", "random", "--device", "cpu", "--no-pixels"]
    assert CliRunner().invoke(app, [*map(str, command)], catch_exceptions=False).exit_code == 0
    return Store(folder / "store")


def stored_features(store: Store, samples: dict[str, Sample]) -> dict[str, np.ndarray]:
    """The store's features of each slide's spots, (N, D), in the order of the sample's spots."""
    features = {}
    for name, sample in samples.items():
        with store.geometry(name) as geometry, store.features(name, BACKBONE) as file:
            row_of = {barcode: row for row, barcode in enumerate(geometry.read("spot/barcode").tolist())}
            features[name] = file.read("spot/pooled")[[row_of[barcode] for barcode in sample.barcodes]]
    return features


def literal_features(samples: dict[str, Sample]) -> dict[str, np.ndarray]:
    """The encoder's features of patches that are cut out of the images by slicing, (N, D) float32."""
    given = ["embedding.weights=random", f"embedding.backbone={BACKBONE}"]
    encoder = encoder_of(load_run(RECIPE, {}, given)).eval()
    with torch.inference_mode():
        return {
            name: encoder(torch.from_numpy(cut_patches(sample.image, sample.centres_px, SIDE_PX))).pooled.numpy()
            for name, sample in samples.items()
        }


def literal_fold(
    samples: dict[str, Sample], features: dict[str, np.ndarray], train: tuple[str, ...], test: tuple[str, ...],
    genes: list[str],
) -> dict[str, float]:  # fmt: skip
    """Correlations of a fold by gene, as the benchmark describes them."""
    columns = [GENES.index(gene) for gene in genes]
    sides = [
        (np.concatenate([features[name] for name in side]), np.concatenate([samples[name].counts for name in side]))
        for side in (train, test)
    ]
    training, unseen = ((inputs, counts[:, columns]) for inputs, counts in sides)
    return dict(zip(genes, probe(training, unseen, components=COMPONENTS).tolist(), strict=True))


def test_a_feature_is_the_encoders_of_a_patch_of_112_um_cut_at_half_a_um_a_pixel(
    store: Store, samples: dict[str, Sample]
) -> None:
    stored, literal = stored_features(store, samples), literal_features(samples)
    for name in samples:
        assert stored[name].dtype == np.float16  # as the store keeps every feature of a frozen encoder
        np.testing.assert_allclose(stored[name].astype(np.float32), literal[name], rtol=1e-3, atol=1e-6)
    with store.geometry("TENX1") as geometry, store.features("TENX1", BACKBONE) as file:
        assert geometry.header["levels"]["spot"]["patch_um"] == 112
        assert geometry.header["settings"]["working_mpp"] == file.header["settings"]["working_mpp"] == MPP


@pytest.mark.parametrize("published_genes", [False, True])
def test_correlations_of_every_fold_and_gene_are_those_of_the_benchmark_as_described(
    store: Store, samples: dict[str, Sample], tmp_path: Path, published_genes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hest_ridge, "COMPONENTS", COMPONENTS)
    given = [f"data.store={store.root}", f"data.backbone={BACKBONE}", "data.target=55"]
    given += [f"runs={tmp_path}", f"split.file={tmp_path / 'folds.json'}"]
    of_all = most_variable([sample.counts for sample in samples.values()], GENES, 50)
    if published_genes:  # chosen on all slides, as the benchmark's lists are, and given as one
        given.append(f"data.include={json.dumps(of_all)}")
    study = load_study_config(None, given, protocol="hest")
    plan = Planner(study, choose_folds(study.fit, None)).baselines((55,), ("hest_ridge",), name="hest", title="HEST's")
    results = run_cells(plan.cells, tmp_path)
    assert results.faults == {}

    features, exact = stored_features(store, samples), literal_features(samples)
    cells = [result for cell, result in results.cells.items() if cell.system == "hest_ridge"]
    assert sorted(len(result.cell.fold.test) for result in cells) == [1, 1, 2]  # a patient is left out at a time
    means = []
    for result in cells:
        train, test = result.cell.fold.train, result.cell.fold.test
        genes = of_all if published_genes else most_variable([samples[name].counts for name in train], GENES, 50)
        literal = literal_fold(samples, features, train, test, genes)
        pooled = pool([result.blocks[name] for name in test])
        found = gene_correlations(pooled, np.ones((1, pooled.errors.shape[1])))[0]
        assert set(result.panel.names.tolist()) == literal.keys()
        wanted = [literal[name] for name in result.panel.names.tolist()]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
        means.append(np.mean(wanted))
        in_single = literal_fold(samples, exact, train, test, genes)  # without the store's half precision
        assert abs(np.mean(list(in_single.values())) - means[-1]) < 1e-3
    (line, *_) = [line for line in summarise(plan, results) if "HEST" in line.title]
    assert line.metrics["pcc_gene"].mean == pytest.approx(np.mean(means), abs=1e-6)
    assert np.mean(means) > 0.2  # there is something to be seen


def test_patches_that_no_encoder_takes_are_one_line(tmp_path: Path) -> None:
    command = ["run", "--samples", str(tmp_path / "none.csv"), "--set", "working_mpp=4", "--set"]
    error = CliRunner().invoke(app, [*command, "geometry.bin_patch_um=28"]).exception
    assert "geometry.bin_patch_um: expected patches of 16 to 4,096 px a side, found 7 px, 28 µm at 4 µm/px" in str(
        error
    )
    error = CliRunner().invoke(app, [*command, "working_mpp=0.01"]).exception
    assert "working_mpp: expected 0.1 to 4" in str(error)

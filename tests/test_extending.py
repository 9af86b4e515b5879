"""How the program is extended: each test adds one thing by a row of a table and a module of its own, and uses it.

What a test adds and how it looks at it is at most `MOST_LINES` long; ARCHITECTURE.md points here. The parts stand in
this file, where they would have a file each.
"""

import csv
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tifffile
from pydantic import Field
from scipy import sparse
from scipy.spatial import cKDTree
from typer.testing import CliRunner

import extract.cli
import train.cli
from cache.store import Store
from extract.readers import READERS, space_ranger_hd
from extract.synthetic.config import SynthConfig
from extract.synthetic.dataset import synthesise
from magnet_core.backbones import BACKBONES, BackboneSpec
from magnet_core.errors import MagnetError
from magnet_core.levels import REGION, SPOT, TARGETS, Target, bin_level
from magnet_core.records import Assay, Genes, SlideCounts
from magnet_core.resampling import METRICS, BlockSums, Metric, mean_squared_error
from magnet_core.settings import Settings
from train.data.slide import Slide
from train.data.training_side import TrainingSide
from train.learning.setting import Setting
from train.systems.table import SYSTEMS, SystemRow

MOST_LINES = 60
ENCODER = "--backbone timm:test_resnet --weights random --tokens 1 --device cpu"
QUICK = "--set data.panel=20 --set optim.epochs=1 --set optim.batch_size=64 --set model.width=16 --device cpu"

Command = Callable[[str], str]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Give a command in an empty folder, as a user does; returns what it writes to stdout."""
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> str:
        program, *arguments = line.split()
        apps = {"extract": extract.cli.app, "train": train.cli.app}
        done = CliRunner().invoke(apps[program], arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """samples.csv of three small synthetic slides of three patients."""
    return synthesise(tmp_path_factory.mktemp("extending"), SynthConfig(slides=3, seed=2, size_mm=0.4, genes=60))


@pytest.fixture
def store(samples: Path, command: Command) -> Store:
    """These slides, made for spots."""
    command(f"extract run --samples {samples} {ENCODER} --targets 55 --spots 30")
    return Store(Path("store"))


class SpotTable:
    """A platform's reader: a CSV with a row a spot, of barcode, x and y in pixels, and a column a gene."""

    LOOKS_FOR = "a file *.spots.csv"

    def recognises(self, path: Path) -> bool:
        return path.name.endswith(".spots.csv")

    def files(self, path: Path) -> list[Path]:
        return [path]

    def read(self, path: Path) -> SlideCounts:
        table = pl.read_csv(path)
        names = np.array(table.columns[3:])
        counts = sparse.csr_matrix(table.select(names.tolist()).to_numpy().astype(np.int32))
        spots = Assay(
            table["barcode"].to_numpy().astype(str), table.select("x", "y").to_numpy(), counts, pitch_um=100.0
        )
        return SlideCounts("spot_table", Genes(names, names), spots=spots, mpp=0.5, mpp_source="this reader")


def test_a_reader(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    monkeypatch.setitem(READERS, "spot_table", SpotTable())
    rng = np.random.default_rng(0)
    tifffile.imwrite("A.tif", rng.integers(0, 255, (1600, 1600, 3), dtype=np.uint8), tile=(256, 256), photometric="rgb")
    places = [(x, y) for y in range(300, 1400, 200) for x in range(300, 1400, 200)]
    counts = {f"s{x}-{y}": rng.poisson(3, 4).tolist() for x, y in places}
    with Path("A.spots.csv").open("w", newline="") as file:
        rows = [[f"s{x}-{y}", x, y, *counts[f"s{x}-{y}"]] for x, y in places]
        csv.writer(file).writerows([["barcode", "x", "y", "A", "B", "C", "D"], *rows])
    Path("samples.csv").write_text("slide_id,image,counts\nA,A.tif,A.spots.csv\n")
    command(f"extract run {ENCODER} --targets 55")
    with Store(Path("store")).geometry("A") as geometry:
        barcodes = geometry.read("spot/barcode")
        parts = [geometry.read(f"spot/counts/{name}") for name in ("values", "indices", "indptr")]
        assert geometry.header["mpp_source"] == "this reader"
        np.testing.assert_allclose(geometry.read("spot/centres_um").min(axis=0), [150, 150])
    stored = sparse.csr_matrix(tuple(parts), shape=(len(barcodes), 4)).toarray()
    assert dict(zip(barcodes.tolist(), stored.tolist(), strict=True)) == counts


def test_a_backbone(samples: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    spec = BackboneSpec(
        "small-vit",
        architecture="test_vit",
        input_px=160,
        pooling="cls+mean",
        mean=(0.7, 0.6, 0.7),
        std=(0.2, 0.2, 0.2),
    )
    monkeypatch.setitem(BACKBONES, spec.name, spec)
    assert "small-vit" in command("extract backbones")
    random = "--backbone small-vit --weights random --device cpu"
    command(f"extract run --samples {samples} {random} --targets 55 --spots 9 --tokens 2 --slide S1")
    with Store(Path("store")).features("S1", "small-vit") as features:
        pooled, tokens = features.read("spot/pooled"), features.read("spot/tokens")
        assert features.header["settings"]["encoder"]["pooling"] == "cls+mean"
    assert tokens.shape[1] == 4
    assert pooled.shape[1] == 2 * tokens.shape[2]  # class token beside the mean
    assert pooled.std(axis=0).max() > 0


class NearestConfig(Settings):
    """Settings of a compared system, those of a recipe's table [rivals.nearest]."""

    table = "rivals.nearest"
    neighbours: int = Field(default=5, ge=1)


class Nearest:
    """A compared system: the mean expression of the training rows whose cached features lie closest."""

    def __init__(self, config: NearestConfig, setting: Setting) -> None:
        self._neighbours = config.neighbours

    def fit(self, training: TrainingSide) -> None:
        self._tree = cKDTree(np.concatenate([self._inputs(slide) for slide in training.slides]))
        self._labels = training.all_fine()

    def predict(self, slide: Slide) -> np.ndarray:
        _, rows = self._tree.query(self._inputs(slide), k=[*range(1, self._neighbours + 1)])
        return np.asarray(self._labels[rows].mean(axis=1))

    def _inputs(self, slide: Slide) -> np.ndarray:
        return slide.fine.fine_scale(slide.fine.features("fine", np.arange(len(slide.fine)))).numpy()


def test_a_system(store: Store, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    monkeypatch.setitem(SYSTEMS, "nearest", SystemRow("nearest rows", f"{__name__}:Nearest", NearestConfig))
    study = f"train study baselines --backbone timm:test_resnet --targets 55 --systems nearest,gene_mean {QUICK}"
    command(f"{study} --folds 0 --name five")
    command(f"{study} --folds 0 --name two --set rivals.nearest.neighbours=2")
    scores = {}
    for name in ("five", "two"):
        table = pl.read_csv(f"runs/{name}/table.csv")
        assert table["system"].to_list() == ["nearest rows", "gene mean", "noise ceiling (upper bound)"]
        scores[name] = table["mse_mean"].to_list()
        assert table["pcc_gene_mean"][0] > 0
    assert scores["five"][0] != scores["two"][0]
    assert scores["five"][1] == scores["two"][1]
    with pytest.raises(MagnetError, match=r"rivals\.nearest\.neighbours: expected 1 or more"):
        command(f"{study} --set rivals.nearest.neighbours=0")


def root_mean_squared_error(sums: BlockSums, weights: np.ndarray) -> np.ndarray:
    """A metric: of resamples (R,), from sums of one slide and how often each of its blocks is drawn (R, B)."""
    result: np.ndarray = np.sqrt(mean_squared_error(sums, weights))
    return result


def test_a_metric(store: Store, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    systems = "--systems gene_mean,colour_ridge"
    study = f"train study baselines --backbone timm:test_resnet --targets 55 {systems} {QUICK} --name both"
    command(study)
    monkeypatch.setitem(METRICS, "rmse", Metric("RMSE", root_mean_squared_error, lower_is_better=True))
    command(study)  # finished cells are read, as they keep the sums that metrics are made of
    text = Path("runs/both/table.txt").read_text()
    table = pl.read_csv("runs/both/table.csv")
    slides = pl.read_parquet("runs/both/slides.parquet")
    assert "RMSE" in text
    np.testing.assert_allclose(slides["rmse"] ** 2, slides["mse"])
    for row in table.head(2).iter_rows(named=True):
        assert f"{row['rmse_mean']:.3f}" in text
        assert row["rmse_low"] <= row["rmse_mean"] <= row["rmse_high"]
    command("train report runs/both")
    page = Path("report.html").read_text()
    assert "RMSE" in page
    assert f"{table['rmse_mean'][0]:.3f}" in page


def test_a_target(samples: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    monkeypatch.setitem(TARGETS, 32, Target(32, bin_level(32), (SPOT, REGION)))
    extracted = command(f"extract run --samples {samples} {ENCODER} --targets 32 --sampling all")
    assert "written: S1, S2, S3" in extracted
    with Store(Path("store")).geometry("S1") as geometry:
        total, rows = geometry.read("bin_032um/counts/values").sum(), len(geometry.read("bin_032um/barcode"))
        assert len(geometry.read("bin_032um/pixels")) == rows
    measured = space_ranger_hd.read(samples.parent / "S1/outs").bins[8].counts
    assert measured is not None
    assert total == measured.sum()
    command(f"train fit --backbone timm:test_resnet --target 32 --bins frozen --name large {QUICK}")
    table = pl.read_csv("runs/large/table.csv")
    assert table["group"].unique().to_list() == ["32 µm"]
    assert table["system"][0] == "MagNet"
    assert table["pcc_gene_mean"].null_count() == 0
    predictions = list(Path("runs/cells").glob("magnet-32um-*/predictions/*.npy"))
    assert [np.load(path).shape[1] for path in predictions] == [20]


@pytest.mark.parametrize(
    "parts",
    [
        (SpotTable, test_a_reader),
        (test_a_backbone,),
        (NearestConfig, Nearest, test_a_system),
        (root_mean_squared_error, test_a_metric),
        (test_a_target,),
    ],
    ids=["reader", "backbone", "system", "metric", "target"],
)
def test_what_is_added_is_short(parts: tuple[type | Callable[..., None], ...]) -> None:
    assert sum(len(inspect.getsourcelines(part)[0]) for part in parts) <= MOST_LINES

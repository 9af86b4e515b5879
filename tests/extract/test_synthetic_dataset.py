"""The synthetic data set as files: layout, orders, sums, alignment of image and bins, determinism, other readers."""

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
import tifffile
from scipy import sparse

from extract.cli import synth
from extract.synthetic.config import SynthConfig
from extract.synthetic.dataset import synthesise
from extract.synthetic.truth import Truth, read_truth
from magnet_core.errors import MagnetError

CONFIG = SynthConfig(slides=1, seed=3, size_mm=0.6, genes=120, mpp=0.5)

# B bins, G genes, F features


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("synthetic")
    assert synthesise(directory, CONFIG) == directory / "samples.csv"
    return directory


@pytest.fixture(scope="module")
def truth(root: Path) -> Truth:
    return read_truth(root / "S1" / "truth" / "truth.h5")


def level(root: Path, bin_um: int) -> Path:
    return root / "S1" / "outs" / "binned_outputs" / f"square_{bin_um:03}um"


def matrix(path: Path) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Counts (B, F), barcodes (B,), feature types (F,)."""
    with h5py.File(path) as file:
        group = file["matrix"]
        features, bins = group["shape"][:]
        counts = sparse.csr_matrix((group["data"][:], group["indices"][:], group["indptr"][:]), shape=(bins, features))
        return counts, group["barcodes"].asstr()[:], group["features/feature_type"].asstr()[:]


def rows_of(barcodes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    order = np.argsort(barcodes)
    return order[np.searchsorted(barcodes, wanted, sorter=order)]


def positions(root: Path, bin_um: int) -> pl.DataFrame:
    return pl.read_parquet(level(root, bin_um) / "spatial" / "tissue_positions.parquet")


def test_the_table_lists_files_that_exist(root: Path) -> None:
    rows = list(csv.DictReader((root / "samples.csv").read_text().splitlines()))
    assert rows == [
        {
            "slide_id": "S1",
            "image": "S1/S1_tissue_image.btf",
            "counts": "S1/outs",
            "platform": "space_ranger_hd",
            "mpp": "",
            "patient": "P1",
        }
    ]
    assert (root / rows[0]["image"]).is_file()
    assert (root / rows[0]["counts"] / "binned_outputs").is_dir()
    assert not list(root.rglob("*.partial"))


def test_the_image_is_a_tiled_jpeg_pyramid_that_states_its_resolution(root: Path) -> None:
    with tifffile.TiffFile(root / "S1" / "S1_tissue_image.btf") as tiff:
        page, reduced = tiff.pages[0], tiff.pages[1]
        assert tiff.is_bigtiff
        assert page.is_tiled
        assert page.compression.name == "JPEG"
        assert page.shape == (CONFIG.side_px, CONFIG.side_px, 3)
        numerator, denominator = page.tags["XResolution"].value
        assert 1e4 * denominator / numerator == CONFIG.mpp
        assert page.tags["ResolutionUnit"].value == 3
        full, small = page.asarray(), reduced.asarray()
    assert full[:9, :9].min() > 220  # glass is white
    side = len(small) * 4
    shrunk = full[:side, :side].reshape(len(small), 4, len(small), 4, 3).mean(axis=(1, 3))
    assert abs(shrunk.mean() - small.mean()) < 1
    assert np.corrcoef(shrunk.ravel(), small.ravel())[0, 1] > 0.98


def test_matrix_and_positions_hold_the_same_barcodes_in_different_orders(root: Path) -> None:
    for bin_um in (8, 16):
        table = positions(root, bin_um)
        _, raw, _ = matrix(level(root, bin_um) / "raw_feature_bc_matrix.h5")
        _, filtered, _ = matrix(level(root, bin_um) / "filtered_feature_bc_matrix.h5")
        listed = table["barcode"].to_numpy()
        assert set(raw) == set(listed)
        assert (raw != listed).any()
        assert set(filtered) == set(table.filter(pl.col("in_tissue") == 1)["barcode"])
        assert 0 < len(filtered) < len(raw)


def test_a_16_um_bin_is_the_exact_sum_of_four_8_um_bins(root: Path) -> None:
    for name in ("raw", "filtered"):
        fine, fine_names, _ = matrix(level(root, 8) / f"{name}_feature_bc_matrix.h5")
        coarse, coarse_names, _ = matrix(level(root, 16) / f"{name}_feature_bc_matrix.h5")
        assert len(fine_names) == 4 * len(coarse_names)
        parents = [f"s_016um_{int(n[8:13]) // 2:05}_{int(n[14:19]) // 2:05}-1" for n in fine_names]
        summed = np.zeros(coarse.shape, np.int64)
        np.add.at(summed, rows_of(coarse_names, np.array(parents)), fine.toarray())
        np.testing.assert_array_equal(summed, coarse.toarray())


def test_centres_lie_on_a_turned_grid_and_coarse_ones_between_fine_ones(root: Path) -> None:
    fine, coarse = positions(root, 8), positions(root, 16)
    scales = json.loads((level(root, 8) / "spatial" / "scalefactors_json.json").read_text())
    assert scales["microns_per_pixel"] == CONFIG.mpp
    assert scales["bin_size_um"] / scales["spot_diameter_fullres"] == pytest.approx(CONFIG.mpp)
    xy = fine.sort("array_row", "array_col").select("pxl_col_in_fullres", "pxl_row_in_fullres").to_numpy()
    size = len(fine["array_row"].unique())
    xy = xy.reshape(size, size, 2)
    step = xy[0, 1] - xy[0, 0]  # along array_col, hence along x = columns
    assert np.hypot(*step) * CONFIG.mpp == pytest.approx(8)
    assert np.degrees(np.arctan2(step[1], step[0])) == pytest.approx(CONFIG.rotation_deg)
    assert xy.min() > 0
    assert xy.max() < CONFIG.side_px
    first = coarse.filter((pl.col("array_row") == 1) & (pl.col("array_col") == 2))
    middle = xy[2:4, 4:6].mean(axis=(0, 1))
    np.testing.assert_allclose(first.select("pxl_col_in_fullres", "pxl_row_in_fullres").to_numpy()[0], middle)


def test_symbols_repeat_ids_do_not_and_some_features_are_no_genes(root: Path) -> None:
    with h5py.File(level(root, 8) / "raw_feature_bc_matrix.h5") as file:
        ids = file["matrix/features/id"].asstr()[:]
        names = file["matrix/features/name"].asstr()[:]
        types = file["matrix/features/feature_type"].asstr()[:]
    assert len(set(ids)) == len(ids) == CONFIG.genes + 2
    assert len(set(names)) < len(names)
    assert (types == "Gene Expression").sum() == CONFIG.genes


def test_counts_agree_with_the_true_rates(root: Path, truth: Truth) -> None:
    counts, names, types = matrix(level(root, 8) / "filtered_feature_bc_matrix.h5")
    ours = counts[rows_of(names, truth.barcodes)][:, types == "Gene Expression"].toarray()
    expected = truth.rates * truth.capture[:, None]
    spread = np.sqrt((expected + CONFIG.dispersion * expected**2).sum(axis=0))
    z = (ours.sum(axis=0) - expected.sum(axis=0)) / spread
    assert np.abs(z).max() < 4.5
    assert 0.8 < z.std() < 1.2
    per_bin = np.corrcoef(ours.sum(axis=1), expected.sum(axis=1))[0, 1]
    assert per_bin > 0.7
    assert np.median(truth.rates.sum(axis=1)) == pytest.approx(CONFIG.umi_per_bin, rel=0.02)
    assert truth.capture.mean() == pytest.approx(1, abs=0.03)


def test_bins_lie_where_the_positions_say_row_is_y(root: Path, truth: Truth) -> None:
    """The RNA of a bin follows the haematoxylin under it, and does not when x and y are swapped."""
    red = tifffile.imread(root / "S1" / "S1_tissue_image.btf", key=0)[..., 0].astype(np.float64)
    table = positions(root, 8).filter(pl.col("in_tissue") == 1)
    order = rows_of(table["barcode"].to_numpy(), truth.barcodes)
    cols = table["pxl_col_in_fullres"].to_numpy()[order].astype(int)
    rows = table["pxl_row_in_fullres"].to_numpy()[order].astype(int)
    half = round(4 / CONFIG.mpp)

    def darkness(rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        offsets = np.arange(-half, half)
        patch = red[(rows[:, None] + offsets)[:, :, None], (cols[:, None] + offsets)[:, None, :]]
        dark: np.ndarray = 255 - patch.mean(axis=(1, 2))
        return dark

    cells = truth.content.sum(axis=1)
    right = np.corrcoef(cells, darkness(rows, cols))[0, 1]
    shifted = np.corrcoef(cells, darkness(rows, cols + 2 * half))[0, 1]
    swapped = np.corrcoef(cells, darkness(cols, rows))[0, 1]
    assert right > 0.6
    assert right > shifted + 0.2
    assert right > swapped + 0.4


def contents(root: Path) -> dict[str, object]:
    """Every file by its bytes; h5 files by their values, since their bytes hold a clock."""
    found: dict[str, object] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        found[name] = path.read_bytes()
        if path.suffix == ".h5":
            values: dict[str, bytes] = {}
            with h5py.File(path) as file:
                file.visititems(lambda key, node, into=values: into.update(_values(key, node)))
            found[name] = values
    return found


def _values(key: str, node: h5py.Dataset | h5py.Group) -> dict[str, bytes]:
    return {key: node[:].tobytes()} if isinstance(node, h5py.Dataset) else {}


def test_equal_seeds_give_equal_files_and_another_seed_another_slide(tmp_path: Path) -> None:
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        synthesise(tmp_path / name, SynthConfig(slides=1, seed=seed, size_mm=0.4, genes=40, mpp=1.0))
    first, again, other = (contents(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert first["S1/S1_tissue_image.btf"] != other["S1/S1_tissue_image.btf"]


def test_patients_are_dealt_in_turn() -> None:
    assert [SynthConfig(slides=4).patient_of(s) for s in SynthConfig(slides=4).slide_ids] == ["P1", "P2", "P3", "P4"]
    six = SynthConfig(slides=6)
    assert [six.patient_of(slide) for slide in six.slide_ids] == ["P1", "P2", "P3", "P1", "P2", "P3"]
    two = SynthConfig(slides=3, patients=2)
    assert [two.patient_of(slide) for slide in two.slide_ids] == ["P1", "P2", "P1"]


@pytest.mark.parametrize(("name", "bad"), [("slides", 0), ("size_mm", 0.1), ("genes", 3), ("patients", 9), ("mpp", 0)])
def test_a_value_out_of_range_is_one_line_that_names_it(name: str, bad: float) -> None:
    with pytest.raises(MagnetError, match=name) as caught:
        SynthConfig(**{name: bad})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # third-party warnings while other packages load and read
@pytest.mark.interop
def test_openslide_and_spatialdata_io_read_it(root: Path, truth: Truth) -> None:
    openslide = pytest.importorskip("openslide")
    spatialdata_io = pytest.importorskip("spatialdata_io")
    with openslide.OpenSlide(root / "S1" / "S1_tissue_image.btf") as slide:
        assert slide.dimensions == (CONFIG.side_px, CONFIG.side_px)
        assert slide.level_downsamples == (1.0, 4.0)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(CONFIG.mpp)
    read = spatialdata_io.visium_hd(
        root / "S1" / "outs",
        dataset_id="S1",
        fullres_image_file=root / "S1" / "S1_tissue_image.btf",
        load_segmentations_only=False,
    )
    table = read.tables["square_008um"]
    assert set(table.obs_names) == set(truth.barcodes)
    assert table.var["gene_ids"].is_unique
    assert read.images["S1_full_image"] is not None


def test_the_command_does_not_replace_a_data_set_unasked(tmp_path: Path) -> None:
    (tmp_path / "samples.csv").write_text("slide_id,image\n")
    with pytest.raises(MagnetError, match="expected a new folder, found one with samples.csv; name another"):
        synth(tmp_path, slides=1, size_mm=0.2)
    assert (tmp_path / "samples.csv").read_text() == "slide_id,image\n"

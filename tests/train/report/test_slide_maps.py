from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from cache.store import Store
from magnet_core.errors import MagnetError
from magnet_core.levels import TARGETS
from magnet_core.metrics import evaluate
from tests.train.setting import edited
from train.cli import app
from train.data.lattice import Lattice, lattice_of
from train.data.slide import open_slide_data
from train.places import read_record
from train.report.slide_maps import MapSource, find_slide_maps, read_slide_maps
from train.report.table_cells import cells_of
from train.settings.fit import FitConfig

TITLES = ["colour ridge", "MagNet", "gene mean"]
Copy = Callable[[Path], Path]


def source_of(folder: Path, group: str, slide_id: str) -> MapSource:
    return next(each for each in find_slide_maps(folder) if (each.group, each.slide_id) == (group, slide_id))


def predict(runs: Path | list[Path], slide_id: str, *options: str) -> None:
    """Predict a slide with a cell's run, or with several, into the folder of the first."""
    folders = map(str, [runs] if isinstance(runs, Path) else runs)
    command = ["predict", *folders, "--slide", slide_id, *options]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def our_run(folder: Path, fold: int, group: str = "8 µm") -> Path:
    return cells_of(read_record(folder), folder, group)[fold].folders["MagNet"]


def test_every_test_slide_of_every_group_has_a_map_with_all_systems(mapped: Path) -> None:
    tested = [slide for sides in read_record(mapped)["folds"].values() for slide in sides["test"]]
    sources = find_slide_maps(mapped)
    assert [(each.group, each.slide_id) for each in sources] == [
        (group, slide) for group in ("8 µm", "55 µm") for slide in tested
    ]
    for each in sources:
        assert list(each.systems.items()) == [
            ("colour ridge", "colour_ridge"),
            ("MagNet", "magnet"),
            ("gene mean", "gene_mean"),
        ]
        assert (each.ours, each.whole, len(each.panel)) == ("MagNet", False, 20)


@pytest.mark.parametrize(("group", "target"), [("8 µm", 8), ("55 µm", 55)])
def test_a_map_holds_what_the_store_and_the_cells_hold(
    mapped: Path, small_store: Store, group: str, target: int
) -> None:
    source = next(each for each in find_slide_maps(mapped) if each.group == group)
    names = source.panel.names[[7, 2]].tolist()
    drawn = source.read(names, ["MagNet"])
    config = FitConfig.build(read_record(mapped)["config"]["fit"], where="study.json")
    slide = open_slide_data(small_store, source.slide_id, TARGETS[target], config.data)
    labels = slide.labels(source.panel, config.data.normalise)[slide.fine.name]
    assert labels is not None
    assert drawn.truth is not None
    np.testing.assert_array_equal(drawn.truth, labels[:, [7, 2]])
    np.testing.assert_array_equal(drawn.centres_um, slide.fine.centres_um)
    np.testing.assert_array_equal(drawn.barcodes, slide.fine.barcodes())
    assert drawn.genes.names.tolist() == names
    assert drawn.um == (56 if target == 55 else 8)
    assert list(drawn.predictions) == ["MagNet"]
    genes = pl.read_parquet(mapped / "genes.parquet").filter(
        pl.col("group") == group, pl.col("system") == "MagNet", pl.col("slide_id") == source.slide_id
    )
    recorded = [genes.filter(pl.col("gene_name") == name)["pcc"][0] for name in names]
    np.testing.assert_allclose(evaluate(drawn.predictions["MagNet"], drawn.truth).gene_pcc, recorded, rtol=1e-5)


def test_all_maps_are_read_one_after_the_other_with_the_genes_that_are_there(mapped: Path) -> None:
    gene = str(find_slide_maps(mapped)[0].panel.names[0])
    maps = list(read_slide_maps(mapped, genes=[gene, "NOTAGENE"]))
    assert maps
    assert all(each.genes.names.tolist() == [gene] and list(each.predictions) == TITLES for each in maps)
    assert next(read_slide_maps(mapped)).truth is not None


def test_an_unknown_gene_is_one_line_that_names_near_ones(mapped: Path) -> None:
    source = find_slide_maps(mapped)[0]
    name = str(source.panel.names[0])
    with pytest.raises(
        MagnetError, match=rf"expected genes of a panel of 20, found '{name.lower()}'; did you mean .*{name}"
    ):
        source.read([name.lower()])


def test_a_store_that_was_extracted_anew_is_told_of(mapped: Path, copy_of: Copy, small_store: Store) -> None:
    folder = copy_of(mapped)
    source = find_slide_maps(folder)[0]
    cell = cells_of(read_record(folder), folder, "8 µm")[0].folders["MagNet"]
    edited(cell / "cell.json", lambda _: None)  # without checksums
    path = cell / "predictions" / f"{source.slide_id}.npy"
    values = np.load(path)
    np.save(path, np.roll(values, 40, axis=0) + 0.01)
    with pytest.raises(MagnetError, match=r"expected a prediction of the bins of .*, found an error of .* is recorded"):
        source.read()
    np.save(path, values[1:])
    with pytest.raises(MagnetError, match="rows of other genes or bins; the store was extracted anew"):
        source.read()


def test_a_store_that_is_gone_is_told_of_and_may_be_named(mapped: Path, copy_of: Copy, small_store: Store) -> None:
    folder = copy_of(mapped)
    edited(folder / "study.json", lambda record: record["config"]["fit"]["data"].update(store="gone"))
    with pytest.raises(MagnetError, match="found no store at gone; name the store with --store"):
        find_slide_maps(folder)
    assert len(find_slide_maps(folder, store=small_store.root)) == len(find_slide_maps(mapped))


def test_what_was_predicted_of_other_slides_is_a_map_too(mapped: Path, copy_of: Copy) -> None:
    folder = copy_of(mapped)
    record, run = read_record(folder), our_run(folder, 0)
    (other,) = [slide for slide in record["folds"]["0"]["train"] if slide not in record["folds"]["1"]["test"]]
    before = len(find_slide_maps(folder))
    predict(run, other, "--genes", ",".join(source_of(folder, "8 µm", record["folds"]["0"]["test"][0]).panel.names[:3]))
    predict(run, record["folds"]["0"]["test"][0])  # of the same bins as its cell's
    sources = find_slide_maps(folder)
    assert len(sources) == before + 1
    source = next(each for each in sources if each.whole)
    assert (source.group, source.slide_id, list(source.systems)) == ("8 µm", other, ["MagNet"])
    drawn = source.read(source.panel.names[[2, 0]].tolist())
    assert drawn.truth is not None
    assert np.isfinite(drawn.truth).all()
    predict(run, other, "--measured", "--overwrite")
    measured = next(each for each in find_slide_maps(folder) if each.whole).read(drawn.genes.names.tolist())
    np.testing.assert_array_equal(measured.truth, drawn.truth)
    tested = pl.read_parquet(run / "genes.parquet").filter(pl.col("gene_id") == drawn.genes.ids[0])
    assert drawn.elsewhere is not None
    assert drawn.elsewhere[0] == pytest.approx(tested["pcc"].fill_nan(None).mean())
    np.testing.assert_array_equal(measured.predictions["MagNet"], drawn.predictions["MagNet"])
    assert (measured.um, measured.lattice is not None) == (8, True)


def test_what_an_ensemble_of_folds_predicted_comes_first_with_the_sd_between_them(mapped: Path, copy_of: Copy) -> None:
    folder = copy_of(mapped)
    runs = [our_run(folder, fold) for fold in (0, 1)]
    slide_id = read_record(folder)["folds"]["0"]["test"][0]
    predict(runs, slide_id, "--ensemble")
    predict(runs[1], slide_id)
    (source,) = [each for each in find_slide_maps(folder) if each.whole]
    assert (source.slide_id, source.learnt_from) == (slide_id, True)  # by the other fold
    drawn = source.read()
    assert drawn.deviation is not None
    assert drawn.deviation.max() > 0
    (runs[1] / "model.safetensors").unlink()
    assert not any(each.whole for each in find_slide_maps(folder))


def test_a_prediction_by_other_weights_is_left_out(mapped: Path, copy_of: Copy) -> None:
    folder = copy_of(mapped)
    other = read_record(folder)["folds"]["0"]["train"][0]
    predict(our_run(folder, 0, "55 µm"), other, "--out", str(folder / "predictions" / "x.h5ad"))
    assert any(each.whole for each in find_slide_maps(folder))
    weights = our_run(folder, 0, "55 µm") / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert not any(each.whole for each in find_slide_maps(folder))


def test_a_damaged_prediction_is_one_line_and_the_other_maps_stay(
    mapped: Path, copy_of: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(mapped)
    (folder / "predictions").mkdir()
    (folder / "predictions" / "S1.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n and then nothing")
    assert len(find_slide_maps(folder)) == len(find_slide_maps(mapped))
    told = capsys.readouterr().err
    assert "S1.h5ad: expected a prediction as 'train predict' writes it" in told


def test_a_lattice_lays_values_where_their_bins_are() -> None:
    cells = np.array([(5, 2), (3, 4), (4, 2), (3, 2)])
    turn = np.array([[7.99, -0.04], [0.04, 7.99]])
    centres_um = cells[:, ::-1] @ turn.T + [100, 50]
    names = [f"s_008um_{row:05d}_{column:05d}-1" for row, column in cells]
    lattice = lattice_of(names, centres_um)
    assert isinstance(lattice, Lattice)
    raster = lattice.raster(np.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_array_equal(raster, [[4, np.nan, 2], [3, np.nan, np.nan], [1, np.nan, np.nan]])
    np.testing.assert_allclose(lattice.corners_um()[0], turn @ [1.5, 2.5] + [100, 50])
    np.testing.assert_allclose(lattice.corners_um()[2], turn @ [4.5, 5.5] + [100, 50])


@pytest.mark.parametrize(
    "names",
    [
        ["AACC-1", "ACGT-1", "TTTT-1", "GGGG-1"],
        ["spot_00001_00001", "spot_00001_00001", "spot_00002_00001", "spot_00002_00002"],
        ["spot_00001_00001", "spot_00900_09999", "spot_00002_00001", "spot_00002_00002"],
        ["spot_00001_00001", "spot_00001_00002", "spot_00002_00001", "spot_00002_00002"],
    ],
    ids=["no names of places", "two at one place", "a stray one", "places elsewhere"],
)
def test_bins_without_a_lattice_have_none(names: list[str]) -> None:
    assert lattice_of(names, np.array([[0.0, 0.0], [8.0, 0.0], [9.0, 9.0], [40.0, 9.0]])) is None

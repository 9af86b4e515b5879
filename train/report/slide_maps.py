"""Maps of a table's results: what each system predicts on a slide beside what was measured, where, and on which tissue.

In: the folder of a table (`train fit`, `cv`, `study`), its cells, their store, and what `train predict` wrote for it.
Out: a `MapSource` for each group of rows and slide, which is told without reading a value. Its `read` returns a
`SlideMap` of chosen genes: one slide, and of it a few columns, are in memory at a time.

    for source in find_slide_maps(folder):
        print(source.group, source.slide_id, source.systems, source.panel.names)
        slide_map = source.read(["SGPP1"])
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cache.fingerprint import file_fingerprint
from cache.picture import Picture
from cache.reader import ArrayFile
from cache.store import Store
from magnet_core.checksums import FILES, check_files
from magnet_core.console import logger, notice
from magnet_core.errors import MagnetError
from magnet_core.expression import columns_of
from magnet_core.levels import SPOT, find_target
from magnet_core.records import Genes
from train.data.labels import read_labels
from train.data.lattice import Lattice, lattice_of
from train.evaluation.scores import GENES
from train.places import CELL, WEIGHTS, anew, members_in, read_record, read_result
from train.report.predicted_file import DEVIATION, MEASURED, PredictedFile, open_predicted
from train.report.table_cells import Cells, cells_of, panel_of
from train.studies.cell import prediction_path

# N rows of a slide, P genes that were asked for

log = logger(__name__)

PREDICTIONS = "predictions"
_SAME = 1e-3  # part by which an error that is computed again may differ from the recorded one


@dataclass(frozen=True)
class SlideMap:
    """Some genes of one slide.

    group        rows of the table that are compared, such as '8 µm'
    um           side of a row, and what it stands for: 8 or 16, a bin; 56, a spot
    centres_um   (N, 2) x and y from the top left corner of the image
    barcodes     (N,)
    genes        ids and names (P,)
    truth        measured expression (N, P) float32, NaN where a row or gene was not measured; None on a slide without
                 counts
    predictions  by system's title, in the order of the table, (N, P) float32
    ours         title of the row that the others are compared with
    deviation    (N, P) of an ensemble's members, of `ours`; None where it is of one
    picture      H&E of the whole slide; None in stores of before
    whole        whether it is what `train predict` wrote, the whole slide where its store held that; else the bins
                 that the table was made on, which may be windows
    learnt_from  whether the run saw the slide's labels in training
    elsewhere    (P,) mean PCC of `ours` on the slides that its run was tested on, NaN where unknown; of what
                 `train predict` wrote alone
    """

    group: str
    slide_id: str
    um: int
    centres_um: np.ndarray
    barcodes: np.ndarray
    genes: Genes
    truth: np.ndarray | None
    predictions: Mapping[str, np.ndarray]
    ours: str
    picture: Picture | None = None
    deviation: np.ndarray | None = None
    whole: bool = False
    learnt_from: bool = False
    elsewhere: np.ndarray | None = None

    @cached_property
    def lattice(self) -> Lattice | None:
        """Rows and columns of the bins; None where they have none."""
        return lattice_of(self.barcodes.tolist(), self.centres_um)


@dataclass(frozen=True)
class MapSource(ABC):
    """Where the map of a slide comes from.

    panel    genes that can be read
    systems  names of the systems, such as magnet, by their titles; rows of one system differ in their titles
    whole, learnt_from  as in `SlideMap`
    """

    group: str
    slide_id: str
    ours: str
    panel: Genes
    systems: Mapping[str, str]
    whole: bool
    learnt_from: bool

    @abstractmethod
    def read(self, genes: Sequence[str] | None = None, systems: Sequence[str] | None = None) -> SlideMap:
        """Read genes by names or ids, all of the panel by default, of systems by their titles, of all by default."""

    def columns(self, genes: Sequence[str] | None) -> np.ndarray:
        """Columns (P,) of genes in the panel; an unknown one is an error that names those that come near."""
        return find_columns(self.panel, genes, where=f"{self.group}, {self.slide_id}: genes")


@dataclass(frozen=True)
class CellSource(MapSource):
    """A test slide of the table: its cells have predictions, the store has places and counts."""

    cells: Cells
    store: Store

    def read(self, genes: Sequence[str] | None = None, systems: Sequence[str] | None = None) -> SlideMap:
        """Read predictions, places and truth, and see that they belong together."""
        columns = self.columns(genes)
        target = find_target(self.cells.target_um)
        with self.store.geometry(self.slide_id) as geometry:
            geometry.require_intact(_names_of(geometry, target.fine))
            centres_um = geometry.read(f"{target.fine}/centres_um")
            barcodes = geometry.read(f"{target.fine}/barcode")
            truth = read_labels(geometry, target.fine, self.cells.panel, columns, self.cells.normalise)
            um = _side_um(geometry, self.cells.target_um)
        ids = self.panel.ids[columns]
        predictions = {
            title: self._prediction(title, ids, truth, len(centres_um))
            for title in self.cells.folders
            if systems is None or title in systems
        }
        return SlideMap(
            self.group, self.slide_id, um, centres_um, barcodes, Genes(ids, self.panel.names[columns]), truth,
            predictions, self.ours, self.store.picture(self.slide_id),
        )  # fmt: skip

    def _prediction(self, title: str, ids: np.ndarray, truth: np.ndarray | None, num_rows: int) -> np.ndarray:
        """Prediction (N, P) of one row of the table, compared with what its cell records of the first gene."""
        folder = self.cells.folders[title]
        description = read_result(folder / CELL, ("panel",))
        path, remedy = prediction_path(folder, self.slide_id), anew(folder / CELL)
        check_files(folder, [path.relative_to(folder).as_posix()], description.get(FILES), remedy=remedy)
        try:
            values = np.load(path, mmap_mode="r")
            columns = columns_of(panel_of(description), ids)
            if len(values) != num_rows or (columns < 0).any():
                raise ValueError(f"{len(values)} rows of other genes or bins")
            prediction = np.asarray(values[:, columns], dtype=np.float32)
            scores = pl.read_parquet(folder / GENES)
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise self._strange(folder, str(error)) from error
        of_first = scores.filter(pl.col("slide_id") == self.slide_id, pl.col("gene_id") == ids[0])
        recorded = of_first["mse"][0] if len(of_first) else None
        if truth is not None and recorded is not None and np.isfinite(recorded):
            computed = float(np.nanmean((prediction[:, 0].astype(np.float64) - truth[:, 0]) ** 2))
            if abs(computed - recorded) > _SAME * max(abs(recorded), 1e-6):
                raise self._strange(folder, f"an error of {computed:.4g} where {recorded:.4g} is recorded")
        return prediction

    def _strange(self, folder: Path, found: str) -> MagnetError:
        return MagnetError(
            folder,
            expected=f"a prediction of the bins of {self.slide_id} in {self.store.root}",
            found=found,
            remedy="the store was extracted anew, or is another: name the right one with --store, or train again",
        )


@dataclass(frozen=True)
class FileSource(MapSource):
    """A slide that `train predict` wrote, by the trained run of the table; its truth is in the file or in the store."""

    file: PredictedFile
    cells: Cells
    store: Store | None

    def read(self, genes: Sequence[str] | None = None, systems: Sequence[str] | None = None) -> SlideMap:
        """Read a file's columns; rows are matched with the store by barcode."""
        columns = self.columns(genes)
        barcodes, centres_um = self.file.places()
        chosen = Genes(self.panel.ids[columns], self.panel.names[columns])
        truth = self.file.values(columns, of=MEASURED)
        if truth is None:
            truth = self._measured(barcodes, chosen)
        values = self.file.values(columns)
        assert values is not None  # the file was looked at
        return SlideMap(
            self.group, self.slide_id, round(self.file.side_um()), centres_um, barcodes, chosen, truth,
            {self.ours: values}, self.ours,
            self._picture(), self.file.values(columns, of=DEVIATION), whole=True, learnt_from=self.learnt_from,
            elsewhere=self._elsewhere(chosen),
        )  # fmt: skip

    def _elsewhere(self, genes: Genes) -> np.ndarray:
        folder = self.cells.folders[self.ours]
        try:
            tested = pl.read_parquet(folder / GENES, columns=["gene_id", "pcc"]).cast({"pcc": pl.Float64})
        except (OSError, pl.exceptions.PolarsError) as error:
            remedy = anew(folder / CELL)
            raise MagnetError(folder / GENES, expected="scores", found=str(error), remedy=remedy) from error
        means = dict(tested.group_by("gene_id").agg(pl.col("pcc").fill_nan(None).mean()).iter_rows())
        return np.array([means.get(gene) for gene in genes.ids.tolist()], float)

    def _picture(self) -> Picture | None:
        """Read the picture that the store has of the slide, else that in the file."""
        of_store = self.store.picture(self.slide_id) if self.store and self.slide_id in self.store.slide_ids() else None
        return of_store or self.file.picture()

    def _measured(self, barcodes: np.ndarray, genes: Genes) -> np.ndarray | None:
        """Labels (N, P) of the rows that the store has, NaN in others; None where it has none of them."""
        fine = find_target(self.cells.target_um).fine
        if self.store is None or self.slide_id not in self.store.slide_ids():
            return None
        with self.store.geometry(self.slide_id) as geometry:
            if fine not in geometry.header["levels"]:
                return None
            geometry.require_intact(_names_of(geometry, fine))
            columns = columns_of(self.cells.panel, genes.ids)
            labels = read_labels(geometry, fine, self.cells.panel, columns, self.cells.normalise)
            of_barcode = {barcode: row for row, barcode in enumerate(geometry.read(f"{fine}/barcode").tolist())}
        rows = np.array([of_barcode.get(barcode, -1) for barcode in barcodes.tolist()], np.int64)
        if labels is None or (rows < 0).all():
            return None
        return np.where((rows >= 0)[:, None], labels[rows], np.float32("nan"))


def find_slide_maps(folder: Path, *, store: Path | None = None) -> list[MapSource]:
    """List the maps of a table, groups and folds in its order, files of `train predict` after its test slides.

    `store` is where the table's store has moved to. A table none of whose maps can be read is an error.
    """
    record = read_record(folder)
    opened, sources = open_store(record, store), list[MapSource]()
    for group in dict.fromkeys(row["group"] for row in record["rows"]):
        folds = cells_of(record, folder, group)
        if opened is not None:
            sources += [
                CellSource(group, slide_id, cells.ours, cells.panel, cells.names, False, False, cells, opened)
                for cells in folds
                for slide_id in cells.test
                if all(prediction_path(each, slide_id).is_file() for each in cells.folders.values())
            ]
        sources += predicted_slides(group, folds, folder, opened)
    if not sources:
        where = record["config"]["fit"]["data"]["store"]
        raise MagnetError(
            folder,
            expected="predictions of its cells, and the store they are of",
            found="none" if opened is not None else f"no store at {where}",
            remedy="name the store with --store" if opened is None else "copy its cells (RUNS/cells) beside it, too",
        )
    return sources


def read_slide_maps(
    folder: Path, *, genes: Sequence[str] | None = None, store: Path | None = None
) -> Iterator[SlideMap]:
    """Read all maps of a table one after the other; of each, those of the genes that its panel has."""
    for source in find_slide_maps(folder, store=store):
        chosen = None if genes is None else [gene for gene in genes if gene in source.panel.names]
        if chosen is None or chosen:
            yield source.read(chosen)


def open_store(record: Mapping[str, Any], store: Path | None) -> Store | None:
    """Open the store that is named, or that of a table's record; None where that is no longer there."""
    own = Path(record["config"]["fit"]["data"]["store"])
    if store is None and not (own / "store.json").is_file():
        return None
    return Store(store or own)


def predicted_slides(group: str, folds: Sequence[Cells], folder: Path, store: Store | None) -> Iterator[MapSource]:
    """Yield files of `train predict` beside a table or its cells; none that says no more than the cells do.

    Slides that were tested come first. The first of several files of a slide counts, an ensemble's before others. Those
    of other weights than the table's runs have do not.
    """
    runs = {cells.folders[cells.ours]: cells for cells in folds}
    members = [(member, cells) for run, cells in runs.items() for member in members_in(run) or [run]]
    trained = {file_fingerprint(run / WEIGHTS): cells for run, cells in members if (run / WEIGHTS).is_file()}
    paths = [path for place in (folder, *runs) for path in sorted((place / PREDICTIONS).glob("*.h5ad"))]
    files = [file for file in map(opened_or_told, paths) if file is not None]
    tested, targets = {slide_id for cells in folds for slide_id in cells.test}, {cells.target_um for cells in folds}
    told: set[str] = set()
    for file in sorted(files, key=lambda each: (each.slide_id not in tested, len(each.weights) == 1)):
        if file.target_um not in targets or file.slide_id in told:
            continue
        trainings = [trained[weights] for weights in file.weights if weights in trained]
        if not trainings or len(trainings) < len(file.weights):
            reason = f"it was predicted by other weights than the runs of {folder} have"
            notice(f"{file.path}: left out, as {reason}; name the table of all its runs")
            continue
        cells = trainings[0]
        if store is not None and trainings == [cells] and file.slide_id in cells.test and _has_these_rows(store, file):
            continue
        told.add(file.slide_id)
        systems = {cells.ours: cells.names[cells.ours]}
        learnt_from = any(file.slide_id in each.train for each in trainings)
        yield FileSource(group, file.slide_id, cells.ours, file.genes, systems, True, learnt_from, file, cells, store)


def opened_or_told(path: Path) -> PredictedFile | None:
    """Look at a file of `train predict`; a damaged one is told of, and the others are shown."""
    try:
        return open_predicted(path)
    except MagnetError as error:
        log.error("left out: %s", error)
        return None


def find_columns(panel: Genes, genes: Sequence[str] | None, *, where: str) -> np.ndarray:
    """Return the columns (P,) of genes, by names or ids, in a panel; all of them where none is named."""
    if genes is None:
        return np.arange(len(panel))
    expected = f"genes of a panel of {len(panel)}"
    return panel.named(genes, where=where, expected=expected, otherwise="correct them, or train with data.include")


def _names_of(geometry: ArrayFile, level: str) -> list[str]:
    """Arrays of a level that a map reads, and no pixels."""
    wanted = ("genes/", f"{level}/centres_um", f"{level}/barcode", f"{level}/counts/")
    return [name for name in geometry.names() if name.startswith(wanted)]


def _side_um(geometry: ArrayFile, target_um: int) -> int:
    fine = find_target(target_um).fine
    return round(geometry.header["levels"][SPOT]["patch_um"]) if fine == SPOT else target_um


def _has_these_rows(store: Store, file: PredictedFile) -> bool:
    """Whether a file is of the very bins that the store has of its slide."""
    if file.slide_id not in store.slide_ids():
        return False
    with store.geometry(file.slide_id) as geometry:
        return bool(geometry.header.get("digest") == file.origin.get("geometry_digest"))

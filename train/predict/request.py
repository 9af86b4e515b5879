"""A request for a prediction, and the checks of it that come before torch is imported.

In: a run's folder, names of slides and genes. Out: the run, the store, the slides, columns of the panel.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.store import Store
from magnet_core.errors import MagnetError
from magnet_core.records import Genes
from magnet_core.registry import look_up, near_names
from train.places import RUN, anew, read_run, trained_run
from train.predict.drawing import DEFAULT_LEVEL, Drawing, read_level
from train.predict.formats import GEOJSON, H5AD, OME_TIFF, find_format

# P panel genes

ALL = "all"


@dataclass(frozen=True)
class PredictConfig:
    """One `train predict`.

    slides    slide ids, or `all`
    store     None: the one the run was trained on
    out       file of the only slide, in the first format; None: RUN/predictions/<slide_id>.h5ad
    genes     names or ids of genes to keep; (): the whole panel
    measured  the labels too, where a slide has counts
    formats   names of `train.predict.formats`; their files lie beside each other and differ in their suffix
    draw      names or ids of genes that maps show; (): those of `genes`
    above     the level above which the regions of maps lie, see `train.predict.drawing`
    """

    run: Path
    slides: tuple[str, ...]
    store: Path | None = None
    out: Path | None = None
    genes: tuple[str, ...] = ()
    measured: bool = False
    formats: tuple[str, ...] = (H5AD,)
    draw: tuple[str, ...] = ()
    above: str = DEFAULT_LEVEL
    overwrite: bool = False
    device: str = "auto"

    @property
    def suffix(self) -> str:
        """What the name of a slide's first file ends with."""
        return find_format(self.formats[0]).suffix

    def path(self, slide_id: str) -> Path:
        """The first file of a slide's prediction."""
        return self.out or self.run / "predictions" / f"{slide_id}{self.suffix}"

    def files(self, slide_id: str) -> dict[str, Path]:
        """The file that is written for a slide, by the name of its format."""
        path = self.path(slide_id)
        stem = path.name.removesuffix(self.suffix)
        return {name: path.with_name(stem + find_format(name).suffix) for name in self.formats}

    @property
    def drawing(self) -> Drawing:
        """What maps show."""
        return Drawing(self.draw or self.genes, read_level(self.above))

    def paths(self, slide_id: str) -> list[Path]:
        """All files that are written for a slide."""
        return list(self.files(slide_id).values())


@dataclass(frozen=True)
class Accepted:
    """What to predict: the trained run's folder, the store, the slides, and the columns (P,) of the panel to keep."""

    run: Path
    store: Store
    slide_ids: list[str]
    columns: np.ndarray


def accept(config: PredictConfig) -> Accepted:
    """Look up everything that is named; the first that is missing, or a file in the way, is an error."""
    run = trained_run(config.run)
    description = read_run(run)
    try:
        panel = Genes(np.array(description["panel"]["id"]), np.array(description["panel"]["name"]))
        own = Path(description["config"]["data"]["store"])
    except (KeyError, TypeError) as error:
        raise MagnetError(
            run / RUN, expected="the panel and the store of a run", found=f"no {error}", remedy=anew(run / RUN)
        ) from error
    store, columns = open_store(config, own), choose_genes(panel, config, run)
    check_drawing(config, Genes(panel.ids[columns], panel.names[columns]))
    return Accepted(run, store, choose_slides(store, config), columns)


def open_store(config: PredictConfig, own: Path) -> Store:
    """Open the named store, or the run's own; a store that has moved is an error that says how to name it."""
    if config.store is None and not (own / "store.json").is_file():
        raise MagnetError(
            config.run,
            expected=f"the store it was trained on, at {own}",
            found="none there",
            remedy="name the store with --store",
        )
    return Store(config.store or own)


def choose_slides(store: Store, config: PredictConfig) -> list[str]:
    """Return the slides to predict; unknown slides and existing files are errors before anything is done."""
    ids_in_store = store.slide_ids()
    current = [row["slide_id"] for row in store.current_samples()]
    slide_ids = current if ALL in config.slides else list(dict.fromkeys(config.slides))
    for slide_id in slide_ids:
        look_up(dict.fromkeys(ids_in_store), slide_id, where=f"{store.root}: slide")
    if config.out is not None and (len(slide_ids) > 1 or not config.out.name.endswith(config.suffix)):
        raise MagnetError(
            "--out",
            expected=f"one slide, and a name ending in {config.suffix}",
            found=f"{len(slide_ids)} slides and '{config.out}'",
            remedy="leave --out out, to have a file a slide in the run's folder",
        )
    existing = [path for slide_id in slide_ids for path in config.paths(slide_id) if path.exists()]
    if existing and not config.overwrite:
        raise MagnetError(
            existing[0],
            expected="no such file yet",
            found=f"it is there, one of {len(existing)}" if len(existing) > 1 else "it is there",
            remedy="pass --overwrite, or leave the slide out" if config.out is None else "pass --overwrite",
        )
    for folder in dict.fromkeys(path.parent for slide_id in slide_ids for path in config.paths(slide_id)):
        check_writable(folder)
    return slide_ids


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written, or made, before anything is predicted."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise MagnetError(
            folder, expected="a folder that can be written", found="one that cannot", remedy="name a file with --out"
        )


def choose_genes(panel: Genes, config: PredictConfig, run: Path) -> np.ndarray:
    """Return the columns (P,) of the panel to keep."""
    column_of = {name: column for names in (panel.ids, panel.names) for column, name in enumerate(names.tolist())}
    unknown = [name for name in config.genes if name not in column_of]
    if unknown:
        near = near_names(unknown[0], panel.names.tolist())
        raise MagnetError(
            "--genes",
            expected=f"genes of the run's panel of {len(panel)}",
            found=", ".join(f"'{name}'" for name in unknown),
            remedy=near if near.startswith("did you mean") else f"see 'panel' in {run / RUN}",
        )
    return np.array(list(dict.fromkeys(column_of[name] for name in config.genes)) or range(len(panel)), np.int64)


def check_drawing(config: PredictConfig, genes: Genes) -> None:
    """Refuse maps of genes that nobody has named, or that are not among those that are kept."""
    maps = [name for name in config.formats if find_format(name).is_map]
    if maps and not config.drawing.genes:
        raise MagnetError(
            f"--format {', '.join(maps)}",
            expected="genes to draw",
            found="none named",
            remedy="name some with --draw, or keep some alone with --genes",
        )
    needs = {"--draw": (config.draw, [OME_TIFF, GEOJSON]), "--above": (config.above != DEFAULT_LEVEL, [GEOJSON])}
    for option, (is_given, read_by) in needs.items():
        if is_given and not set(read_by) & set(config.formats):
            raise MagnetError(
                option,
                expected=f"--format {' or '.join(read_by)}",
                found=f"--format {','.join(config.formats)}",
                remedy=f"add one, or leave {option} out",
            )
    config.drawing.columns(genes)

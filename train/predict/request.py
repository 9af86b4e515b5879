"""A request for a prediction, and the checks of it that come before torch is imported.

In: folders of runs, names of slides or images, genes. Out: the runs, what they predict, columns of their panels.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cache.store import Store
from magnet_core.console import notice
from magnet_core.engine.shard import Shard
from magnet_core.errors import MagnetError
from magnet_core.records import Genes, Sample
from magnet_core.registry import look_up
from train.learning.stage_one import StageOne
from train.places import RUN, read_run
from train.predict.drawing import DEFAULT_LEVEL, Drawing, read_level
from train.predict.formats import GEOJSON, H5AD, OME_TIFF, find_format
from train.predict.made_as import stage_one_of
from train.predict.members import (
    Member,
    check_alike,
    check_made_alike,
    columns_in,
    common_panel,
    member_folders,
    panel_of,
)

# P genes that are kept

ALL = "all"


@dataclass(frozen=True)
class PredictConfig:
    """One `train predict`.

    runs      a trained run; with `ensemble` several, or tables, all of whose folds are members
    slides    slide ids of a store, or `all`; of `samples`, those that are predicted
    images    files of slides that are in no store, `samples` a sheet of such
    mpp       µm/px of the images, as in a sheet: `0.5`, or `0.5!` whatever the files state
    tissue    of the one image: a file that says where its tissue is
    like      of the one image: Space Ranger's outputs, whose bins it gets, and with `measured` their counts
    views     1, or 8: the mean over all symmetries in which patches can be seen
    store     None: the one the run was trained on
    out       file of the only slide, in the first format; None: RUN/predictions/<slide_id>.h5ad
    genes     names or ids of genes to keep; (): the whole panel
    measured  the labels too, where a slide has counts
    formats   names of `train.predict.formats`; their files lie beside each other and differ in their suffix
    workers   threads that decode an image
    draw      names or ids of genes that maps show; (): those of `genes`
    above     the level above which the regions of maps lie, see `train.predict.drawing`
    """

    runs: tuple[Path, ...]
    slides: tuple[str, ...] = ()
    images: tuple[Path, ...] = ()
    samples: Path | None = None
    mpp: str = ""
    tissue: Path | None = None
    like: Path | None = None
    ensemble: bool = False
    views: Literal[1, 8] = 1
    store: Path | None = None
    out: Path | None = None
    genes: tuple[str, ...] = ()
    measured: bool = False
    formats: tuple[str, ...] = (H5AD,)
    draw: tuple[str, ...] = ()
    above: str = DEFAULT_LEVEL
    overwrite: bool = False
    device: str = "auto"
    batch_size: int = 64
    workers: int = 2

    @property
    def from_images(self) -> bool:
        """Whether slides are predicted that are in no store."""
        return bool(self.images) or self.samples is not None

    @property
    def suffix(self) -> str:
        """What the name of a slide's first file ends with."""
        return find_format(self.formats[0]).suffix

    def path(self, slide_id: str) -> Path:
        """The first file of a slide's prediction."""
        name = f"{slide_id}-ensemble" if self.ensemble else slide_id
        return self.out or self.runs[0] / "predictions" / f"{name}{self.suffix}"

    def files(self, slide_id: str) -> dict[str, Path]:
        """The file that is written for a slide, by the name of its format."""
        path = self.path(slide_id)
        stem = path.name.removesuffix(self.suffix)
        return {name: path.with_name(stem + find_format(name).suffix) for name in self.formats}

    @property
    def drawing(self) -> Drawing:
        """What maps show."""
        return Drawing(self.draw or self.genes, read_level(self.above))

    def files_to_write(self, slide_id: str) -> dict[str, Path]:
        """Those of a slide's files that are not there yet; with `overwrite` all of them."""
        files = self.files(slide_id)
        return files if self.overwrite else {name: path for name, path in files.items() if not path.exists()}

    def features_folder(self, slide_id: str) -> Path:
        """Where the features of an image wait until its prediction is written."""
        path = self.path(slide_id)
        return path.with_name(f".{path.stem}.features")


@dataclass(frozen=True)
class Accepted:
    """What to predict with which runs: slides of a store, or images, whose features are made as `stage_one` says.

    genes   those that are kept (P,)
    failed  errors of images that cannot be predicted, by slide id, which the user has been told
    """

    members: Sequence[Member]
    genes: Genes
    store: Store | None = None
    slide_ids: Sequence[str] = ()
    images: Sequence[Sample] = ()
    stage_one: StageOne | None = None
    failed: Mapping[str, str] = field(default_factory=dict)


def accept(config: PredictConfig, shard: Shard | None = None) -> Accepted:
    """Look up everything that is named; the first that is missing, or a file in the way, is an error.

    With a `shard`, of the slides that are asked for, whether predicted already or not, those of this part.
    """
    folders = member_folders(config.runs, ensemble=config.ensemble)
    descriptions = {folder: read_run(folder) for folder in folders}
    panels = [panel_of(folder, description) for folder, description in descriptions.items()]
    genes = choose_genes(common_panel(panels), config, folders[0])
    check_drawing(config, genes)
    members = [
        Member(folder, description, panel, columns_in(panel, genes))
        for (folder, description), panel in zip(descriptions.items(), panels, strict=True)
    ]
    check_alike(members)
    if config.from_images:
        from train.predict.images import find_images  # readers of sheets and counts take a moment to import

        samples, failed = find_images(
            config.samples,
            config.images,
            slides=config.slides,
            mpp=config.mpp,
            tissue=config.tissue,
            like=config.like,
            measured=config.measured,
        )
        if shard is not None:
            of_part = set(shard.of([*(sample.slide_id for sample in samples), *failed]))
            samples = [sample for sample in samples if sample.slide_id in of_part]
            failed = {slide_id: line for slide_id, line in failed.items() if slide_id in of_part}
        unwritten = choose_unwritten(config, [*(sample.slide_id for sample in samples), *failed])
        samples = [sample for sample in samples if sample.slide_id in unwritten]
        made = [stage_one_of(member.folder, member.description, config.store) for member in members]
        check_made_alike(members, made)
        return Accepted(members, genes, images=samples, stage_one=made[0], failed=failed)
    store = open_store(config, Path(descriptions[folders[0]]["config"]["data"]["store"]))
    return Accepted(members, genes, store, choose_slides(store, config, shard))


def open_store(config: PredictConfig, own: Path) -> Store:
    """Open the named store, or the run's own; a store that has moved is an error that says how to name it."""
    if config.store is None and not (own / "store.json").is_file():
        raise MagnetError(
            config.runs[0],
            expected=f"the store it was trained on, at {own}",
            found="none there",
            remedy="name the store with --store",
        )
    return Store(config.store or own)


def choose_slides(store: Store, config: PredictConfig, shard: Shard | None) -> list[str]:
    """Return the slides to predict; unknown slides and existing files are errors before anything is done."""
    ids_in_store = store.slide_ids()
    current = [row["slide_id"] for row in store.current_samples()]
    slide_ids = current if ALL in config.slides else list(dict.fromkeys(config.slides))
    for slide_id in slide_ids:
        look_up(dict.fromkeys(ids_in_store), slide_id, where=f"{store.root}: slide")
    return choose_unwritten(config, shard.of(slide_ids) if shard else slide_ids)


def choose_unwritten(config: PredictConfig, slide_ids: Sequence[str]) -> list[str]:
    """Return the slides that lack a file, and say which have all; where none lacks one, that is an error.

    So the command that was stopped, given again, goes on. Folders that cannot be written are an error, too.
    """
    if config.out is not None and (len(slide_ids) > 1 or not config.out.name.endswith(config.suffix)):
        raise MagnetError(
            "--out",
            expected=f"one slide, and a name ending in {config.suffix}",
            found=f"{len(slide_ids)} slides and '{config.out}'",
            remedy="leave --out out, to have a file a slide in the run's folder",
        )
    unwritten = [slide_id for slide_id in slide_ids if config.files_to_write(slide_id)]
    if slide_ids and not unwritten:
        existing = [path for slide_id in slide_ids for path in config.files(slide_id).values()]
        raise MagnetError(
            existing[0],
            expected="no such file yet",
            found=f"it is there, one of {len(existing)}" if len(existing) > 1 else "it is there",
            remedy="pass --overwrite",
        )
    for slide_id in slide_ids:
        if kept := [path.name for path in config.files(slide_id).values() if path.exists() and not config.overwrite]:
            notice(f"{slide_id}: {', '.join(kept)} there already, and left so (--overwrite makes all anew)")
    for folder in dict.fromkeys(path.parent for slide_id in unwritten for path in config.files(slide_id).values()):
        check_writable(folder)
    return unwritten


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written, or made, before anything is predicted."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise MagnetError(
            folder, expected="a folder that can be written", found="one that cannot", remedy="name a file with --out"
        )


def choose_genes(panel: Genes, config: PredictConfig, run: Path) -> Genes:
    """Return the genes of a panel that are asked for, in the order in which they are; all of it where none are."""
    expected, otherwise = f"genes of the run's panel of {len(panel)}", f"see 'panel' in {run / RUN}"
    columns = list(dict.fromkeys(panel.named(config.genes, where="--genes", expected=expected, otherwise=otherwise)))
    return Genes(panel.ids[columns], panel.names[columns]) if columns else panel


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

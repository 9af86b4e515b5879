"""One slide on its way to a prediction: laid and encoded in one pass, without pixels on disk.

In: a slide, the frozen encoder, and the encoders that were fine-tuned for one level, of which there may be none. Out:
in a folder the slide's geometry, a file of the frozen encoder's features, and one of each fine-tuned encoder's. Each
tile of the slide is decoded once, whatever the number of encoders. A pass that was stopped goes on where it was.

Where all encoders of the level are fine-tuned, the frozen one encodes `scale_rows` of it, by which its features are
brought to one scale, and no more.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cache.fingerprint import digest
from cache.picture import PICTURE, Picture, read_picture
from cache.reader import ArrayFile
from cache.schema import CONTENT_VERSION
from cache.state_digest import state_sha256
from cache.store import GEOMETRY
from cache.writer import ArrayWriter, partial_path
from extract.background import BackgroundWriter
from extract.config import EmbeddingConfig, RunConfig
from extract.declared import DeclaredBytes
from extract.geometry import geometry_header, geometry_settings, read_levels, write_levels
from extract.levels import Level
from extract.pace import Pace, Saves
from extract.picture import keep_picture
from extract.pipeline import as_seen, encode_batch_size, features_header, holds_geometry, lay_slide, open_sinks, pour
from extract.sinks import FeatureSink, SampledSink, Sink
from magnet_core.backbones.encoder import Encoder
from magnet_core.backbones.own_square import OwnSquare
from magnet_core.console import human_bytes
from magnet_core.device import pick_precision
from magnet_core.errors import PlaceError
from magnet_core.records import Sample
from magnet_core.sampled_rows import scale_rows
from magnet_core.slides import open_slide
from magnet_core.units import WORKING_MPP

# N rows of the level, n of them


@dataclass(frozen=True)
class FineEncoder:
    """An encoder that was fine-tuned for one level; its features are kept in float32, as it gives them.

    own     the square of a row whose features stand beside those of its patch
    config  its precision, and in how many views it sees a patch
    working_mpp  µm/px at which patches reach it
    """

    level: str
    encoder: Encoder
    own: OwnSquare | None
    config: EmbeddingConfig
    working_mpp: float = WORKING_MPP

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that decides a feature beside the slide."""
        device = next(self.encoder.parameters()).device
        return {
            "schema": CONTENT_VERSION,
            "level": self.level,
            "encoder": self.encoder.spec.settings,
            "weights_sha256": state_sha256(self.encoder.state_dict()),
            "mean": self.encoder.mean.flatten().tolist(),
            "std": self.encoder.std.flatten().tolist(),
            "own": None if self.own is None else asdict(self.own),
            "views": self.config.views,
            "precision": pick_precision(self.config.precision, device),
            "working_mpp": self.working_mpp,
        }

    def header(self, slide_settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the header of its file of features."""
        of_slide = {"settings": self.settings, "geometry_digest": digest(slide_settings)}
        return {
            "kind": "features",
            "backbone": f"fine-{self.encoder.spec.name}",
            "settings_digest": digest(self.settings),
            "digest": digest(of_slide),
            **of_slide,
        }


@dataclass(frozen=True)
class Encoders:
    """What encodes a slide: the frozen encoder with its settings, and fine-tuned ones of one level.

    whole  whether the frozen one encodes all rows of that level too, as where a model was trained on its features
    """

    frozen: Encoder
    settings: Mapping[str, Any]
    fine: Sequence[FineEncoder] = ()
    whole: bool = True

    @property
    def sampled(self) -> str:
        """Name of the level of which the frozen encoder takes some rows alone; empty: of none."""
        return "" if self.whole else self.fine[0].level


@dataclass(frozen=True)
class Streamed:
    """The files of one slide: its geometry, the frozen encoder's features, those of each fine-tuned encoder.

    picture  the slide, small; None where its image cannot be read as a whole
    """

    geometry: Path
    frozen: Path
    fine: Sequence[Path]
    picture: Picture | None


def stream_slide(
    sample: Sample,
    folder: Path,
    encoders: Encoders,
    *,
    config: RunConfig,
    tell: Callable[[Mapping[str, int], int], None] = lambda rows, nbytes: None,
) -> Streamed:
    """Write what the folder lacks of one slide. `tell` is told the rows of each level and the bytes of all features.

    Raises `PlaceError`, before anything is encoded, where the disk has no room for them.
    """
    slide_settings = geometry_settings(sample, config)
    geometry_path = folder / GEOMETRY
    headers = _headers(slide_settings, encoders, config)
    paths = [folder / f"{header['digest']}.lmdb" for header in headers]
    with open_slide(sample.image) as slide, ExitStack() as stack:
        if holds_geometry(geometry_path, slide_settings):
            with ArrayFile(geometry_path) as stored:
                levels, mpp = read_levels(stored), stored.header["mpp"]
        else:
            levels, genes, resolution = lay_slide(sample, slide, config)
            mpp = resolution.mpp
            header = geometry_header(slide_settings, sample, resolution, levels, pixels=False)
            with ArrayWriter(geometry_path, header) as geometry:
                write_levels(geometry, levels, genes)
                geometry.commit()
            levels = [replace(level, counts=None) for level in levels]
        keep_picture(folder / PICTURE, slide, slide_settings["image"], slide_id=sample.slide_id)
        missing = [not path.exists() for path in paths]
        if any(missing):
            background = BackgroundWriter()
            nbytes = _declared_bytes(levels, encoders, config, background)
            tell({level.name: len(level) for level in levels}, nbytes)
            require_room(folder, nbytes, kept=[*paths, *map(partial_path, paths)])
            writers = [
                stack.enter_context(ArrayWriter(path, header)) if is_missing else None
                for path, header, is_missing in zip(paths, headers, missing, strict=True)
            ]
            stack.enter_context(background)
            paces = [
                Pace(encoders.frozen, config.embedding),
                *(Pace(fine.encoder, fine.config) for fine in encoders.fine),
            ]
            sinks = _open_all(levels, encoders, config, writers=writers, background=background, paces=paces)
            seen = as_seen(slide, mpp, config, slide_id=sample.slide_id)
            pour(seen, levels, sinks, workers=config.workers, title=f"{sample.slide_id}: encode")
            background.flush()
            for writer in writers:
                if writer is not None:
                    writer.commit()
    picture = read_picture(folder / PICTURE).at(mpp) if (folder / PICTURE).exists() else None
    return Streamed(geometry_path, paths[0], paths[1:], picture)


def require_room(folder: Path, nbytes: int, *, kept: Sequence[Path]) -> None:
    """Refuse to begin where the disk has no room for so many bytes, less what an earlier run has written of them."""
    written = sum(path.stat().st_blocks * 512 for path in kept if path.exists())
    free = shutil.disk_usage(folder).free
    if nbytes - written > free:
        raise PlaceError(
            folder,
            expected=f"{human_bytes(nbytes - written)} of free space, for features until predictions are written",
            found=human_bytes(free),
            remedy="make room, or name a file on another disk with --out",
        )


def _headers(slide_settings: Mapping[str, Any], encoders: Encoders, config: RunConfig) -> list[dict[str, Any]]:
    """Headers of the feature files, the frozen encoder's first, which says where it has only some rows of a level."""
    frozen = features_header(encoders.settings, slide_settings, config)
    if encoders.sampled:
        frozen = {**frozen, "sampled": encoders.sampled, "digest": digest({**frozen, "sampled": encoders.sampled})}
    return [frozen, *(fine.header(slide_settings) for fine in encoders.fine)]


def _declared_bytes(
    levels: Sequence[Level], encoders: Encoders, config: RunConfig, background: BackgroundWriter
) -> int:
    """Bytes of all features of a slide."""
    writers = [DeclaredBytes() for _ in range(1 + len(encoders.fine))]
    _open_all(levels, encoders, config, writers=writers, background=background, paces=None)
    return sum(writer.nbytes for writer in writers)


def _open_all(
    levels: Sequence[Level],
    encoders: Encoders,
    config: RunConfig,
    *,
    writers: Sequence[ArrayWriter | None],
    background: BackgroundWriter,
    paces: Sequence[Pace] | None,
) -> dict[str, list[Sink]]:
    """Open the sinks of every encoder whose file is not there yet; without paces batches are as the settings say."""
    of_frozen, *of_fine = writers
    frozen_levels = [_sample_of(level) if level.name == encoders.sampled else level for level in levels]
    pace = paces[0] if paces else None
    sinks = open_sinks(
        frozen_levels, encoders.frozen, config, geometry=None, features=of_frozen, background=background, pace=pace
    )
    for level in levels:
        if level.name == encoders.sampled:
            sampled = scale_rows(len(level))
            sinks[level.name] = [SampledSink(sink, sampled, len(level)) for sink in sinks[level.name]]
    by_name = {level.name: level for level in levels}
    for number, (fine, writer) in enumerate(zip(encoders.fine, of_fine, strict=True), start=1):
        if writer is not None:
            pace = paces[number] if paces else None
            sinks[fine.level].append(_fine_sink(by_name[fine.level], fine, config, writer, background, pace))
    return sinks


def _fine_sink(
    level: Level,
    fine: FineEncoder,
    config: RunConfig,
    writer: ArrayWriter,
    background: BackgroundWriter,
    pace: Pace | None,
) -> FeatureSink:
    return FeatureSink(
        writer,
        level,
        fine.encoder,
        background=background,
        config=fine.config,
        batch_size=encode_batch_size(level, config, own=fine.own, pace=pace),
        tokens=False,
        own=fine.own,
        saves=Saves(pace.clock if pace else time.monotonic),
        dtype=np.float32,
    )


def _sample_of(level: Level) -> Level:
    """The rows of a level by which its features are scaled, as a level of their own."""
    rows = scale_rows(len(level))
    return replace(
        level, centres_um=level.centres_um[rows], barcodes=level.barcodes[rows], edges=level.edges[rows], pairs={}
    )

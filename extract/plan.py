"""What `extract run` would do, and for how long: `extract run --dry-run`.

In: the settings of a run. Out: per slide the rows of each level, the patches to encode, the exact bytes of the arrays
to be written, and minutes estimated after a short probe. Counts are read and levels laid as in a run; the store is
only read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.reader import ArrayFile
from cache.schema import ArraySpec, make_spec
from cache.store import Store
from cache.writer import ArrayWriter
from extract.background import BackgroundWriter
from extract.config import RunConfig
from extract.geometry import geometry_settings, read_levels, write_levels
from extract.pipeline import embedding_settings, features_header, holds_geometry, lay_slide, open_sinks
from extract.preflight import Accepted, accept
from extract.probe import Probe
from extract.registration import refuse_second_name
from magnet_core.backbones.encoder import Encoder, build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.console import human_bytes, logger
from magnet_core.device import pick_device
from magnet_core.errors import MagnetError
from magnet_core.records import Sample
from magnet_core.slides import ScaledSlide, open_slide

log = logger(__name__)


@dataclass(frozen=True)
class SlidePlan:
    """What a run would do for one slide; nothing for one that is there already.

    rows     rows of each level            encode  patches for the encoder, of all levels
    nbytes   of all arrays to be written   seconds estimated for decoding, and for encoding
    """

    slide_id: str
    rows: Mapping[str, int] = field(default_factory=dict)
    encode: int = 0
    nbytes: int = 0
    decode_seconds: float = 0.0
    encode_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Decoding and encoding go side by side: the longer of the two."""
        return max(self.decode_seconds, self.encode_seconds)

    def line(self) -> str:
        """Format as text."""
        if not self.nbytes:
            return f"{self.slide_id}: already there with these settings, nothing to do"
        rows = ", ".join(f"{level} {count:,}" for level, count in self.rows.items())
        return (
            f"{self.slide_id}: {rows} rows; {self.encode:,} patches to encode; {human_bytes(self.nbytes)} to write; "
            f"about {self.seconds / 60:.1f} min"
        )


@dataclass
class RunPlan:
    """The plans of all slides, the error of each that cannot be extracted, and how many patches were probed."""

    slides: list[SlidePlan] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    probed: int = 0

    def lines(self) -> list[str]:
        """Format as text: a line a slide, then the sum."""
        nbytes = human_bytes(sum(plan.nbytes for plan in self.slides))
        minutes = sum(plan.seconds for plan in self.slides) / 60
        encode = sum(plan.encode for plan in self.slides)
        total = f"all: {encode:,} patches to encode, {nbytes} to write, about {minutes:.1f} min"
        return [
            *(plan.line() for plan in self.slides),
            f"{total} (from a probe of {self.probed} patches; nothing was written)",
        ]


class DeclaredBytes(ArrayWriter):
    """A writer that adds up the bytes of the arrays declared to it and never touches the disk."""

    def __init__(self) -> None:
        super().__init__(Path("plan"), {})
        self.nbytes = 0

    def declare(
        self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, *, block_rows: int | None = None
    ) -> ArraySpec:
        """Count the bytes of an array."""
        spec = self._specs[name] = make_spec(name, tuple(shape), dtype=dtype, block_rows=block_rows)
        self.nbytes += spec.nbytes
        return spec

    def missing_blocks(self, name: str) -> list[int]:
        """All blocks: none is ever written."""
        return list(range(self._spec(name).num_blocks))

    def put_block(self, name: str, block: int, rows: np.ndarray) -> None:
        """Write nothing."""


def plan_run(config: RunConfig, accepted: Accepted | None = None) -> RunPlan:
    """Plan a run; a slide with a fault is recorded and the rest go on. Weights are needed as in the run itself."""
    accepted = accepted or accept(config)
    spec, device = find_backbone(config.embedding.backbone), pick_device(config.device)
    embedding = config.embedding
    sha256, seed = embedding.weights_sha256, embedding.seed
    encoder = build_encoder(spec, embedding.weights, seed=seed, sha256=sha256).to(device)
    store = Store(config.store) if (config.store / "store.json").exists() else None
    settings, probe, plan = embedding_settings(config, encoder), Probe(encoder, config), RunPlan()
    plan.failed |= accepted.failed
    for sample in accepted.samples:
        try:
            plan.slides.append(plan_slide(sample, store, encoder, settings, config=config, probe=probe))
        except MagnetError as error:
            plan.failed[sample.slide_id] = str(error)
            log.error("failed: %s: %s", sample.slide_id, error, exc_info=True)
    plan.probed = probe.patches
    return plan


def plan_slide(
    sample: Sample,
    store: Store | None,
    encoder: Encoder,
    settings: Mapping[str, Any],
    *,
    config: RunConfig,
    probe: Probe,
) -> SlidePlan:
    """Plan one slide: what its arrays would hold, without those that are in the store."""
    slide_settings = geometry_settings(sample, config)
    if store:
        refuse_second_name(store, sample.slide_id, slide_settings["image"])
    geometry_path = store.geometry_path(sample.slide_id) if store else None
    has_geometry = geometry_path is not None and holds_geometry(geometry_path, slide_settings)
    features = features_header(settings, slide_settings, config)["digest"]
    if (
        has_geometry
        and store
        and store.features_path(sample.slide_id, config.embedding.backbone_name, features).exists()
    ):
        return SlidePlan(sample.slide_id)
    writer = DeclaredBytes()
    with open_slide(sample.image) as slide, BackgroundWriter() as background:
        if has_geometry and geometry_path is not None:
            with ArrayFile(geometry_path) as stored:
                levels, mpp = read_levels(stored), stored.header["mpp"]
        else:
            levels, genes, resolution = lay_slide(sample, slide, config)
            mpp = resolution.mpp
            write_levels(writer, levels, genes)
        geometry = None if has_geometry else writer
        open_sinks(levels, encoder, config, geometry=geometry, features=writer, background=background)
        decode_seconds, encode_seconds = probe.measure(ScaledSlide(slide, mpp), levels)
    rows = {level.name: len(level) for level in levels}
    views = config.embedding.views
    return SlidePlan(
        sample.slide_id, rows, sum(rows.values()) * views, writer.nbytes, decode_seconds, encode_seconds * views
    )

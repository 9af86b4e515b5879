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

from cache.fingerprint import digest
from cache.reader import ArrayFile
from cache.schema import ArraySpec, make_spec
from cache.store import Store
from cache.writer import ArrayWriter
from extract.config import RunConfig
from extract.geometry import geometry_settings, read_levels, write_levels
from extract.hne_only import bins_in_tissue
from extract.levels import Level, lay_levels
from extract.pipeline import check_inside, embedding_settings
from extract.probe import Probe
from extract.readers import read_counts
from extract.resolution import resolve_mpp
from extract.samples import read_samples, select
from magnet_core.backbones import Encoder, build_encoder, find_backbone
from magnet_core.console import human_bytes
from magnet_core.device import pick_device
from magnet_core.errors import MagnetError
from magnet_core.levels import TARGETS
from magnet_core.records import Genes, Sample
from magnet_core.slides import ScaledSlide, Slide, open_slide
from magnet_core.units import patch_px

TOKEN_LEVELS = frozenset(context for target in TARGETS.values() for context in target.contexts)


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


def plan_run(config: RunConfig) -> RunPlan:
    """Plan a run; a slide with a fault is recorded and the rest go on. Weights are needed as in the run itself."""
    encoder = build_encoder(
        find_backbone(config.embedding.backbone), config.embedding.weights, seed=config.embedding.seed
    ).to(pick_device(config.device))
    samples = read_samples(config.samples)
    settings, probe, plan = embedding_settings(config, encoder), Probe(encoder, config), RunPlan()
    for sample in select(samples, config.slides) if config.slides else samples:
        try:
            plan.slides.append(plan_slide(sample, encoder, settings, config=config, probe=probe))
        except MagnetError as error:
            plan.failed[sample.slide_id] = str(error)
    plan.probed = probe.patches
    return plan


def plan_slide(
    sample: Sample, encoder: Encoder, settings: Mapping[str, Any], *, config: RunConfig, probe: Probe
) -> SlidePlan:
    """Plan one slide: what its arrays would hold, without those that are in the store."""
    geometry_digest = digest(geometry_settings(sample, config.geometry))
    geometry_path = config.store / sample.slide_id / "geometry.lmdb"
    has_geometry = geometry_path.exists() and _is_of(geometry_path, geometry_digest)
    has_features = has_geometry and _has_features(config, sample.slide_id, digest(settings), geometry_digest)
    if has_features:
        return SlidePlan(sample.slide_id)
    with open_slide(sample.image) as slide:
        writer = DeclaredBytes()
        if has_geometry:
            with ArrayFile(geometry_path) as geometry:
                levels, mpp = read_levels(geometry), geometry.header["mpp"]
        else:
            levels, genes, mpp = _lay(sample, slide, config)
            write_levels(writer, levels, genes)
            declare_pixels(writer, levels)
        declare_features(writer, levels, width=encoder.width, token_grid=config.embedding.token_grid)
        scaled = ScaledSlide(slide, mpp)
        check_inside(levels, scaled, sample)
        decode_seconds, encode_seconds = probe.measure(scaled, levels)
    rows = {level.name: len(level) for level in levels}
    return SlidePlan(sample.slide_id, rows, sum(rows.values()), writer.nbytes, decode_seconds, encode_seconds)


def declare_pixels(writer: ArrayWriter, levels: list[Level]) -> None:
    """Declare the patches of the levels whose encoder is fine-tuned, as `extract.sinks.PixelSink` does."""
    for level in levels:
        if level.pixels:
            side_px = patch_px(level.patch_um)
            writer.declare(f"{level.name}/pixels", (len(level), side_px, side_px, 3), np.uint8)


def declare_features(writer: ArrayWriter, levels: list[Level], *, width: int, token_grid: int) -> None:
    """Declare pooled and token features, as `extract.sinks.FeatureSink` does."""
    for level in levels:
        writer.declare(f"{level.name}/pooled", (len(level), width), np.float16)
        if level.name in TOKEN_LEVELS:
            writer.declare(f"{level.name}/tokens", (len(level), token_grid**2, width), np.float16)


def _lay(sample: Sample, slide: Slide, config: RunConfig) -> tuple[list[Level], Genes, float]:
    measured = read_counts(sample) if sample.counts else None
    mpp = resolve_mpp(sample, slide, measured).mpp
    counts = measured or bins_in_tissue(slide, mpp, slide_id=sample.slide_id)
    return lay_levels(counts, mpp, config.geometry, slide_id=sample.slide_id), counts.genes, mpp


def _is_of(geometry_path: Path, geometry_digest: str) -> bool:
    with ArrayFile(geometry_path) as geometry:
        if geometry.header["digest"] == geometry_digest:
            return True
    raise MagnetError(
        geometry_path,
        expected="a geometry laid with the settings of this run",
        found="one of other settings, which a run would refuse to overwrite",
        remedy="use another --store, or delete the slide's folder to lay it anew",
    )


def _has_features(config: RunConfig, slide_id: str, settings_digest: str, geometry_digest: str) -> bool:
    for file in Store(config.store).feature_files(slide_id):
        if file.settings_digest == settings_digest:
            with ArrayFile(file.path) as features:
                if features.header["geometry_digest"] == geometry_digest:
                    return True
    return False

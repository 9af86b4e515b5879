"""What `extract run` would do, and for how long: `extract run --dry-run`.

In: the settings of a run. Out: per slide the rows of each level, the patches to encode, the exact bytes of the arrays
to be written, those of pixels apart, and the minutes from a short probe: a range, and how busy the machine was. Counts
are read and levels laid as in a run; the store is only read.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cache.reader import ArrayFile
from cache.store import Store
from extract.background import BackgroundWriter
from extract.config import RunConfig
from extract.declared import DeclaredBytes
from extract.faults import slide_faults
from extract.geometry import geometry_settings, holds_pixels, read_levels, write_levels
from extract.pipeline import embedding_settings, features_header, holds_geometry, lay_slide, open_sinks
from extract.preflight import Accepted, accept
from extract.probe import Probe, Span
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
    nbytes   of all arrays to be written   pixels  those of them, or left out of them, that are pixels of fine levels
    seconds  estimated for decoding, and for encoding
    """

    slide_id: str
    rows: Mapping[str, int] = field(default_factory=dict)
    encode: int = 0
    nbytes: int = 0
    pixels: int = 0
    keeps_pixels: bool = True
    decode_seconds: Span = Span()
    encode_seconds: Span = Span()

    @property
    def seconds(self) -> Span:
        """Decoding and encoding go side by side: the longer of the two."""
        return self.decode_seconds.beside(self.encode_seconds)

    def line(self) -> str:
        """Format as text."""
        if not self.nbytes:
            return f"{self.slide_id}: already there with these settings, nothing to do"
        rows = ", ".join(f"{level} {count:,}" for level, count in self.rows.items())
        return (
            f"{self.slide_id}: {rows} rows; {self.encode:,} patches to encode; {bytes_to_write([self])}; "
            f"about {self.seconds.in_minutes()}"
        )


@dataclass
class RunPlan:
    """The plans of all slides, the error of each that cannot be extracted, and how many patches were probed.

    `load` is the number of processes that wanted a core, over the minute before the probe.
    """

    slides: list[SlidePlan] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    probed: int = 0
    load: float = 0.0

    def lines(self) -> list[str]:
        """Format as text: a line a slide, then the sum."""
        seconds = sum((plan.seconds for plan in self.slides), Span())
        encode = sum(plan.encode for plan in self.slides)
        return [
            *(plan.line() for plan in self.slides),
            f"all: {encode:,} patches to encode, {bytes_to_write(self.slides)}, about {seconds.in_minutes()} (from a "
            f"probe of {self.probed} patches, at a load of {self.load:.1f} on {os.cpu_count()} cores; nothing was "
            "written)",
        ]


def bytes_to_write(slides: Sequence[SlidePlan]) -> str:
    """Say how much is to be written, and how much of it is pixels, or would be."""
    text = f"{human_bytes(sum(plan.nbytes for plan in slides))} to write"
    kept, left_out = (sum(plan.pixels for plan in slides if plan.keeps_pixels is is_kept) for is_kept in (True, False))
    if kept:
        text += f", {human_bytes(kept)} of it pixels, which only training an encoder reads (else --no-pixels)"
    if left_out:
        text += f", {human_bytes(left_out)} less than with pixels, so that no encoder can be trained"
    return text


def plan_run(config: RunConfig, accepted: Accepted | None = None) -> RunPlan:
    """Plan a run; a slide with a fault is recorded and the rest go on. Weights are needed as in the run itself."""
    accepted = accepted or accept(config)
    spec, device = find_backbone(config.embedding.backbone), pick_device(config.device)
    embedding = config.embedding
    sha256, seed = embedding.weights_sha256, embedding.seed
    encoder = build_encoder(spec, embedding.weights, seed=seed, sha256=sha256).to(device)
    store = Store(config.store) if (config.store / "store.json").exists() else None
    plan = RunPlan(load=os.getloadavg()[0])
    settings, probe = embedding_settings(config, encoder), Probe(encoder, config)
    plan.failed |= accepted.failed
    for sample in accepted.samples:
        try:
            with slide_faults(sample.slide_id):
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
    has_pixels = has_geometry and geometry_path is not None and holds_pixels(geometry_path)
    digest = features_header(settings, slide_settings, config)["digest"]
    has_features = bool(store and store.features_path(sample.slide_id, config.embedding.backbone_name, digest).exists())
    if has_geometry and (has_pixels or not config.pixels) and has_features:
        return SlidePlan(sample.slide_id)
    writer, pixels = DeclaredBytes(), DeclaredBytes()
    with open_slide(sample.image) as slide, BackgroundWriter() as background:
        if has_geometry and geometry_path is not None:
            with ArrayFile(geometry_path) as stored:
                levels, mpp = read_levels(stored), stored.header["mpp"]
        else:
            levels, genes, resolution = lay_slide(sample, slide, config)
            mpp = resolution.mpp
            write_levels(writer, levels, genes)
        geometry, features = None if has_pixels else pixels, None if has_features else writer
        open_sinks(levels, encoder, config, geometry=geometry, features=features, background=background)
        decode_seconds, encode_seconds = probe.measure(ScaledSlide(slide, mpp, config.working_mpp), levels)
    rows = {level.name: len(level) for level in levels}
    times = 0 if has_features else config.embedding.views
    return SlidePlan(
        sample.slide_id,
        rows,
        encode=sum(rows.values()) * times,
        nbytes=writer.nbytes + (pixels.nbytes if config.pixels else 0),
        pixels=pixels.nbytes,
        keeps_pixels=config.pixels,
        decode_seconds=decode_seconds,
        encode_seconds=encode_seconds * times,
    )

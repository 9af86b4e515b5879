"""Stage one on one page: from samples.csv to a store.

For each slide: read its counts, lay its levels, then pass over its pixels once; the same pass stores the pixels of the
fine levels and the frozen encoder's features of every level. A slide with a fault is recorded and the rest go on.
"""

import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cache.canonical import canonical_json
from cache.fingerprint import digest
from cache.reader import ArrayFile
from cache.schema import CONTENT_VERSION
from cache.state_digest import state_sha256
from cache.store import Store
from cache.writer import ArrayWriter
from extract.background import BackgroundWriter
from extract.config import EmbeddingConfig, RunConfig
from extract.faults import slide_faults
from extract.geometry import (
    copy_arrays,
    geometry_header,
    geometry_settings,
    header_with_pixels,
    holds_pixels,
    read_levels,
    write_levels,
)
from extract.hne_only import bins_in_tissue
from extract.levels import Level, check_inside, lay_levels
from extract.pace import Clock, Pace, Saves
from extract.picture import keep_picture, lacks_picture
from extract.preflight import Accepted, accept
from extract.readers import read_counts, space_ranger_hd
from extract.registration import (
    being_made,
    leave_out_others,
    open_store,
    refuse_second_name,
    register,
    require_writable,
)
from extract.resolution import ResolvedMpp, enlarging, resolve_mpp
from extract.sinks import FeatureSink, PixelSink, Sink, pending
from extract.stream import PatchRequest, stream_patches
from magnet_core.backbones.encoder import Encoder, build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.backbones.own_square import OwnSquare
from magnet_core.console import logger, progress
from magnet_core.device import pick_device, pick_precision
from magnet_core.engine.local import HERE
from magnet_core.engine.tasks import Engine, Task, shown_by
from magnet_core.errors import MagnetError, PlaceError
from magnet_core.levels import CENTRE, REGION, SPOT, own_square_um
from magnet_core.prefetch import read_ahead
from magnet_core.records import Genes, Sample
from magnet_core.slides import ScaledSlide, SlideImage, open_slide
from magnet_core.slides.stain import stain_table
from magnet_core.units import SPOT_PATCH_UM, WORKING_MPP, patch_px

log = logger(__name__)

_TOKEN_LEVELS = (SPOT, CENTRE, REGION)  # the levels that serve as context of a target


@dataclass
class RunSummary:
    """What a run did: slides written, slides that were there already, the error of each that failed; patches cut."""

    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    patches: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came of one slide: the patches cut, None where nothing was lacking; or its fault, and where it came from."""

    slide_id: str
    patches: int | None = None
    fault: str = ""
    trace: str = ""


def run(
    config: RunConfig,
    accepted: Accepted | None = None,
    *,
    engine: Engine = HERE,
    clock: Clock = time.monotonic,
) -> RunSummary:
    """Extract all slides of a sample sheet into the store; what is there already is left as it is.

    `accepted` is what `accept` has said of these settings, if it was asked already. Raises `PlaceError` where the store
    takes no more; what is finished is kept.
    """
    accepted = accepted or accept(config)
    outcomes: dict[str, Outcome] = {}
    try:
        # A device or weights that are not there are told of before anything is done, and weights fetched once.
        if engine.in_this_process:
            workbench(config, clock)
        else:
            pick_device(config.device)
            encoder_of(config)
        leave_out_others(open_store(config.store), config.samples)
        with progress(total=len(accepted.samples), desc="slides", unit="slide") as bar:
            for samples in waves(accepted.samples):
                tasks = [Task(f"slide {each.slide_id}", extract_one, (each, config, clock)) for each in samples]
                for _, outcome in engine.run(tasks, lost=outcome_of_lost, far=shown_by(bar)):
                    outcomes[outcome.slide_id] = outcome
                    if outcome.fault:
                        log.error("failed: %s: %s", outcome.slide_id, outcome.fault)
                        log.debug("%s", outcome.trace)
                    bar.set_postfix_str(outcome.slide_id, refresh=False)
                    bar.update()
    finally:
        workbench.cache_clear()
    in_order = [outcomes[sample.slide_id] for sample in accepted.samples]
    done = [each for each in in_order if not each.fault]
    return RunSummary(
        written=[each.slide_id for each in done if each.patches is not None],
        unchanged=[each.slide_id for each in done if each.patches is None],
        failed={**accepted.failed, **{each.slide_id: each.fault for each in in_order if each.fault}},
        patches=sum(each.patches or 0 for each in done),
    )


def waves(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The slides to begin with; then those whose image one of these has, which is refused once that is registered."""
    first = {sample.image.resolve(): sample for sample in reversed(samples)}
    return [
        [sample for sample in samples if (first[sample.image.resolve()] is sample) is is_first]
        for is_first in (True, False)
    ]


def outcome_of_lost(task: Task[Outcome], why: str) -> Outcome:
    """The outcome of a slide whose process was lost."""
    return Outcome(task.arguments[0].slide_id, fault=f"slide '{task.arguments[0].slide_id}': {why}")


@dataclass(frozen=True)
class Workbench:
    """What a process has open for all its slides."""

    store: Store
    encoder: Encoder
    settings: Mapping[str, Any]
    pace: Pace


@lru_cache(maxsize=1)
def workbench(config: RunConfig, clock: Clock) -> Workbench:
    """Build the encoder and open the store, once a process."""
    device = pick_device(config.device)
    encoder = encoder_of(config).to(device)
    settings = embedding_settings(config, encoder)
    if config.compile:
        encoder.compile()
    name, weights = encoder.spec.name, settings["weights_sha256"][:12]
    log.info("%s on %s, %s; weights %s", name, device, settings["precision"], weights)
    return Workbench(open_store(config.store), encoder, settings, Pace(encoder, config.embedding, clock=clock))


def encoder_of(config: RunConfig) -> Encoder:
    """Build the frozen encoder on the CPU; weights that are not to be had are an error."""
    embedding = config.embedding
    spec = find_backbone(embedding.backbone)
    return build_encoder(spec, embedding.weights, seed=embedding.seed, sha256=embedding.weights_sha256)


def extract_one(sample: Sample, config: RunConfig, clock: Clock) -> Outcome:
    """Write and register what the store lacks of one slide, whose own fault is part of the outcome."""
    bench = workbench(config, clock)
    store, slide_id = bench.store, sample.slide_id
    try:
        with slide_faults(slide_id), being_made(store, slide_id):
            patches = extract_slide(sample, store, bench.encoder, bench.settings, config=config, pace=bench.pace)
            register(store, sample, config.samples, is_changed=patches is not None)
    except PlaceError:
        raise
    except MagnetError as error:
        return Outcome(slide_id, fault=str(error), trace=traceback.format_exc())
    return Outcome(slide_id, patches)


def extract_slide(
    sample: Sample,
    store: Store,
    encoder: Encoder,
    settings: Mapping[str, Any],
    *,
    config: RunConfig,
    pace: Pace,
) -> int | None:
    """Write what the store lacks of one slide; the number of patches that took, None when nothing was lacking."""
    slide_settings = geometry_settings(sample, config)
    refuse_second_name(store, sample.slide_id, slide_settings["image"])
    geometry_path = store.geometry_path(sample.slide_id)
    header_of_features = features_header(settings, slide_settings, config)
    features_path = store.features_path(sample.slide_id, config.embedding.backbone_name, header_of_features["digest"])
    has_geometry = holds_geometry(geometry_path, slide_settings)
    lacks_pixels = has_geometry and config.pixels and not holds_pixels(geometry_path)
    picture_path = store.picture_path(sample.slide_id)
    if has_geometry and not lacks_pixels and features_path.exists():
        if lacks_picture(picture_path):
            with open_slide(sample.image) as slide:
                keep_picture(picture_path, slide, slide_settings["image"], slide_id=sample.slide_id)
        return None
    require_writable(store.root)

    with open_slide(sample.image) as slide, ExitStack() as stack:
        geometry = None
        if has_geometry:
            with ArrayFile(geometry_path) as stored:
                levels, mpp = read_levels(stored), stored.header["mpp"]
                if lacks_pixels:
                    geometry = stack.enter_context(ArrayWriter(geometry_path, header_with_pixels(stored.header)))
                    copy_arrays(stored, geometry)
        else:
            levels, genes, resolution = lay_slide(sample, slide, config)
            mpp = resolution.mpp
            header = geometry_header(slide_settings, sample, resolution, levels, pixels=config.pixels)
            geometry = stack.enter_context(ArrayWriter(geometry_path, header))
            write_levels(geometry, levels, genes)
            levels = [replace(level, counts=None) for level in levels]  # which are written, and fill gigabytes
            if not config.pixels:
                geometry.commit()
                geometry = None
        features = None
        if not features_path.exists():
            features = stack.enter_context(ArrayWriter(features_path, header_of_features))
        background = stack.enter_context(BackgroundWriter())
        sinks = open_sinks(
            levels, encoder, config, geometry=geometry, features=features, background=background, pace=pace
        )
        seen = as_seen(slide, mpp, config, slide_id=sample.slide_id)
        patches = pour(seen, levels, sinks, workers=config.workers, title=sample.slide_id)
        background.flush()
        keep_picture(picture_path, slide, slide_settings["image"], slide_id=sample.slide_id)
        for writer in (geometry, features):
            if writer is not None:
                writer.commit()
    return patches


def lay_slide(sample: Sample, slide: SlideImage, config: RunConfig) -> tuple[list[Level], Genes, ResolvedMpp]:
    """Read a slide's counts, or its places alone, or find its tissue where it has neither, and lay its levels."""
    measured = read_counts(sample) if sample.counts else None
    if measured is None and sample.like is not None:
        measured = space_ranger_hd.read_places(sample.like)
    resolution = resolve_mpp(sample, slide, measured)
    counts = measured or bins_in_tissue(slide, resolution.mpp, slide_id=sample.slide_id, tissue=sample.tissue)
    levels = lay_levels(counts, resolution.mpp, config.geometry, slide_id=sample.slide_id)
    rows = ", ".join(f"{level.name} {len(level)}" for level in levels)
    log.info("%s: %s, %.4f µm/px (%s); %s", sample.slide_id, counts.platform, resolution.mpp, resolution.source, rows)
    if (coarse := enlarging(resolution.mpp, config.working_mpp)) is not None:
        log.warning("%s: %s", sample.slide_id, coarse)
    check_inside(levels, ScaledSlide(slide, resolution.mpp), sample)
    return levels, counts.genes, resolution


def as_seen(slide: SlideImage, mpp: float, config: RunConfig, *, slide_id: str) -> ScaledSlide:
    """The slide as encoders see it: at their resolution and, where that is asked for, in the stain of all slides."""
    if config.stain == "as_is":
        return ScaledSlide(slide, mpp, config.working_mpp)
    colours = stain_table(slide, mpp)
    if colours is None:
        log.warning("%s: no tissue was found by colour, so that its stain stays as it is", slide_id)
    return ScaledSlide(slide, mpp, config.working_mpp, colours=colours)


def open_sinks(
    levels: Sequence[Level],
    encoder: Encoder,
    config: RunConfig,
    *,
    geometry: ArrayWriter | None,
    features: ArrayWriter | None,
    background: BackgroundWriter,
    pace: Pace | None = None,
) -> dict[str, list[Sink]]:
    """Open what takes each level's patches: pixels for a new geometry, features for a new backbone.

    Without a `pace` batches are as large as the settings say, however long they take.
    """
    sinks: dict[str, list[Sink]] = {level.name: [] for level in levels}
    saves = Saves(pace.clock if pace else time.monotonic)
    for level in levels:
        if geometry is not None and level.pixels:
            side_px = patch_px(level.patch_um, config.working_mpp)
            sinks[level.name].append(PixelSink(geometry, level, side_px=side_px, background=background))
        if features is not None:
            own = own_square(level, config.embedding)
            sinks[level.name].append(
                FeatureSink(
                    features,
                    level,
                    encoder,
                    background=background,
                    config=config.embedding,
                    batch_size=encode_batch_size(level, config, own=own, pace=pace),
                    tokens=level.name in _TOKEN_LEVELS,
                    own=own,
                    saves=saves,
                )
            )
    return sinks


def encode_batch_size(level: Level, config: RunConfig, *, own: OwnSquare | None, pace: Pace | None) -> int:
    """Patches encoded together: they hold the pixels of `config.batch_size` spot patches, or fewer to keep pace."""
    spot_um = SPOT_PATCH_UM * (config.working_mpp / WORKING_MPP)  # as wide in pixels as the paper's spot patch
    batch_size = max(1, round(config.batch_size * (spot_um / level.patch_um) ** 2))
    side_px = patch_px(level.patch_um, config.working_mpp)
    return batch_size if pace is None else pace.batch_size(batch_size, side_px, own)


def own_square(level: Level, config: EmbeddingConfig) -> OwnSquare | None:
    """Return the square of a level's rows that features are kept of; None for contexts, or where none are asked for."""
    side_um = own_square_um(level.name, patch_um=level.patch_um)
    return OwnSquare(side_um / level.patch_um, config.own) if side_um and level.pixels and config.own else None


def pour(
    slide: ScaledSlide, levels: Sequence[Level], sinks: Mapping[str, Sequence[Sink]], *, workers: int, title: str
) -> int:
    """Pass over the slide once and hand every level's patches to its sinks; returns how many there were."""
    requests = {
        level.name: PatchRequest(level.centres_um, level.patch_um, pending(sinks[level.name], len(level)), slide.mpp)
        for level in levels
        if sinks[level.name]
    }
    total = sum(int(request.wanted.sum()) for request in requests.values())
    with progress(total=total, desc=title, unit="patch", leave=False) as bar:
        for name, first_row, patches in read_ahead(stream_patches(slide, requests, workers=workers)):
            for sink in sinks[name]:
                sink.add(first_row, patches)
            bar.update(len(patches))
    return total


def embedding_settings(config: RunConfig, encoder: Encoder) -> dict[str, Any]:
    """All that decides a feature beside the slide: the encoder, its weights, its input, and the token grid."""
    return {
        **config.deciding("embedding"),
        "schema": CONTENT_VERSION,
        "precision": pick_precision(config.embedding.precision, next(encoder.parameters()).device),
        "encoder": encoder.spec.settings,
        "weights_sha256": state_sha256(encoder.state_dict()),
        "mean": encoder.mean.flatten().tolist(),
        "std": encoder.std.flatten().tolist(),
    }


def features_header(
    settings: Mapping[str, Any], slide_settings: Mapping[str, Any], config: RunConfig
) -> dict[str, Any]:
    """Return the header of a feature file; `weights` says how stage two finds them again, their sha256 that it did."""
    of_slide = {"settings": dict(settings), "geometry_digest": digest(slide_settings)}
    source, pins = config.embedding.weights, config.embedding.pins
    if source not in ("pretrained", "random"):
        source = str(Path(source).expanduser().resolve())  # stage two may run from another folder
    return {
        "kind": "features",
        "backbone": config.embedding.backbone_name,
        "weights": {"source": source, "seed": config.embedding.seed, **pins},
        "settings_digest": digest(settings),
        "digest": digest(of_slide),
        **of_slide,
    }


def holds_geometry(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the geometry is there; one of other settings is never overwritten."""
    if not path.exists():
        return False
    with ArrayFile(path) as geometry:
        stored = geometry.header
    if stored["digest"] == digest(settings):
        return True
    before = stored["settings"]
    differing = sorted(
        key for key in {**before, **settings} if canonical_json(before.get(key)) != canonical_json(settings.get(key))
    )
    raise MagnetError(
        path,
        expected="a geometry laid with the settings of this run",
        found=f"one that differs in {', '.join(differing)}",
        remedy="use another --store, or delete the slide's folder to lay it anew",
    )

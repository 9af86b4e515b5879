"""What `extract plan` prints: a slide by its levels, store and time of many slides, and where figures come from.

In: the settings of a run, the tissue of a slide, what is asked. Out: text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from extract.config import RunConfig
from extract.forecast.slide import KINDS, SlideForecast, Tissue, forecast_slide
from magnet_core.console import human_bytes
from magnet_core.forecast.options import Budget, as_notes, text_table
from magnet_core.forecast.pace import Pace, host_seconds, on_core, on_gpu, origins, weakest
from magnet_core.forecast.rates import CORE, DECODING, ENCODING, HANDLING, LAYING, PASS_OVER_LIMIT, Gpu, Rate
from magnet_core.units import BIN_PATCH_UM, patch_px

HOUR = 3600.0
PARTS = (
    "laying is reading the counts and placing bins, squares and neighbours, decoding that of the slide, by "
    "{workers} threads on a GPU, handling all else of a patch; a process works on one GPU, and lays a slide before it "
    "encodes. Where encoding is not the longest part, the GPU waits: --jobs of several processes share it, --workers "
    "decode faster"
)
LEFT_OUT = (
    "reading over a network, the disk, finding tissue, start-up, waiting in a queue, slides that fail; tissue is one "
    "square, while holes and rims add spots and regions; slides that are not at 0.25 µm/px are resized too"
)


@dataclass(frozen=True)
class SlideTime:
    """Seconds of a slide on a device, the kind of the pace they come from, and the part that takes longest."""

    seconds: float
    kind: str
    longest: str


def render_plan(config: RunConfig, tissue: Tissue, budget: Budget) -> str:
    """Return all that `extract plan` says."""
    slide = forecast_slide(config, tissue)
    embedding, geometry = config.embedding, config.geometry
    title = (
        f"A slide with {tissue.mm2:g} mm² of tissue, {embedding.backbone}, targets "
        f"{', '.join(map(str, geometry.targets))} µm, sampling {geometry.sampling}"
    )
    counted = (
        f"bytes: of the files, as the store's writer lays them; counts are of {tissue.genes:,} genes "
        f"and {tissue.molecules:g} molecules a bin of 8 µm, which is assumed."
    )
    notes = [
        counted,
        f"parts: {PARTS.format(workers=config.workers)}",
        *origins(budget.gpu, (ENCODING,), (embedding.backbone,), patch_px(BIN_PATCH_UM)),
        f"left out: {LEFT_OUT}",
    ]
    tables = (
        f"{title}\n{level_table(slide)}",
        f"The store\n{store_table(slide, budget)}",
        f"The time\n{time_table(slide, config, budget)}",
    )
    return "\n\n".join((*tables, as_notes(notes)))


def level_table(slide: SlideForecast) -> str:
    """Rows, patches and bytes of each level of a slide."""
    rows = [
        [level.name, str(level.side_px), f"{level.rows:,}", f"{level.encode:,}", *sizes(level.nbytes[k] for k in KINDS)]
        for level in slide.levels
    ]
    total = f"{sum(level.rows for level in slide.levels):,}"
    rows.append(["all", "", total, f"{slide.encode:,}", *sizes(slide.nbytes.values())])
    return text_table(["level", "patch px", "rows", "encoder passes", *KINDS], rows, words=1)


def store_table(slide: SlideForecast, budget: Budget) -> str:
    """Passes and bytes of many slides."""
    nbytes = sum(slide.nbytes.values()), *slide.nbytes.values()
    rows = [[f"{n:,}", f"{n * slide.encode:,}", *sizes(n * each for each in nbytes)] for n in budget.slides]
    return text_table(["slides", "encoder passes", "store", *KINDS], rows)


def time_table(slide: SlideForecast, config: RunConfig, budget: Budget) -> str:
    """Hours of many slides on processor cores and on GPUs."""
    times = {CORE: on_cores(slide, config), budget.gpu.title: on_gpus(slide, config, budget.gpu)}
    rows = [
        [f"{n:,}", device, time.kind, time.longest, *budget.cells(n * time.seconds / HOUR, is_gpu=device != CORE)]
        for n in budget.slides
        for device, time in times.items()
    ]
    return text_table(["slides", "on", "pace", "longest part", *budget.headings], rows, words=4)


def on_cores(slide: SlideForecast, config: RunConfig) -> SlideTime:
    """Processor seconds of a slide: all parts one after the other, each on one core."""
    paces = [on_core(ENCODING, config.embedding.backbone, level.side_px) for level in slide.levels]
    parts = parts_of(slide, paces, host=())
    return SlideTime(sum(parts.values()), weakest(pace.kind for pace in paces), longest(parts))


def on_gpus(slide: SlideForecast, config: RunConfig, gpu: Gpu) -> SlideTime:
    """Seconds of a slide on a GPU in one process: it is laid, then the longest of the other parts holds them up."""
    paces = [on_gpu(gpu, ENCODING, config.embedding.backbone, level.side_px) for level in slide.levels]
    parts = parts_of(slide, paces, host=gpu.rates)
    parts[DECODING] /= config.workers
    beside = max(seconds for part, seconds in parts.items() if part != LAYING)
    return SlideTime(
        parts[LAYING] + PASS_OVER_LIMIT * beside, weakest(pace.kind for pace in paces), longest=longest(parts)
    )


def parts_of(slide: SlideForecast, paces: Sequence[Pace], *, host: Sequence[Rate]) -> dict[str, float]:
    """Seconds of encoding, and of what one processor core does for a slide."""
    return {
        "encoding": sum(level.encode * pace.seconds for level, pace in zip(slide.levels, paces, strict=True)),
        LAYING: slide.bins * host_seconds(LAYING, host),
        DECODING: slide.decode_mpx * host_seconds(DECODING, host),
        HANDLING: slide.encode * host_seconds(HANDLING, host),
    }


def longest(parts: Mapping[str, float]) -> str:
    """The part that takes longest."""
    return max(parts, key=lambda part: parts[part])


def sizes(nbytes: Iterable[int]) -> list[str]:
    """Format bytes."""
    return [human_bytes(each) for each in nbytes]

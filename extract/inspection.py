"""Facts of each slide before anything is extracted: `extract inspect`.

In: samples.csv. Out: the facts of each slide (size, µm/px and who states it, tissue, bins, UMI, genes), warnings where
they do not fit together, and an overlay picture (`extract.overlay`). A slide that cannot be read is one line.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from extract.config import RunConfig
from extract.faults import slide_faults
from extract.hne_only import bins_in_tissue
from extract.lattice import Lattice, measure_lattice
from extract.overlay import draw_overlay
from extract.picture_match import match_warnings, vendor_picture
from extract.readers import count_files, read_counts
from extract.resolution import ResolvedMpp, enlarging, resolve_mpp, stated_mpp
from extract.samples import check_files
from magnet_core.errors import MagnetError, PlaceError
from magnet_core.files import replacing
from magnet_core.records import Assay, Sample, SlideCounts
from magnet_core.slides import SlideImage, open_slide, thumbnail
from magnet_core.units import WORKING_MPP

# N rows (bins or spots)

SPOT_PLATFORM = 0  # key of measured spots among bin sizes in µm
LOW_UMI = {8: 20, 16: 80, SPOT_PLATFORM: 1000}  # median UMI of a row below which little can be learnt
MPP_CONFLICT = 0.01  # statements of µm/px further apart than this are shown
PITCH_CONFLICT = {8: 0.02, 16: 0.02, SPOT_PLATFORM: 0.1}  # of the pitch; legacy spots were placed by hand
OUTSIDE_REFUSED = 0.01  # share of centres outside the image at which `extract run` refuses the slide
ON_GLASS = 0.25  # share of centres on bare glass that is worth a look
GLASS_MIN, GLASS_SPREAD = 200, 18  # of 255: bare glass is bright in every channel, and grey
_THUMBNAIL_PX = 1000


@dataclass(frozen=True)
class AssayFacts:
    """Rows of one resolution in tissue, and their median UMI count, None where nothing was measured.

    bin_um  side of the bins, or `SPOT_PLATFORM` for spots
    """

    bin_um: int
    rows: int
    median_umi: float | None

    @property
    def name(self) -> str:
        """The name for people."""
        return f"{self.bin_um} µm bins" if self.bin_um else "spots"


@dataclass(frozen=True)
class SlideFacts:
    """The facts of one slide, from its platform or, without counts, from its tissue."""

    sample: Sample
    size_px: tuple[int, int]
    downsamples: tuple[float, ...]
    resolution: ResolvedMpp
    statements: tuple[ResolvedMpp, ...]
    platform: str
    num_genes: int
    tissue_mm2: float
    assays: tuple[AssayFacts, ...]
    warnings: tuple[str, ...]

    def lines(self, picture: Path | None = None) -> list[str]:
        """Format as a block of text, with the path of the picture if there is one, and warnings last."""
        pictures = [] if picture is None else [("picture", str(picture))]
        rows = tabulate([*self._rows(), *pictures], tablefmt="plain", disable_numparse=True).splitlines()
        return [
            f"{self.sample.slide_id} · patient {self.sample.patient} · {self.platform}",
            *(f"  {row}" for row in rows),
            *(f"  warning: {warning}" for warning in self.warnings),
        ]

    def _rows(self) -> list[tuple[str, str]]:
        """What was looked at, and what was found."""
        width, height = self.size_px
        mpp = self.resolution.mpp
        levels = ", ".join(f"{downsample:.4g}×" for downsample in self.downsamples)
        others = [f"{other.mpp:.4f} ({other.source})" for other in self.statements if other != self.resolution]
        image = (
            f"{self.sample.image.name} · {width:,} × {height:,} px · "
            f"{width * mpp / 1000:.2f} × {height * mpp / 1000:.2f} mm · {len(self.downsamples)} level(s): {levels}"
        )
        stated = f"{mpp:.4f} ({self.resolution.source}){'; also ' if others else ''}{', '.join(others)}"
        rows = [("image", image), ("µm/px", stated), ("tissue", f"{self.tissue_mm2:.2f} mm²")]
        for assay in self.assays:
            umi = "laid over the tissue" if assay.median_umi is None else f"median UMI {assay.median_umi:,.0f}"
            rows.append((assay.name, f"{assay.rows:,} · {umi}"))
        if self.num_genes:
            rows.append(("genes", f"{self.num_genes:,}"))
        return rows


@dataclass(frozen=True)
class Inspection:
    """The outcome for one slide: its facts and picture, or the one line that says why there are none."""

    slide_id: str
    facts: SlideFacts | None = None
    picture: Path | None = None
    error: str | None = None

    def lines(self) -> list[str]:
        """Format as a block of text; a slide that failed is one line."""
        if self.facts is None:
            return [f"{self.slide_id}: failed: {self.error}"]
        return self.facts.lines(self.picture)


def inspect_slides(samples: list[Sample], out: Path | None, config: RunConfig | None = None) -> Iterator[Inspection]:
    """Look at each slide in turn; with `out`, draw its overlay to `out/<slide_id>.png`.

    Sizes of patches and µm/px are those that a run of these settings would take, by default the defaults.
    """
    config = config or RunConfig()
    for sample in samples:
        try:
            with slide_faults(sample.slide_id):
                inspection = _inspect(sample, out, config)
        except PlaceError:
            raise
        except MagnetError as error:
            inspection = Inspection(sample.slide_id, error=str(error))
        yield inspection


def slide_facts(
    sample: Sample,
    slide: SlideImage,
    counts: SlideCounts,
    *,
    resolution: ResolvedMpp,
    working_mpp: float = WORKING_MPP,
) -> SlideFacts:
    """Gather the facts of an open slide and of its measured or laid bins; warn where they do not fit together."""
    statements = stated_mpp(sample, slide, counts)
    warnings = _mpp_warnings(resolution, statements)
    warnings += [coarse] if (coarse := enlarging(resolution.mpp, working_mpp)) is not None else []
    assays = _assays(counts)
    facts = [AssayFacts(um, len(assay), _median_umi(assay)) for um, assay in assays.items()]
    finest_um, finest = next(iter(assays.items()))
    lattice = measure_lattice(finest.centres_px) if len(finest) > 1 else None
    if finest.counts is None:
        warnings.append("no counts: the slide can be predicted, not trained on")
    warnings += _lattice_warnings(finest_um, finest, lattice, resolution)
    picture, scale = thumbnail(slide, _THUMBNAIL_PX)
    warnings += _place_warnings(finest.centres_px, slide, picture, scale=scale)
    if sample.counts is not None and (vendors := vendor_picture(count_files(sample))) is not None:
        warnings += match_warnings(vendors, picture)
    warnings += [
        f"median UMI of {assay.name}: {assay.median_umi:,.0f}, below {LOW_UMI[assay.bin_um]:,}: expect little of it"
        for assay in facts
        if assay.median_umi is not None and assay.median_umi < LOW_UMI[assay.bin_um]
    ]
    return SlideFacts(
        sample,
        slide.size_px,
        slide.downsamples,
        resolution,
        statements,
        counts.platform,
        len(counts.genes),
        _tissue_mm2(finest, lattice, resolution.mpp),
        tuple(facts),
        tuple(warnings),
    )


def _inspect(sample: Sample, out: Path | None, config: RunConfig) -> Inspection:
    check_files(sample)
    with open_slide(sample.image) as slide:
        measured = None if sample.counts is None else read_counts(sample)
        resolution = resolve_mpp(sample, slide, measured)
        counts = measured or bins_in_tissue(slide, resolution.mpp, slide_id=sample.slide_id)
        facts = slide_facts(sample, slide, counts, resolution=resolution, working_mpp=config.working_mpp)
        if out is None:
            return Inspection(sample.slide_id, facts)
        picture = out / f"{sample.slide_id}.png"
        overlay = draw_overlay(slide, resolution.mpp, counts, title=facts.lines()[:3], sizes=config.geometry)
        with replacing(picture) as partial:
            overlay.save(partial, format="PNG")
    return Inspection(sample.slide_id, facts, picture)


def _assays(counts: SlideCounts) -> dict[int, Assay]:
    """Assays by bin size, the finest first."""
    return {SPOT_PLATFORM: counts.spots} if counts.spots is not None else dict(sorted(counts.bins.items()))


def _median_umi(assay: Assay) -> float | None:
    if assay.counts is None:
        return None
    return float(np.median(np.asarray(assay.counts.sum(axis=1))))


def _tissue_mm2(assay: Assay, lattice: Lattice | None, mpp: float) -> float:
    cell_um2 = (assay.pitch_um or 0.0) ** 2
    if lattice is not None and (lattice.hexagonal or not cell_um2):
        cell_um2 = lattice.cell_area_px * mpp**2
    return len(assay) * cell_um2 / 1e6


def _mpp_warnings(chosen: ResolvedMpp, statements: tuple[ResolvedMpp, ...]) -> list[str]:
    return [
        f"µm/px: {chosen.mpp:.4f} from {chosen.source}, but {other.mpp:.4f} from {other.source} "
        f"({other.mpp / chosen.mpp - 1:+.1%})"
        for other in statements
        if abs(other.mpp / chosen.mpp - 1) > MPP_CONFLICT
    ]


def _lattice_warnings(bin_um: int, assay: Assay, lattice: Lattice | None, resolution: ResolvedMpp) -> list[str]:
    """Warn if neighbours do not lie one pitch apart: the µm/px is wrong, or the coordinates are of another image."""
    if lattice is None or not assay.pitch_um:
        return []
    found_um = lattice.pitch_px * resolution.mpp
    if abs(found_um / assay.pitch_um - 1) <= PITCH_CONFLICT[bin_um]:
        return []
    return [
        f"neighbours lie {found_um:.2f} µm apart at {resolution.mpp:.4f} µm/px, the platform has {assay.pitch_um:g}: "
        f"the µm/px may be wrong ({assay.pitch_um / lattice.pitch_px:.4f} would fit)"
    ]


def _place_warnings(centres_px: np.ndarray, slide: SlideImage, picture: np.ndarray, *, scale: float) -> list[str]:
    """Warn if centres lie outside the image or off the tissue, and say if swapping x and y would help.

    `picture` is a thumbnail of the slide, `scale` its pixels per pixel of the slide.
    """
    size = np.array(slide.size_px)
    outside, swapped_outside = (
        float(((points < 0) | (points > size)).any(axis=1).mean()) for points in (centres_px, centres_px[:, ::-1])
    )
    warnings = []
    if outside > 0:
        refused = "; 'extract run' will refuse the slide" if outside > OUTSIDE_REFUSED else ""
        swapped = "; x and y may be swapped" if swapped_outside < outside / 10 else ""
        warnings.append(f"{outside:.1%} of the centres lie outside the image{swapped}{refused}")
    glass, swapped_glass = glass_shares(centres_px * scale, picture)
    if glass > ON_GLASS:
        swapped = f"; with x and y swapped it would be {swapped_glass:.0%}" if swapped_glass < glass / 2 else ""
        warnings.append(f"{glass:.0%} of the centres in tissue lie on bare glass{swapped}: look at the picture")
    return warnings


def glass_shares(centres_px: np.ndarray, picture: np.ndarray) -> tuple[float, float]:
    """Return the shares of centres (N, 2) on bare glass in a picture (h, w, 3): as given, and with x and y swapped."""
    glass = (picture.min(axis=2) >= GLASS_MIN) & (np.ptp(picture, axis=2) <= GLASS_SPREAD)
    height, width = glass.shape
    x, y = np.floor(centres_px).astype(np.int64).T
    shares = []
    for column, row in ((x, y), (y, x)):
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        shares.append(1.0 - float((~glass[row[inside], column[inside]]).sum()) / max(len(x), 1))
    return shares[0], shares[1]

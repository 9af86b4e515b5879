"""What the viewer shows: of each slide its bins' places, its picture, and the values of each gene, as words of a page.

In: the sources of a result's maps. Out: a `Catalogue`. Values are read some genes at a time and kept in a file until it
is known which fit into the page; a slide of 600,000 bins has some hundred megabytes of them.
"""

import base64
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from magnet_core.metrics import evaluate
from train.report.slide_maps import MapSource, SlideMap
from train.report.viewer.coding import coded_rows, coded_text, coded_values
from train.report.viewer.raster import outline, raster_of, turned_back

# N rows of a slide, P its genes, S systems

VALUES_AT_ONCE = 40_000_000  # of one array of a map: 160 MB
SCALE = (1, 99)  # percentiles between which colours differ
MARGIN = 0.04  # of the bins' width around them, before one zooms
JPEG_QUALITY = 82
_OF_GENE = ("name", "id", "low", "high", "mean", "pcc", "mse", "elsewhere")


@dataclass(frozen=True)
class Gene:
    """One gene of one slide: the name of its word, where that lies in the file of all, and how well it is predicted.

    called  its id and its name, as a user may call it
    """

    name: str
    start: int
    length: int
    pcc: float
    called: tuple[str, str]


@dataclass(frozen=True)
class Catalogue:
    """All maps of a page.

    facts  of each slide what the page must know before a gene is chosen, as JSON has it
    words  that every view of a slide needs, by name: its places, barcodes and picture
    genes  of all slides; their words are in the file `spool`, ASCII
    """

    facts: list[dict[str, Any]]
    words: dict[str, str]
    genes: list[Gene]
    spool: Path


def catalogue(sources: Sequence[tuple[str, MapSource]], spool: Path) -> Catalogue:
    """Read all maps, (title, source), and write their genes' words to `spool`."""
    facts, words, genes = list[dict[str, Any]](), dict[str, str](), list[Gene]()
    with spool.open("wb") as file:
        for index, (title, source) in enumerate(sources):
            slide = SlideCatalogue(f"map-{index}", title)
            for part in in_parts(source):
                called = zip(part.genes.ids.tolist(), part.genes.names.tolist(), strict=True)
                for each, (word, name, pcc) in zip(called, slide.words_of(part), strict=True):
                    genes.append(Gene(name, file.tell(), len(word), pcc, each))
                    file.write(word.encode("ascii"))
            facts.append(slide.facts())
            words |= slide.words
    return Catalogue(facts, words, genes, spool)


def in_parts(source: MapSource) -> Iterator[SlideMap]:
    """Read a map some genes at a time, so that no array of it is large."""
    ids = source.panel.ids.tolist()
    first = source.read(ids[:1])
    step = max(1, VALUES_AT_ONCE // len(first.barcodes))
    if step >= len(ids):
        yield source.read(ids)
        return
    for start in range(0, len(ids), step):
        yield source.read(ids[start : start + step])


class SlideCatalogue:
    """One slide, told part by part of its genes."""

    def __init__(self, name: str, title: str) -> None:
        self.name, self.title = name, title
        self.words: dict[str, str] = {}
        self._place: dict[str, Any] = {}
        self._genes: dict[str, list[Any]] = {key: [] for key in _OF_GENE}

    def words_of(self, part: SlideMap) -> Iterator[tuple[str, str, float]]:
        """Yield the word of each gene, its name, and the PCC of the main system, here or where its run was tested."""
        if not self._place:
            self._place = self._placed(part)
        titles = list(part.predictions)
        scores = scores_of(part)
        for column, (gene_id, gene_name) in enumerate(zip(part.genes.ids, part.genes.names, strict=True)):
            truth = None if part.truth is None else part.truth[:, column]
            predictions = [part.predictions[title][:, column] for title in titles]
            deviation = None if part.deviation is None else part.deviation[:, column]
            name = f"{self.name}-gene-{len(self._genes['id'])}"
            self._note(str(gene_id), str(gene_name), truth, predictions, [each[column] for each in scores])
            self._genes["elsewhere"].append(None if part.elsewhere is None else finite(part.elsewhere[column]))
            pcc = self._genes["pcc"][-1][titles.index(part.ours)]
            if pcc is None:
                pcc = self._genes["elsewhere"][-1]
            yield (
                coded_values([each for each in (truth, *predictions, deviation) if each is not None]),
                name,
                pcc or 0.0,
            )

    def facts(self) -> dict[str, Any]:
        """What the page must know of this slide; genes that share a name have their ids beside it."""
        twice = {name for name, count in Counter(self._genes["name"]).items() if count > 1}
        names = [
            f"{name} ({gene_id})" if name in twice else name
            for name, gene_id in zip(self._genes["name"], self._genes["id"], strict=True)
        ]
        return {"word": self.name, "title": self.title, **self._place, "genes": {**self._genes, "name": names}}

    def _placed(self, part: SlideMap) -> dict[str, Any]:
        raster = raster_of(part.centres_um, part.um, part.lattice)
        self.words[f"{self.name}-rows"] = coded_rows(raster.rows)
        self.words[f"{self.name}-barcodes"] = coded_text("\n".join(part.barcodes.tolist()))
        picture = None
        if part.picture is not None:
            self.words[f"{self.name}-picture"] = as_jpeg(part.picture.pixels)
            height, width, _ = part.picture.pixels.shape
            size = np.array([width, height]) * part.picture.um_per_px
            corner = turned_back(size / 2, raster.angle) - size / 2  # Bokeh turns a picture about its middle
            picture = [*corner.tolist(), *size.tolist(), raster.angle]
        margin = MARGIN * max(raster.width_um, raster.height_um)
        return {
            "slide": part.slide_id, "group": part.group, "whole": part.whole, "learnt": part.learnt_from,
            "bins": len(part.barcodes), "shape": list(raster.rows.shape), "step": raster.step_um,
            "left": raster.left_um, "top": raster.top_um,
            "x": [raster.left_um - margin, raster.left_um + raster.width_um + margin],
            "y": [raster.top_um - margin, raster.top_um + raster.height_um + margin],
            "picture": picture, "truth": part.truth is not None, "deviation": part.deviation is not None,
            "systems": list(part.predictions), "ours": part.ours,
            "outline": [[]] * 4 if part.lattice is None else outline(raster).T.tolist(),  # spots apart are seen without
        }  # fmt: skip

    def _note(
        self,
        gene_id: str,
        name: str,
        truth: np.ndarray | None,
        predictions: Sequence[np.ndarray],
        scores: Sequence[np.ndarray],
    ) -> None:
        low, high = scale_of(predictions[0] if truth is None else truth)
        mean = predictions[0] if truth is None else truth
        told = {
            "id": gene_id, "name": name, "low": low, "high": high, "mean": finite(np.nanmean(mean, dtype=np.float64)),
            "pcc": [finite(pcc) for pcc, _ in scores], "mse": [finite(mse) for _, mse in scores],
        }  # fmt: skip
        for key, value in told.items():
            self._genes[key].append(value)


def scale_of(values: np.ndarray) -> tuple[float, float]:
    """Values (N,) between which colours differ, never the same one twice."""
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, SCALE) if len(known) else (0.0, 1.0)
    return finite(low) or 0.0, finite(max(high, low + 1e-3)) or 1.0


def scores_of(part: SlideMap) -> list[np.ndarray]:
    """PCC and MSE (P, 2) of each system's genes as tables have them; NaN where nothing was measured."""
    if part.truth is None:
        return [np.full((len(part.genes), 2), np.nan)] * len(part.predictions)
    metrics = [evaluate(prediction, part.truth) for prediction in part.predictions.values()]
    return [np.stack([each.gene_pcc, each.gene_mse], axis=1) for each in metrics]


def finite(value: float) -> float | None:
    """A number with four digits as JSON has it, None for what it has not."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def as_jpeg(pixels: np.ndarray) -> str:
    """A picture (H, W, 3) as data URI."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def told_of(facts: Mapping[str, Any]) -> str:
    """A slide in a few words, for those who read and do not look."""
    kind = "what 'train predict' wrote" if facts["whole"] else "bins of the table"
    kind += ", a slide that was learnt from" if facts["learnt"] else ""
    return f"{facts['slide']}, {facts['group']}: {kind}, {facts['bins']:,} rows, {len(facts['genes']['id'])} genes"

"""Maps that were made up: some bins with values that tests know."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.picture import Picture
from magnet_core.files import write_text
from magnet_core.records import Genes
from train.report.page import render
from train.report.parts import Section
from train.report.slide_maps import MapSource, SlideMap
from train.report.viewer.build import build_viewer


@dataclass(frozen=True)
class MadeSource(MapSource):
    """A map in memory, whose parts are read as those of a slide."""

    whole_map: SlideMap

    def read(self, genes: Sequence[str] | None = None, systems: Sequence[str] | None = None) -> SlideMap:
        columns, made = self.columns(genes), self.whole_map
        return SlideMap(
            made.group,
            made.slide_id,
            made.um,
            made.centres_um,
            made.barcodes,
            Genes(made.genes.ids[columns], made.genes.names[columns]),
            None if made.truth is None else made.truth[:, columns],
            {title: values[:, columns] for title, values in made.predictions.items()},
            made.ours,
            made.picture,
            None if made.deviation is None else made.deviation[:, columns],
            made.whole,
            made.learnt_from,
            None if made.elsewhere is None else made.elsewhere[columns],
        )


def made_source(
    *, slide_id: str = "A", side: int = 20, names: Sequence[str] = ("AAA", "ABB", "CCC"), measured: bool = True
) -> MadeSource:
    """A square slide of 8 µm bins: MagNet and the gene mean, predicted the better the earlier the gene stands."""
    rng = np.random.default_rng(side)
    row, column = np.divmod(np.arange(side * side), side)
    genes = Genes(np.array([f"ID{index}" for index in range(len(names))]), np.array(names))
    truth = rng.gamma(1, 1, (side * side, len(names))).astype(np.float32)
    noise = rng.standard_normal(truth.shape).astype(np.float32) * (0.2 + np.arange(len(names), dtype=np.float32))
    picture = Picture(np.full((90, 90, 3), (235, 190, 210), np.uint8), side * 8 / 80)
    made = SlideMap(
        "8 µm",
        slide_id,
        8,
        4 + side / 2 + 8.0 * np.column_stack([column, row]),
        np.array([f"s_008um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)]),
        genes,
        truth if measured else None,
        {"MagNet": truth + noise, "gene mean": np.broadcast_to(truth.mean(axis=0), truth.shape)},
        "MagNet",
        picture,
        None if measured else np.abs(noise),
        not measured,
        elsewhere=None if measured else np.linspace(0.5, 0.7, len(names)),
    )
    return MadeSource(
        "8 µm", slide_id, "MagNet", genes, {"MagNet": "magnet", "gene mean": "gene_mean"}, not measured, False, made
    )


def made_page(page: Path, *sources: MadeSource, wanted: Sequence[str] = ()) -> str:
    """Write a page of nothing but these maps and return its text."""
    viewer = build_viewer([(f"{each.slide_id} <shown>", each) for each in sources], page, wanted=wanted)
    write_text(page, render([Section("made up", "nowhere", [], [])], viewer=viewer))
    return page.read_text(encoding="utf-8")

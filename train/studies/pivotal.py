"""Single genes that matter to a study: error, correlation and likeness of their maps, and the maps themselves.

The paper's section 4.2 has SGPP1 and DPEP1 at 16 µm. In: names of genes, finished cells. Out: a table of systems and
genes, means over the test slides, and a picture of measured and predicted maps of a slide.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from tabulate import tabulate

from magnet_core.errors import MagnetError
from magnet_core.files import write_text
from magnet_core.structure import map_similarity, median_pitch_um
from train.data.fold_sides import open_from_store, panel_of
from train.data.labels import fine_labels
from train.data.slide import Slide
from train.studies.cell import CellResult, Results
from train.studies.figures import Map, draw_maps
from train.studies.plans import Plan
from train.studies.summary import finished

# N fine rows of a slide

MEASURES = {"mse": "MSE", "pcc": "PCC", "similarity": "SSIM"}


def pivotal_genes(plan: Plan, results: Results, genes: Sequence[str], *, folder: Path, maps: bool) -> str:
    """Write and return the table of single genes, by name; draw each on one slide of the first fold that has it."""
    rows = []
    for group in dict.fromkeys(row.group for row in plan.rows):
        cells = [(row, cell) for row in plan.rows if row.group == group for cell in finished(row.cells, results)]
        drawn: dict[str, list[Map]] = {}
        slides: dict[tuple[str, str], Slide] = {}
        for row, cell in cells:
            for gene, slide, prediction, truth in _maps_of(cell, genes, slides):
                fine = slide.fine
                pitch_um = median_pitch_um(fine.centres_um, fine.edges)
                alike = map_similarity(prediction, truth, fine.centres_um, pitch_um=pitch_um)
                scores = cell.genes.filter(pl.col("slide_id") == slide.slide_id, pl.col("gene_name") == gene)
                rows.append(
                    {"group": group, "system": row.title, "gene": gene, "slide_id": slide.slide_id,
                     "mse": scores["mse"][0], "pcc": scores["pcc"][0], "similarity": alike}
                )  # fmt: skip
                if slide.slide_id == shown_slide(gene, [each for _, each in cells]):
                    measured = Map(f"measured, {slide.slide_id}", fine.centres_um, truth, pitch_um)
                    drawn.setdefault(gene, [measured]).append(Map(row.title, fine.centres_um, prediction, pitch_um))
        for gene, of_gene in drawn.items() if maps else ():
            draw_maps(of_gene, f"{gene}, {group}", folder / f"maps-{gene}-{group.replace(' µm', 'um')}.png")
    return _write(pl.DataFrame(rows), folder, genes) if rows else _not_found(genes)


def check_genes(plan: Plan, genes: Sequence[str]) -> None:
    """Refuse genes that no fold's panel will have, before anything is computed; panels are chosen as cells do."""
    missing = list(genes)
    of_folds = {(cell.config.data.target, cell.fold.index): cell for cell in plan.cells}
    for cell in of_folds.values():
        if not missing:
            return
        panel = panel_of(open_from_store(cell.fold.train, cell.config.data), cell.config.data).names.tolist()
        missing = [gene for gene in missing if gene not in panel]
    if missing:
        found = f"{', '.join(missing)}, in none of them"
        raise MagnetError("--genes", expected="genes of a fold's panel", found=found, remedy=_to_include(missing))


def shown_slide(gene: str, cells: Sequence[CellResult]) -> str:
    """Return the slide a gene is drawn on: the first test slide of the first fold whose panel has it."""
    folds = [cell.cell.fold for cell in cells if gene in cell.panel.names.tolist()]
    return min(folds, key=lambda fold: fold.index).test[0]


def _maps_of(
    cell: CellResult, genes: Sequence[str], slides: dict[tuple[str, str], Slide]
) -> Iterator[tuple[str, Slide, np.ndarray, np.ndarray]]:
    """Yield prediction and truth (N,) of each gene in the cell's panel on each of the cell's test slides."""
    data, panel = cell.cell.config.data, cell.panel
    chosen = [gene for gene in genes if gene in panel.names.tolist()]
    for slide_id in cell.cell.fold.test if chosen else ():
        key = (slide_id, data.backbone)
        if key not in slides:
            (slides[key],) = open_from_store([slide_id], data)
        slide = slides[key]
        truth = fine_labels(slide, slide.labels(panel, data.normalise))
        prediction = cell.prediction(slide_id)
        for gene in chosen:
            column = panel.names.tolist().index(gene)
            yield gene, slide, np.asarray(prediction[:, column]), truth[:, column]


def _write(rows: pl.DataFrame, folder: Path, genes: Sequence[str]) -> str:
    means = rows.group_by("group", "system", "gene", maintain_order=True).agg(
        *(pl.col(measure).fill_nan(None).mean() for measure in MEASURES)
    )
    write_text(folder / "pivotal.csv", rows.write_csv())
    in_panels = [gene for gene in genes if gene in rows["gene"].to_list()]
    lines = []
    for (group, system), table in means.group_by("group", "system", maintain_order=True):
        values = {row["gene"]: row for row in table.to_dicts()}
        lines.append([group, system, *(_shown(values.get(gene, {}).get(m)) for gene in in_panels for m in MEASURES)])
    headings = ["", "system", *(f"{gene} {title}" for gene in in_panels for title in MEASURES.values())]
    write_text(folder / "pivotal.md", tabulate(lines, headings, tablefmt="github", disable_numparse=True) + "\n")
    text = tabulate(lines, headings, tablefmt="simple", disable_numparse=True)
    missing = [gene for gene in genes if gene not in in_panels]
    seen = rows.group_by("gene", maintain_order=True).agg(pl.col("slide_id").n_unique())
    where = ", ".join(f"{gene} on {slides}" for gene, slides in seen.iter_rows())
    text = f"\nsingle genes, means over the test slides of the folds whose panel has them: {where}\n\n{text}\n" + (
        _not_found(missing) if missing else ""
    )
    write_text(folder / "pivotal.txt", text)
    return text


def _not_found(genes: Sequence[str]) -> str:
    return f"\nin no fold's panel: {', '.join(genes)}; {_to_include(genes)}\n"


def _to_include(genes: Sequence[str]) -> str:
    quoted = ", ".join(f'"{gene}"' for gene in genes)
    return f"add --set 'data.include=[{quoted}]'"


def _shown(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"

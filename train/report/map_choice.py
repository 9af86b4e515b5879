"""What maps are drawn of a table where little is said: which slide, genes and systems; imports nothing slow.

In: a table's folder and what was asked for. Out: a `Choice` for each slide; a name that is not there is one line that
says which are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from magnet_core.errors import MagnetError
from magnet_core.registry import look_up
from train.report.slide_maps import MapSource, find_columns, find_slide_maps
from train.studies.plans import group as group_of

# N rows of a slide, P genes

GENES_SHOWN, OTHERS_SHOWN = 3, 3
GENES_COMPARED = 60  # of the best, to find some whose maps are unlike
ALIKE = 0.8  # correlation of two maps
ALL = "all"
_COLUMNS = ("group", "system", "slide_id", "gene_name", "pcc", "ceiling")


@dataclass(frozen=True)
class MapRequest:
    """What was asked for; what is empty or None is chosen.

    genes    names or ids
    slides   their ids, or `all`
    systems  names as `train study` has them, or titles; or `all`
    whole    slides that `train predict` wrote, not the bins that the table was made on
    store    where the table's store has moved to
    """

    genes: tuple[str, ...] = ()
    slides: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    target: int | None = None
    whole: bool = False
    store: Path | None = None


@dataclass(frozen=True)
class Choice:
    """A map to draw: genes by name, systems by title, and the noise ceilings of the genes that have one."""

    source: MapSource
    genes: list[str]
    systems: list[str]
    ceilings: dict[str, float]


def choose_maps(folder: Path, request: MapRequest) -> list[Choice]:
    """Choose a slide whose panel has the genes, the genes that are predicted best, and the best systems."""
    sources = of_target(find_slide_maps(folder, store=request.store), request)
    scores = read_scores(folder)
    return [_choice(source, scores, request) for source in of_slides(sources, request)]


def read_scores(folder: Path) -> pl.DataFrame:
    """PCC and noise ceiling by group, system, slide and gene, as a table recorded them; NaN is null."""
    table = pl.read_parquet(folder / "genes.parquet") if (folder / "genes.parquet").is_file() else pl.DataFrame()
    table = table.with_columns(pl.lit(None).alias(name) for name in _COLUMNS if name not in table.columns)
    return table.select(_COLUMNS).with_columns(pl.col("pcc", "ceiling").cast(pl.Float64).fill_nan(None))


def of_target(sources: Sequence[MapSource], request: MapRequest) -> list[MapSource]:
    """Maps of one group of rows, the first by default, and of one kind: of whole slides, or of what was tested."""
    groups = list(dict.fromkeys(each.group for each in sources))
    group = groups[0] if request.target is None else group_of(request.target)
    look_up(dict.fromkeys(groups), group, where="--target")
    in_group = [each for each in sources if each.group == group and (each.whole or not request.whole)]
    if not in_group:
        raise MagnetError(
            "--whole",
            expected="slides that 'train predict' wrote",
            found="none",
            remedy="predict one with the table's folder as RUN, or leave --whole out",
        )
    return in_group


def of_slides(sources: Sequence[MapSource], request: MapRequest) -> list[MapSource]:
    """The first map of each slide that is named; of none named, the first whose panel has the genes."""
    by_slide: dict[str, MapSource] = {}
    for each in sources:
        by_slide.setdefault(each.slide_id, each)
    if ALL in request.slides:
        return list(by_slide.values())
    if request.slides:
        if unknown := [slide_id for slide_id in request.slides if slide_id not in by_slide]:
            raise MagnetError(
                "--slides",
                expected=f"a slide that was {'predicted whole' if request.whole else 'tested, or predicted whole'}",
                found=f"'{unknown[0]}'",
                remedy=f"name one of {', '.join([*by_slide][:8])}, or give 'train predict RUN --slide {unknown[0]}'",
            )
        return [by_slide[slide_id] for slide_id in request.slides]
    known = [each for each in sources if set(request.genes) <= {*each.panel.names.tolist(), *each.panel.ids.tolist()}]
    return [(known or sources)[0]]


def best_genes(source: MapSource, scores: pl.DataFrame) -> list[str]:
    """The genes that ours predicts best on a slide, or on all test slides where that one was not tested.

    One whose map is like that of a better one is passed over, unless there are too few others.
    """
    ours = scores.filter(
        pl.col("group") == source.group,
        pl.col("system") == source.ours,
        pl.col("gene_name").is_in(source.panel.names.tolist()),
    )
    here = ours.filter(pl.col("slide_id") == source.slide_id)
    by_gene = (ours if here.is_empty() else here).group_by("gene_name", maintain_order=True).agg(pl.col("pcc").mean())
    best = by_gene.drop_nulls("pcc").sort("pcc", descending=True, maintain_order=True)["gene_name"].to_list()
    best = best[:GENES_COMPARED] or source.panel.names[:GENES_SHOWN].tolist()
    unlike = unlike_maps(source.read(best, [source.ours]).predictions[source.ours])
    others = [place for place in range(len(best)) if place not in unlike]
    return [best[place] for place in sorted((unlike + others)[:GENES_SHOWN])]


def unlike_maps(values: np.ndarray) -> list[int]:
    """Return columns of maps (N, P), from the first on, each of which is correlated with none before it."""
    centred = values - values.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    alike = np.abs(centred.T @ centred) > ALIKE * np.outer(norms, norms)
    kept: list[int] = []
    for place in range(values.shape[1]):
        if not alike[place, kept].any():
            kept.append(place)
    return kept


def best_systems(source: MapSource, scores: pl.DataFrame) -> list[str]:
    """Ours, and of the others those with the highest PCC per gene; what predicts a constant is left out."""
    others = scores.filter(pl.col("group") == source.group, pl.col("system") != source.ours)
    means = others.group_by("system", maintain_order=True).agg(pl.col("pcc").mean()).filter(pl.col("pcc") > 0)
    best = means.sort("pcc", descending=True, maintain_order=True)["system"].to_list()
    return [source.ours, *[title for title in best if title in source.systems][:OTHERS_SHOWN]]


def named_systems(source: MapSource, names: Sequence[str]) -> list[str]:
    """Titles of systems that are named as in `train study` or by title; `magnet` is each row that is of MagNet."""
    if ALL in names:
        return list(source.systems)
    of_name = {title: [title] for title in source.systems}
    for title, name in source.systems.items():
        of_name.setdefault(name, []).append(title)
    return list(dict.fromkeys(title for name in names for title in look_up(of_name, name, where="--systems")))


def _choice(source: MapSource, scores: pl.DataFrame, request: MapRequest) -> Choice:
    columns = find_columns(source.panel, request.genes or best_genes(source, scores), where="--genes")
    genes = list(dict.fromkeys(source.panel.names[columns].tolist()))
    systems = named_systems(source, request.systems) if request.systems else best_systems(source, scores)
    known = scores.filter(pl.col("group") == source.group, pl.col("slide_id") == source.slide_id).drop_nulls("ceiling")
    return Choice(source, genes, systems, dict(known.select("gene_name", "ceiling").unique().iter_rows()))

"""Protocols by name: what is predicted, how folds are cut, and how slides add up, as three papers have it.

paper    the MagNet paper's section 3: 250 genes of highest mean, proportional normalisation and log, four folds
triplex  Chung et al. 2024: the same normalisation, one patient left out at a time, slides weighing by their rows. Their
         released code also smooths labels, of test slides too: that is not done here
hest     Jaume et al. 2024: 50 genes that vary most, log of raw counts, correlation over the pooled rows of the test
         slides. Its linear probe is the system hest_ridge, its patches are those of recipes/hest.toml, and
         docs/benchmark.md says what still differs
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Pooling = Literal["equal", "rows", "pooled"]


@dataclass(frozen=True)
class Protocol:
    """Settings that a protocol brings, which a recipe may change, and how the test slides of a fold add up.

    pooling  equal: the mean over slides; rows: a slide counts by its rows; pooled: as if all rows were of one slide
    """

    values: Mapping[str, Any]
    pooling: Pooling
    says: str


PROTOCOLS = {
    "paper": Protocol({}, "equal", "the paper's: slides weigh the same"),
    "triplex": Protocol(
        {"split": {"folds": 0, "file": "runs/folds-triplex.json"}},
        "rows",
        "TRIPLEX's: leave one patient out, slides weigh by their rows",
    ),
    "hest": Protocol(
        {"data": {"panel": 50, "panel_by": "variance", "normalise": {"library": "none"}}},
        "pooled",
        "HEST's: genes of highest variance, log of raw counts, correlations over the pooled rows of the test slides",
    ),
}

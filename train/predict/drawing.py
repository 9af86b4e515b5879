"""What maps show of a prediction: which genes, and above which level their regions begin.

In: options as they are written. Out: a `Drawing`, for the formats that are maps. Imports nothing slow.
"""

from dataclasses import dataclass

import numpy as np

from magnet_core.errors import MagnetError
from magnet_core.records import Genes

# N rows, P genes of a prediction

DEFAULT_LEVEL = "90%"


@dataclass(frozen=True)
class Level:
    """A level of expression: a value, or the share of a slide's rows that lie at or below it."""

    number: float
    is_share: bool = False

    def of(self, values: np.ndarray) -> float:
        """Return the level as a value, of the values (N,) of one gene."""
        return float(np.quantile(values, self.number)) if self.is_share else self.number


@dataclass(frozen=True)
class Drawing:
    """Names or ids of the genes that are drawn, and the level above which their regions lie."""

    genes: tuple[str, ...] = ()
    above: Level = Level(0.9, is_share=True)

    def columns(self, genes: Genes) -> list[int]:
        """Return the columns of the drawn genes among those of a prediction; one that is not there is an error."""
        expected = f"genes of the {len(genes)} that are predicted"
        return list(dict.fromkeys(genes.named(self.genes, where="--draw", expected=expected).tolist()))


def read_level(text: str) -> Level:
    """Read `1.5`, a value, or `90%`, a share of rows; anything else is an error."""
    is_share = text.strip().endswith("%")
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        number = np.nan
    if not np.isfinite(number) or is_share and not 0 <= number < 100:
        raise MagnetError(
            "--above",
            expected="a level such as 1.5, or a share of rows such as 90%",
            found=f"'{text}'",
            remedy=f"correct it, or leave it out for {DEFAULT_LEVEL}",
        )
    return Level(number / 100, is_share=True) if is_share else Level(number)

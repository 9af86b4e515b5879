"""Fine rows of one slide that belong together: a subgraph's core, a part of a batch, a window."""

from dataclasses import dataclass

import numpy as np

from train.data.slide import Slide

# n rows


@dataclass(frozen=True, repr=False)
class Rows:
    """Some fine rows (n,) of one slide, and the symmetry of the square in which their patches are seen."""

    slide: Slide
    rows: np.ndarray
    symmetry: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"slide '{self.slide.slide_id}', rows {self.rows.min()} to {self.rows.max()}"

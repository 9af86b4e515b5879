"""How large a setting may be: far above what is sensible, and finite, so that an absurd number is one line.

A recipe may have a zero too many, and a description of a run without a checksum may say anything: neither makes layers
for ever.
"""

MOST_LAYERS = 256  # one after the other, rounds of a graph among them
MOST_WIDTH = 65_536  # features of a node, heads, side of a kernel, a rank
MOST_ROWS = 100_000_000  # of a slide, a batch, a window; a Visium HD slide has 11 million bins of 2 µm
MOST_EPOCHS = 1_000_000
MOST_GENES = 1_000_000
MOST_SEEDS = 1_000  # trainings whose predictions are averaged

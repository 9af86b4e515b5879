from pathlib import Path

import numpy as np

from extract.readers import space_ranger_hd
from extract.readers.binning import bin_barcodes, bin_cells, coarsen


def test_bins_summed_from_finer_ones_are_those_that_space_ranger_writes(small_samples: Path) -> None:
    slide = space_ranger_hd.read(small_samples.parent / "S1/outs")
    written, summed = slide.bins[16], coarsen(slide.bins[8], side=2, bin_um=16)
    order = np.argsort(written.barcodes)
    np.testing.assert_array_equal(np.sort(summed.barcodes), written.barcodes[order])
    row_of = {barcode: row for row, barcode in enumerate(summed.barcodes)}
    rows = [row_of[barcode] for barcode in written.barcodes]
    np.testing.assert_allclose(summed.centres_px[rows], written.centres_px, atol=0.05)
    assert summed.counts is not None
    assert summed.counts.sum() == slide.bins[8].counts.sum()  # type: ignore[union-attr]
    assert summed.pitch_um == 16


def test_cells_are_read_off_barcodes() -> None:
    cells = np.array([[3, 0], [12, 34], [0, 99_999]])
    np.testing.assert_array_equal(bin_cells(bin_barcodes(8, cells)), cells)
    assert bin_cells(np.empty(0, dtype=np.str_)).shape == (0, 2)

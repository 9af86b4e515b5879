from pathlib import Path

import numpy as np
import polars as pl

from tests.train.predict.setting import MPP, block, prediction_at
from train.predict.parquet import write_parquet


def test_a_row_a_bin_with_its_places_genes_and_deviations(tmp_path: Path) -> None:
    cells = block(3, 4)
    values = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    prediction = prediction_at(cells, values, turn_deg=10, deviation=values**2)
    path = tmp_path / "new" / "S1.parquet"
    write_parquet(prediction, path)
    assert [found.name for found in path.parent.iterdir()] == ["S1.parquet"]
    table = pl.read_parquet(path)
    assert table.columns == ["barcode", "x_um", "y_um", "x_px", "y_px", "GENE0", "GENE1", "GENE0_sd", "GENE1_sd"]
    assert table["barcode"].to_list() == prediction.slide.fine.barcodes().tolist()
    np.testing.assert_array_equal(table[["x_um", "y_um"]], prediction.slide.fine.centres_um)
    np.testing.assert_allclose(table[["x_px", "y_px"]].to_numpy() * MPP, prediction.slide.fine.centres_um)
    np.testing.assert_array_equal(table[["GENE0", "GENE1"]], values)
    np.testing.assert_array_equal(table[["GENE0_sd", "GENE1_sd"]], values**2)
    assert table["GENE0"].dtype == pl.Float32

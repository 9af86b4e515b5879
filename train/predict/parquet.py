"""A prediction as Parquet: one row a bin or spot, for polars, pandas, DuckDB, R.

In: a prediction. Out: a file with the columns

    barcode        text, as in the store
    x_um, y_um     float64, centre in µm from the top left corner of the image
    x_px, y_px     float64, the same in pixels of the full-resolution image
    GENE           float32, of each gene what is predicted
    GENE_measured  float32, where it is wanted and there
    GENE_sd        float32, of an ensemble
"""

from pathlib import Path

from magnet_core.files import replacing
from train.predict.prediction import SlidePrediction


def write_parquet(prediction: SlidePrediction, path: Path) -> None:
    """Write the file, whole or not at all; columns are taken from the arrays one by one."""
    import polars as pl

    fine, mpp = prediction.slide.fine, prediction.mpp
    columns = {"barcode": pl.Series(fine.barcodes())}
    for unit, scale in (("um", 1.0), ("px", 1 / mpp)):
        for axis, along in zip("xy", fine.centres_um.T, strict=True):
            columns[f"{axis}_{unit}"] = pl.Series(along * scale)
    kinds = {"": prediction.values, "_measured": prediction.measured, "_sd": prediction.deviation}
    for suffix, values in kinds.items():
        if values is not None:
            columns |= {
                f"{gene}{suffix}": pl.Series(values[:, column])
                for column, gene in enumerate(prediction.genes.names.tolist())
            }
    with replacing(path) as partial:
        pl.DataFrame(columns).write_parquet(partial)

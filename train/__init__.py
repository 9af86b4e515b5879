"""Stage two: from a feature store to trained runs and their tables. `pipeline.py` is the page to read first."""

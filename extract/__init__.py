"""Stage one: from whole-slide images and counts to a feature store. `pipeline.py` is the page to read first."""

"""Predictions of slides with a trained run, and the files that hold them."""

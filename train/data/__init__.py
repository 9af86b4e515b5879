"""Slides, folds and subgraphs, as they come from the store."""

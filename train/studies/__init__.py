"""The benchmark: systems, folds and targets as cells that are computed once, and the tables made of them."""

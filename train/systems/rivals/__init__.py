"""The six systems of the paper's Table 1, and the parts that they share."""

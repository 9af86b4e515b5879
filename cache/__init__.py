"""The store between the two stages: finished, checked files of arrays, and who is whose neighbour."""

"""What every stage shares: units, records, slides, grids, expression, backbones, the model, losses and metrics.

Nothing here imports `cache`, `extract` or `train`.
"""

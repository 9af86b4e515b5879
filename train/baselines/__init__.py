"""Systems that MagNet is compared with, behind one interface: `fit(train)`, `predict(slide)`."""

from train.baselines.base import Baseline
from train.baselines.gene_mean import GeneMean
from train.baselines.ridge import ColourRidge, FeatureRidge

__all__ = ["Baseline", "ColourRidge", "FeatureRidge", "GeneMean"]

"""Systems that MagNet is compared with, behind one interface: `fit(training)`, `predict(slide)`."""

from train.baselines.base import Setting, System, Training
from train.baselines.gene_mean import GeneMean
from train.baselines.ridge import ColourRidge, FeatureRidge

__all__ = ["ColourRidge", "FeatureRidge", "GeneMean", "Setting", "System", "Training"]

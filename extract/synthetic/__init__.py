"""A synthetic Visium HD data set with known truth: `synthesise(directory, SynthConfig())`."""

from extract.synthetic.config import SynthConfig
from extract.synthetic.dataset import synthesise

__all__ = ["SynthConfig", "synthesise"]

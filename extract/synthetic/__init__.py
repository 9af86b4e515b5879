"""A synthetic Visium HD data set with known truth: `dataset.synthesise(directory, config.SynthConfig())`."""

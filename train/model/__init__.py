"""The predictor: building it, placing its features, running it over a whole slide."""

"""The compared systems behind one interface: `fit(training)`, `predict(slide)`."""

"""Plain baselines: what any system has to beat."""

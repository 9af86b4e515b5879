"""One self-contained page of results: studies, cross-validations, fits and sweeps."""

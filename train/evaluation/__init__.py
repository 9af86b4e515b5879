"""What a prediction is worth, and the names of those compared."""

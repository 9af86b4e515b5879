"""What a prediction is worth, and what the best possible one would be."""

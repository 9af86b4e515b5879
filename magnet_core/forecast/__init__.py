"""What `extract plan` and `train plan` share: how fast things go, who measured or assumed it, and what it costs."""

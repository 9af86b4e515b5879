"""Hyper-parameter search: trials drawn by Optuna, judged on validation slides, kept in one folder that goes on."""

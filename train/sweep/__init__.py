"""Hyper-parameter search: trials drawn by Optuna, judged on what is held out, kept in one folder that goes on."""

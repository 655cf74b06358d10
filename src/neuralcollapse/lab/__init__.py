"""Experiments: data sets, networks, training, and the run directory. The library above never imports this package."""

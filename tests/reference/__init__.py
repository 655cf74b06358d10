"""Slow versions of the formulas, written separately from the package: NumPy in float64, mpmath with 50 digits."""

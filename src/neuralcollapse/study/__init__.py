"""Many runs as one study: grids and sweeps, where their runs are trained, and what they cost."""

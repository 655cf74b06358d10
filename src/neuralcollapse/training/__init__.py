"""Training one network: its configuration, losses, optimizers, the loop, and the run directory."""

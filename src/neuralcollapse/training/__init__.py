"""Training one network: its configuration, losses, optimisers, the loop, and the run directory."""

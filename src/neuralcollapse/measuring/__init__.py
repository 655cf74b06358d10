"""From a model and its data to a report: hooks, forward passes, the two-pass engine, and what it gives."""

"""Counts, means and scatter of labelled features, class by class, streamed and merged exactly."""

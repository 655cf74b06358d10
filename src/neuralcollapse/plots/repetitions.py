"""Which runs are repetitions of one another: drawn as one curve with a band, compared as one side."""

from __future__ import annotations

REPETITIONS_DIFFER_IN = ("seed", "data_dir", "data_sha256", "device", "devices", "precision")
"""Runs that differ in these settings alone are repetitions of one; a seed may draw other examples, too."""

"""Measuring features that are saved in files: readers of each format, shards for jobs of an array, and merging."""

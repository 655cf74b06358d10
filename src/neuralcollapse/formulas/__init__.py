"""Every equation of the paper as a pure function of moments or tensors; no modules, no files."""

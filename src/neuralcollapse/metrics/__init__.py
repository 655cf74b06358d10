"""Every measured quantity of the papers as a pure function of moments or tensors; registry.py names them."""

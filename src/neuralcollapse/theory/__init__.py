"""What the paper proves about the central path, in closed form and integrated."""

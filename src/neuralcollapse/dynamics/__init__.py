"""The paper's dynamics on actual features: what the closed form of the central path is held against."""

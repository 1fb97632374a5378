"""How did it go? Scores of a checkpoint beside honest baselines from the same training text."""

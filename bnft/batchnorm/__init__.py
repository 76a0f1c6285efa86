"""BN layers: which there are, which of their parameters learn, and what is recorded of them over training."""

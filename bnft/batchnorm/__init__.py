"""BN layers of a model, freeze policies, and the record of BN layers over training."""

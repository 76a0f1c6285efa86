"""Training: one loop for every row, and the shapes of the learning rate."""

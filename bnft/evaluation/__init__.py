"""Evaluation: clean and robust error of a trained model."""

"""Attacks used in training, and how they are made fast."""

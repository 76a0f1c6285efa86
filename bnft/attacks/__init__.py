"""Attacks used in training, and their acceleration."""

"""Runs: what names one, what is asked for, what is kept, and how one is carried out."""

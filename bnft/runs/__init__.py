"""Runs: their names, plans, files and execution."""

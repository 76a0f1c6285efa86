"""Reads what runs left in the store; every number shown is a function of result files alone."""

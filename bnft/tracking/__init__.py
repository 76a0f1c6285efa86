"""Tracking with Weights & Biases. A process beside the runs reads the store and logs it; `bnft sync` does it later.

Runs import nothing from here. Everything that is tracked is read from the store.
"""

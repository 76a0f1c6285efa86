"""Tracking with Weights & Biases: a process beside the runs replays what they leave in the store; `bnft sync`, later.

No run imports anything from here: what is tracked is read from the store, which is the truth.
"""

"""bnft: what batch normalisation can and cannot do in adversarial training.

The package is layered. `data`, `models`, `freezing`, `attacks`, `training` and `evaluation` are the science: plain
PyTorch that knows nothing of Hydra, of where results are kept, or of the terminal. `compose`, `plan`, `run` and
`store` arrange for it to happen once and be found again; `report` reads what they left behind.
"""

__version__ = "0.1.0"

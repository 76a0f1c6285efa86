"""Sweeps on a SLURM cluster. Tasks are submitted as job arrays in waves."""

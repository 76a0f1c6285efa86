"""Sweeps on a SLURM cluster: tasks as job arrays in waves, and what each job does."""

"""Many runs, on this machine or on a SLURM cluster, and their state."""

"""`python -m bnft` runs the command `bnft`."""

from bnft.cli import main

main()

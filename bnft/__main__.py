"""`python -m bnft` is the command `bnft`."""

from bnft.cli import main

main()

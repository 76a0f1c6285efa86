"""Train and evaluate runs, as `bnft run` does. Shells look for @hydra.main here before they complete it."""

from bnft.hydra_app import main

if __name__ == "__main__":
    main()

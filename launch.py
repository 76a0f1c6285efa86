"""Train and evaluate runs: `python launch.py policy=bn_params`, or several with -m. See `--help`."""

import hydra
from omegaconf import DictConfig

from bnft import app


@hydra.main(version_base="1.3", config_path="conf", config_name=app.CONFIG_NAME)
def main(config: DictConfig) -> None:
    app.run_one()


if __name__ == "__main__":
    app.guarded(main)

"""Train and evaluate runs: `python launch.py policy=bn_params`, or several with -m. See `--help`."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from bnft import hydra_app

CONFIG = Path(__file__).resolve().parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONFIG), config_name=hydra_app.CONFIG_NAME)
def main(config: DictConfig) -> None:
    hydra_app.run_one()


if __name__ == "__main__":
    hydra_app.guarded(main)

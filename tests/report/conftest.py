"""What several tests of figures share."""

from pathlib import Path

import pytest
from support.made_store import MadeStore

from bnft.report.groups import Group, groups
from bnft.report.rows import select
from bnft.runs.store import Store


@pytest.fixture
def group(tmp_path: Path) -> Group:
    made = MadeStore(Store(tmp_path / "multirun")).add(("normal", "adv"))
    made.sweep()
    (study,) = select(made.store).studies()
    return groups(study)[0]

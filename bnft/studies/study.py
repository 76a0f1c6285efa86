"""The contents of a study file: its rows, the numbers published for them, and its claims."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from bnft.common.constraints import Rule, Strict, above, at_least, at_most, not_empty, one_of
from bnft.common.errors import DamagedError
from bnft.studies.measures import ERRORS, MEASURES

DASHES = 4  # kinds of lines in figures

PLAIN_TITLE = Rule(
    "one line of text without brackets", lambda text: bool(text.strip()) and not set("[]\n") & set(text), complete=True
)
COLOUR = Rule("a colour as #RRGGBB", lambda text: bool(re.fullmatch("#[0-9a-fA-F]{6}", text)), complete=True)

_percent = (at_least(0), at_most(100))


@dataclass(frozen=True)
class Published(Strict):
    """Errors and the share of learning parameters that were published for a row, in percent."""

    clean_error: Annotated[float, *_percent]
    robust_error: Annotated[float, *_percent]
    learning: Annotated[float | None, *_percent] = None


@dataclass(frozen=True)
class StudyRow(Strict):
    """A row of a study.

    Attributes:
        policy: its policy.
        title: its name in tables, figures and claims.
        overrides: what it changes in its policy, as on the command line.
        published: the errors that were published for it; None if there are none.
        colour: its colour in figures; None to choose one.
        dash: the kind of its lines in figures, from 0 (solid) to 3.
        reference: the training of this row in the published setting, in the form of a run's identity, with `precision`
            and `evaluation`. It is not part of the file: `runs.plan` composes it from `setting.overrides`.
    """

    policy: Annotated[str, not_empty]
    title: Annotated[str, PLAIN_TITLE]
    overrides: list[str] = field(default_factory=list)
    published: Published | None = None
    colour: Annotated[str | None, COLOUR] = None
    dash: Annotated[int, at_least(0), at_most(DASHES - 1)] = 0
    reference: dict[str, Any] | None = None

    @property
    def sets_budget(self) -> bool:
        """Whether the row chooses norm or eps of its evaluation."""
        return self.overrides_any("threat", "evaluation.eps", "evaluation.norm")

    def overrides_any(self, *keys: str) -> bool:
        """Return whether the row overrides a group or key that begins with one of these."""
        return any(line.lstrip("+").startswith(keys) for line in self.overrides)


@dataclass(frozen=True)
class Setting(Strict):
    """The setting of the published numbers. A table names every difference between it and our runs.

    Attributes:
        data: the name of the data set, in words.
        overrides: the overrides that compose this setting from each row.
        parameters: the number of parameters of the network.
        training_images: the number of training images.
        clean_images: the number of images of clean errors.
        robust_images: the number of images of robust errors.
        constant_error: the error of a classifier that always predicts the same class, in percent.
    """

    data: Annotated[str, not_empty]
    overrides: list[str] = field(default_factory=list)
    parameters: Annotated[int | None, at_least(1)] = None
    training_images: Annotated[int | None, at_least(1)] = None
    clean_images: Annotated[int | None, at_least(1)] = None
    robust_images: Annotated[int | None, at_least(1)] = None
    constant_error: Annotated[float | None, *_percent] = None


@dataclass(frozen=True)
class Claim(Strict):
    """A claim about two rows, by title.

    Attributes:
        text: the claim in words.
        row: the row that it is about.
        relation: how its value relates to that of `than`; see `measures`.
        than: the row to compare with, or `constant`.
        measure: what is compared.
        than_measure: what is compared of `than`; None for the same measure.
        to: the row that `row` is closer to, for the relation `closer`.
        margin: below which difference values count as the same; None for the measure's own margin.
        published: the published difference; None to compute it from the rows' published errors.
    """

    text: Annotated[str, PLAIN_TITLE]
    row: str
    relation: str
    than: str
    measure: Annotated[str, one_of(*MEASURES)] = "robust_error"
    than_measure: Annotated[str | None, one_of(*ERRORS)] = None
    to: str | None = None
    margin: Annotated[float | None, above(0)] = None
    published: float | None = None

    @property
    def is_error(self) -> bool:
        """Whether the claim is about errors of single images, so that it is tested."""
        return self.measure in ERRORS

    @property
    def equal_below(self) -> float | None:
        """The difference below which values count as the same; None unless the claim is that they are."""
        if self.relation != "same":
            return None
        return self.margin if self.margin is not None else MEASURES[self.measure].margin

    @property
    def other_measure(self) -> str:
        return self.than_measure or self.measure

    @property
    def titles(self) -> list[str]:
        """The rows that the claim names, and perhaps `constant`."""
        return [title for title in (self.row, self.than, self.to) if title is not None]


@dataclass(frozen=True)
class Study(Strict):
    """A study.

    Attributes:
        name: the name of its file.
        title: its question or name in words.
        rows: its rows, in the order of tables.
        source: the paper with the published numbers; None if there is none.
        setting: the setting of the published numbers.
        claims: its claims, in the order of tables.
        highlight: the titles of the rows in detailed figures; empty for all rows.
        layer: the number of the BN layer that figures show first, from 1.
    """

    name: str
    title: Annotated[str, PLAIN_TITLE]
    rows: Annotated[list[StudyRow], not_empty]
    source: Annotated[str | None, not_empty] = None
    setting: Setting | None = None
    claims: list[Claim] = field(default_factory=list)
    highlight: list[str] = field(default_factory=list)
    layer: Annotated[int, at_least(1)] = 1

    @cached_property
    def by_title(self) -> dict[str, StudyRow]:
        return {row.title: row for row in self.rows}

    @cached_property
    def order(self) -> dict[str, int]:
        """The position of each title."""
        return {row.title: position for position, row in enumerate(self.rows)}

    @property
    def has_published(self) -> bool:
        return any(row.published for row in self.rows)

    @property
    def compares_networks(self) -> bool:
        """Whether rows differ in their data or network."""
        return any(row.overrides_any("model", "data", "recipe") for row in self.rows)

    def encoded(self) -> dict[str, Any]:
        """Return the study as JSON; the opposite of `decoded`."""
        return asdict(self)

    @classmethod
    def decoded(cls, value: Mapping[str, Any]) -> "Study":
        """Return the study of a record. Raises DamagedError if it is not one."""
        try:
            return _STUDY.validate_python(dict(value))
        except ValidationError:
            raise DamagedError("the study in the record of a sweep is damaged; ask for the sweep again") from None


_STUDY = TypeAdapter(Study)

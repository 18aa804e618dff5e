"""What the report's templates show: tables, and figures whose image is part of the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from vdvae_lr.report.reported import Reported

MISSING = "–"
"""A table's cell without a value."""


@dataclass(frozen=True)
class Cell:
    """A table's cell that is more than plain text."""

    text: str
    small: str = ""
    """A second line in small print."""
    tag: str = ""
    """The HTML element around the text: code or strong."""


@dataclass(frozen=True)
class Table:
    """A table. The first cell of a row names it."""

    name: str
    """What screen readers call the table."""
    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    unit: str = ""
    """Unit of all numbers, where they share one."""


@dataclass(frozen=True)
class Figure:
    """A chart or a picture under its title."""

    title: str
    source: str = ""
    """Address of the image; empty if there is none to show."""
    alt: str = ""
    """The image in words."""
    width: int = 0
    """Pixels, like the height."""
    height: int = 0
    caption: str = ""
    numbers: Table | None = None
    """The numbers of a chart."""


@dataclass(frozen=True)
class Beside:
    """Pictures of several models beside one another."""

    title: str
    figures: Sequence[Figure]
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page that shows charts and pictures. The template adds its title and fixed text."""

    models: Sequence[Reported] = ()
    """Models in the legend."""
    charts: Sequence[Figure] = ()
    more: Sequence[Figure] = ()
    """Charts that are shown on demand."""
    pictures: Sequence[Figure] = ()
    beside: Sequence[Beside] = ()
    table: Table | None = None
    """A table that is shown on demand."""
    note: str = ""
    """A sentence that depends on the models."""

    def __bool__(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.charts or self.more or self.pictures or self.beside or self.table)

"""What a figure is: a module of this folder with a :class:`Figure` at its top level. Nothing else names it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

import matplotlib.figure as mpl

from icsbench.analysis.groups import Group


class Numbers(Protocol):
    """Numbers of a figure that belong together: a curve, a density, the rows of a run."""

    def rows(self) -> Iterable[dict[str, Any]]:
        """Plain rows of the CSV file, columns by name."""
        ...


N = TypeVar("N", bound=Numbers)
Drawing = tuple[mpl.Figure, list[dict[str, Any]]]
"""A drawn page, and the rows of its CSV file."""


@dataclass(frozen=True)
class Figure(Generic[N]):
    """A figure of comparable runs: when there is one, its numbers, what is said below it, and how it is drawn."""

    name: str
    """The name of its files; after it comes the learning rate, where there is a figure for each of several."""
    order: int
    """Its place among the figures: those of all learning rates first, then those of each, by this number."""
    numbers: Callable[[Group], Sequence[N]]
    """What is drawn, at least one.

    :raises NotMeasured: the records do not hold it.
    """
    caption: Callable[[Group, Sequence[N]], str]
    """What is drawn, of what, over how many seeds: made by ``caption.caption``."""
    draw: Callable[[Group, Sequence[N], str], mpl.Figure]
    """The page with these numbers and this caption, laid out as a ``style.Page``, within ``style.house_style``."""
    applies: Callable[[Group], bool] = lambda group: True
    """Whether a group is to have the figure; where it is and lacks the numbers, the user is told."""
    per_lr: bool = True
    """Whether there is one for each learning rate; a lab has none, and its figure is of all runs."""
    kind: Literal["training", "lab"] = "training"
    """What its runs are: training runs, or those of a lab."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """What its quantities are called, where its numbers are curves that a reader of the report may explore."""

    def page(self, group: Group) -> Drawing:
        """Draw it, within ``style.house_style``.

        :raises NotMeasured: the records do not hold what it shows.
        :raises IcsbenchError: a record is damaged.
        """
        page, numbers = self.drawn(group)
        return page, [row for part in numbers for row in part.rows()]

    def drawn(self, group: Group) -> tuple[mpl.Figure, Sequence[N]]:
        """As ``page``, with the numbers as they are."""
        numbers = self.numbers(group)
        return self.draw(group, numbers, self.caption(group, numbers)), numbers

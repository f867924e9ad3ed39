"""What a lab is: options and a seed in, rows of numbers out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icsbench.options import Options
from icsbench.record.schema import STEP

if TYPE_CHECKING:
    from rich.console import Console

    from icsbench.config import Config

Row = dict[str, Any]
"""Numbers, texts, truth values and lists of them by name, with an integer ``step``."""


@dataclass(frozen=True)
class Lab:
    """A lab: a study whose runs are no training. Its record holds its rows, and is sealed like that of a training.

    ``rows(options, seed)`` yields the rows of one run, one after another, and depends on nothing else; every random
    number comes from the seed (:mod:`icsbench.streams`). What it cannot use it refuses with an IcsbenchError in one
    line; where that is before its first row, no record is begun. A run that was stopped starts again from its first
    row. ``step`` is whatever the rows count: updates, layers, sizes; several rows may have the same.

    A module of a lab imports torch inside its functions, so that labs are listed at once.
    """

    name: str
    label: str
    """The lab in a few words, for tables and captions."""
    rows: Callable[..., Iterable[Row]]
    options: type[Options] = Options
    """Its keys below ``lab`` in the configuration."""
    network: bool = False
    """Whether it is about the network of a training, and is then called as ``rows(options, seed, network)`` with a
    :class:`icsbench.labs.network.Network`. All settings of that training are then part of the lab's run."""
    show: "Callable[[Console, Config, Sequence[Row]], None] | None" = None
    """Prints the rows of one run for ``icsbench lab NAME``; without it, only their number is said."""
    help: str = ""
    """What ``icsbench lab NAME --help`` says below the label."""


def checked(rows: Iterable[Row], name: str) -> Iterator[Row]:
    """The rows as they come.

    :raises TypeError: one is no mapping, or has no integer ``step``: a mistake of the lab ``name``.
    """
    for row in rows:
        step = row.get(STEP) if isinstance(row, dict) else None
        if not isinstance(step, int) or isinstance(step, bool):
            raise TypeError(f"lab {name}: a row must be a mapping with an integer {STEP!r} (got {row!r})")
        yield row

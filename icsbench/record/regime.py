"""What a run is called, and how tables and figures show it."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from icsbench.errors import IcsbenchError
from icsbench.record import legacy

_PLAIN_LOOK = {"order": math.inf, "color": "#7F7F7F", "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "p"}


class Regime(str):
    """The name of a norm, or of the lab of a lab's run, with how tables and figures show it.

    ``label``: the name for people. ``order``: its place among others, the smallest first. ``color``: ``#rrggbb``.
    ``linestyle`` and ``marker``: as matplotlib has them. A name that comes without a look is grey, its own label, and
    last.
    """

    label: str
    order: float
    color: str
    linestyle: str | tuple[float, tuple[float, ...]]
    marker: str

    def __new__(cls, name: str, look: Mapping[str, Any] | None = None) -> "Regime":
        """A name, and those parts of its look that are known."""
        regime = super().__new__(cls, name)
        full = {"label": name, **_PLAIN_LOOK, **(look or {})}
        regime.label, regime.order, regime.color, regime.marker = (
            full[k] for k in ("label", "order", "color", "marker")
        )
        line = full["linestyle"]
        regime.linestyle = line if isinstance(line, str) else (line[0], tuple(line[1]))
        return regime


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_line(value: Any) -> bool:
    if isinstance(value, str):
        return value in ("-", "--", "-.", ":")
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], list):
        return False
    dashes = value[1]
    sound = all(_is_number(number) and number >= 0 for number in dashes) and sum(dashes) > 0
    return _is_number(value[0]) and sound and len(dashes) % 2 == 0


_LOOK: dict[str, tuple[Callable[[Any], bool], str]] = {
    "label": (lambda value: isinstance(value, str) and bool(value), "a text"),
    "order": (_is_number, "a number"),
    "color": (lambda value: isinstance(value, str) and bool(re.fullmatch("#[0-9a-fA-F]{6}", value)), "#rrggbb"),
    "linestyle": (_is_line, '"-", "--", "-.", ":" or [offset, [on, off, ...]]'),
    "marker": (
        lambda value: isinstance(value, str) and bool(re.fullmatch(r"[.,ov^<>1-48spP*hH+xXDd|_]", value)),
        "a marker of matplotlib, one character",
    ),
}
"""Of each part of a look in ``environment.json``: whether a value fits, and what would."""


def regime_of(name: str, key: str, environment: dict[str, Any], path: Path) -> Regime:
    """The regime of a record with the look that its environment gives it under ``key``.

    :raises IcsbenchError: a part of the look is not what it would be.
    """
    if key not in environment:
        return Regime(name, legacy.LOOKS.get(name) if key == "regime" else None)
    look = environment[key]
    if not isinstance(look, dict):
        raise IcsbenchError(f"{path}: {key} is {look!r}; it would be an object with {', '.join(_LOOK)}")
    for part, (fits, what) in _LOOK.items():
        if part in look and not fits(look[part]):
            raise IcsbenchError(f"{path}: {key}.{part} is {look[part]!r}; it would be {what}")
    return Regime(name, {part: look[part] for part in _LOOK if part in look})

"""What a member of a room (a norm, a model, an optimizer) can be told: a dataclass with types, defaults and ranges."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass
class Options:
    """Options of the member called ``name``; a member with more of them has a subclass.

    A field is a key of the member's group in the configuration: ``eps`` of a norm is ``norm.eps``. One without a
    default must be in the member's YAML. A default stays as it is once there are records: fingerprints are taken over
    what differs from it.
    """

    name: str

    def __post_init__(self) -> None:
        """Check the values.

        :raises ValueError: one is out of range; the line names the key in full.
        """

    @property
    def folder_name(self) -> str:
        """How the member shows in the name of a run's folder."""
        return self.name


def one_of(key: str, value: Any, allowed: tuple) -> None:
    """Refuse a value that is none of ``allowed``.

    :raises ValueError: with ``key`` and the allowed values in its line.
    """
    if value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(map(str, allowed))} (got {value!r})")


def in_range(key: str, value: float, low: float, high: float = math.inf, *, open_low: bool = False) -> None:
    """Refuse a number that is not finite or not between ``low`` (itself allowed unless ``open_low``) and ``high``.

    :raises ValueError: with ``key`` and the bounds in its line.
    """
    if not math.isfinite(value) or value > high or value < low or (open_low and value == low):
        bounds = f"{'greater than' if open_low else 'at least'} {low}"
        bounds += f" and at most {high}" if high < math.inf else ""
        raise ValueError(f"{key} must be {bounds} (got {value})")

"""Measurements that watch a training run without disturbing it."""

from icsbench.probes.guard import undisturbed
from icsbench.probes.shift import Distribution, ShiftProbe, shift_between

__all__ = ["Distribution", "ShiftProbe", "shift_between", "undisturbed"]

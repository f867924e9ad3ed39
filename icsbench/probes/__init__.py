"""Measurements on a network that leave it, and a training run around it, undisturbed."""

from icsbench.probes.gradients import NotFinite
from icsbench.probes.guard import State, undisturbed
from icsbench.probes.ics import ICS, internal_covariate_shift
from icsbench.probes.landscape import Landscape, loss_landscape
from icsbench.probes.shift import Distribution, ShiftProbe, shift_between
from icsbench.probes.update import UpdateProbe

__all__ = [
    "ICS",
    "Distribution",
    "Landscape",
    "NotFinite",
    "ShiftProbe",
    "State",
    "UpdateProbe",
    "internal_covariate_shift",
    "loss_landscape",
    "shift_between",
    "undisturbed",
]

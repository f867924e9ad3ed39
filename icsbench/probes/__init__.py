"""Measurements on a network that leave it, and a training run around it, undisturbed."""

from icsbench.probes.batch_sharpness import BatchSharpnessProbe, Curvature, curvature_along_gradient
from icsbench.probes.contract import NetworkWatcher, Probe, Reading, Update, UpdateWatcher, start_probes
from icsbench.probes.gradients import NotFinite
from icsbench.probes.guard import State, undisturbed
from icsbench.probes.ics import ICS, internal_covariate_shift
from icsbench.probes.landscape import Landscape, loss_landscape
from icsbench.probes.least_squares import LeastSquares, LeastSquaresProbe, least_squares_fit, least_squares_shares
from icsbench.probes.shift import Distribution, ShiftProbe, shift_between
from icsbench.probes.update import UpdateProbe

__all__ = [
    "ICS",
    "BatchSharpnessProbe",
    "Curvature",
    "Distribution",
    "Landscape",
    "LeastSquares",
    "LeastSquaresProbe",
    "NetworkWatcher",
    "NotFinite",
    "Probe",
    "Reading",
    "ShiftProbe",
    "State",
    "Update",
    "UpdateProbe",
    "UpdateWatcher",
    "curvature_along_gradient",
    "internal_covariate_shift",
    "least_squares_fit",
    "least_squares_shares",
    "loss_landscape",
    "shift_between",
    "start_probes",
    "undisturbed",
]

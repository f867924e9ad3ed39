"""Norms: the contract of a regime, and layers that fit networks of anybody's."""

from icsbench.norms.contract import (
    Branch,
    Look,
    Norm,
    NormLayer,
    Place,
    batch_norms,
    noise_modules,
    start_from_data,
)
from icsbench.norms.lp import LpNorm1d, LpNorm2d
from icsbench.norms.noise import ActivationNoise
from icsbench.norms.noisy import NoisyBatchNorm1d, NoisyBatchNorm2d

__all__ = [
    "ActivationNoise",
    "Branch",
    "Look",
    "LpNorm1d",
    "LpNorm2d",
    "NoisyBatchNorm1d",
    "NoisyBatchNorm2d",
    "Norm",
    "NormLayer",
    "Place",
    "batch_norms",
    "noise_modules",
    "start_from_data",
]

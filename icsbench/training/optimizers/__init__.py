"""Optimizers, and wrappers around them."""

from icsbench.training.optimizers.contract import Optimizer, Wrapper, build_optimizer

__all__ = ["Optimizer", "Wrapper", "build_optimizer"]

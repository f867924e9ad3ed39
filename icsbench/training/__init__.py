"""Training one run: the loop, its evaluation protocols, and its checkpoints."""

from icsbench.training.evaluation import Protocol, evaluate, protocols_of
from icsbench.training.loop import run
from icsbench.training.task import build_model

__all__ = ["Protocol", "build_model", "evaluate", "protocols_of", "run"]

"""Training one run: the trainer, its evaluation protocols, and its checkpoints."""

from icsbench.training.evaluation import Protocol, accuracies, protocols_of
from icsbench.training.loop import run
from icsbench.training.task import build_model

__all__ = ["Protocol", "accuracies", "build_model", "protocols_of", "run"]

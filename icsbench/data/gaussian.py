"""The regression problem of the deep linear network (Santurkar et al. 2018)."""

import torch
from torch import Tensor

from icsbench.data.batches import generator

SAMPLES = 1000
FEATURES = 10


def gaussian_problem(seed: int, samples: int = SAMPLES, features: int = FEATURES) -> tuple[Tensor, Tensor]:
    """Return inputs ``x_i ~ Normal(0, I)`` and targets ``A x_i``, both float64 ``(samples, features)`` on the CPU.

    The entries of the square matrix ``A`` are independent ``Normal(0, 1)``. Inputs and ``A`` come from the streams
    "gaussian/inputs" and "gaussian/matrix" of ``seed``: each seed has a problem of its own, whatever the regime, and
    the global random state is not moved. Santurkar et al. (2018), appendix A: 1,000 samples of ten
    features, all of them in every batch.
    """

    def normal(name: str, rows: int) -> Tensor:
        return torch.randn(rows, features, dtype=torch.float64, generator=generator(seed, "gaussian", name))

    inputs = normal("inputs", samples)
    return inputs, inputs @ normal("matrix", features).T


class FullBatch:
    """The batches of full-batch gradient descent: the whole of ``inputs`` and ``targets``, on ``device``, every step.

    Unlike those of ``Batches``, they are the same tensors in every step, and not to be written to.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, device: torch.device | str) -> None:
        self._batch = inputs.to(device), targets.to(device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, on the device; ``step`` does not matter."""
        return self._batch

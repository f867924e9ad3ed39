"""The minima of the risks of single shuffle, reshuffling and the full batch, in closed form, for the square.

Of features z of m batches, with ``M = w Gamma``, the risk ``sum ||y - M z||^2`` is least at
``M* = (sum y z') (sum z z')^-1``, sums over the samples of all batches (Wu et al. 2023).
"""

from itertools import combinations

import torch
from torch import Tensor

from icsbench.errors import IcsbenchError
from icsbench.random_networks import batch_norm


def features(x: Tensor, batches: Tensor, norm: str) -> Tensor:
    """What the model sees of each sample in its batch, ``(problems, m, B, d)``.

    :param x: ``(problems, n, d)``.
    :param batches: numbers of samples ``(problems, m, B)``.
    :param norm: ``bn`` without eps, ``none``.
    """
    chosen = x[torch.arange(len(x))[:, None, None], batches]
    if norm == "none":
        return chosen
    return batch_norm(chosen.flatten(0, 1)).view(chosen.shape)


def optimum(x: Tensor, y: Tensor, batches: Tensor, norm: str) -> Tensor:
    """M* of these batches, ``(problems, d)``; y is ``(problems, n)``.

    :raises IcsbenchError: there is more than one, as behind BN with batches of two, which makes all features 1 or -1.
    """
    z = features(x, batches, norm).flatten(1, 2)
    targets = y.gather(1, batches.flatten(1))
    gram = z.mT @ z
    eigenvalues = torch.linalg.eigvalsh(gram)
    if (eigenvalues[:, 0] <= torch.finfo(z.dtype).eps * z.shape[-1] * eigenvalues[:, -1]).any():
        raise IcsbenchError(
            f"lab shuffling: the batches of a random problem leave its minimum open ({norm}): choose fewer lab.inputs, "
            "more lab.samples or a larger lab.batch"
        )
    return torch.linalg.solve(gram, (z.mT @ targets[..., None])[..., 0])


def every_batch(samples: int, batch: int) -> Tensor:
    """All batches of B out of n samples, ``(1, C(n, B), B)``: those of an epoch of reshuffling, equally likely."""
    return torch.tensor([[*combinations(range(samples), batch)]])

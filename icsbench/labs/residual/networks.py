"""The two variances and the gradients of random networks, block by block."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from icsbench.errors import IcsbenchError
from icsbench.labs.residual.tensors import run_block
from icsbench.random_networks import gaussian
from icsbench.theory.residual import Block


class Profile(NamedTuple):
    """Logarithms of what comes into each block, ``(blocks, networks)`` in float64.

    ``gradient``: of its squared norm, over that at the output.
    """

    second_moment: Tensor
    batch_variance: Tensor
    branch_batch_variance: Tensor
    gradient: Tensor

    def columns(self, *, skip: bool) -> dict[str, Tensor]:
        """What the rows of the lab hold; the ratio of branch to skip only where there is one."""
        found = {"second_moment": self.second_moment.exp(), "batch_variance": self.batch_variance.exp()}
        if skip:
            found["branch_ratio"] = (self.branch_batch_variance - self.batch_variance).exp()
        return found | {"log_gradient": self.gradient}


def profile(x: Tensor, weights: Tensor, block: Block, top: Tensor, at: Sequence[int] | None = None) -> Profile:
    """The profile of networks of equal blocks, at the blocks ``at``, counted from 0 (None: at all).

    What a network without BN gives is proportional to the length of its input: there the signal is brought to a mean
    square of 1 before every block and the factor kept as a logarithm, so that nothing overflows at any depth.

    :param x: inputs ``(networks, batch, width)``; ``weights``: ``(blocks, networks, width, width)``.
    :param top: the gradient at the output, shaped like ``x``.
    :raises IcsbenchError: a number is not finite.
    """
    inputs, branches, lengths = [], [], []
    length = torch.zeros(x.shape[0], dtype=torch.float64)
    x = x.detach().requires_grad_()
    wanted = set(range(len(weights)) if at is None else at)
    for number, weight in enumerate(weights):
        if not block.norm:
            factor = x.detach().square().mean((1, 2)).sqrt()
            x, length = x / factor[:, None, None], length + factor.double().log()
        before = x
        x, branch = run_block(before, weight, block)
        if number in wanted:
            inputs.append(before)
            lengths.append(length)
            branches.append(_variance(branch.detach()))
    gradients = torch.autograd.grad(x, inputs, top)
    doubled = 2 * torch.stack(lengths)
    signals = [one.detach() for one in inputs]
    over = top.double().square().sum((1, 2)).log() - 2 * length
    found = Profile(
        _log([one.double().square().mean((1, 2)) for one in signals]) + doubled,
        _log([_variance(one) for one in signals]) + doubled,
        _log(branches) + doubled,
        _log([one.double().square().sum((1, 2)) for one in gradients]) - doubled - over,
    )
    if not all(one.isfinite().all() for one in (found.second_moment, found.batch_variance, found.gradient)):
        raise IcsbenchError(
            f"a network of {len(weights)} blocks has a variance or gradient of 0 or none; lower lab.depth"
        )
    return found


def top_gradients(streams: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """A random gradient for each sample of each network, from the network's stream."""
    return torch.stack([gaussian(one, *like.shape[1:], dtype=like.dtype) for one in streams])


def _variance(x: Tensor) -> Tensor:
    """The biased variance over the batch, averaged over features, (networks,)."""
    return x.double().var(1, unbiased=False).mean(1)


def _log(values: list[Tensor]) -> Tensor:
    return torch.stack(values).log()

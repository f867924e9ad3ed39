"""Signals and gradients of random residual and plain ReLU networks of infinite width, block by block.

One block maps x to  ``scale (skip x + gain W relu(norm(x)))``  with W ~ N(0, 2/N) for N units, and the input has
independent N(0, 1) entries. Of x, three numbers follow a recursion: the second moment q (mean of x^2), the product of
two samples p (mean of x x'), and from them the batch variance  ``(1 - 1/B) (q - p)``,  which BN divides by (biased,
over a batch of B). The gradient of a random function at the output follows one backwards.

De & Smith 2020, sections 2 and 3, give the second moments (2^l without BN, l + 1 with it); Balduzzi et al. 2017 the
correlations of gradients. The finite batch, the batch variance and the products of correlations are derived here.
"""

import math
from typing import NamedTuple

import numpy as np

from icsbench.theory.activations import Floats
from icsbench.theory.arc_cosine import gate_overlap, relu_cosine


class Block(NamedTuple):
    """``scale (skip x + gain W relu(norm(x)))``.

    ``fixup``: the factor on the first layer of a branch of two, the last of which is 0; 0 where the branch has one.
    """

    skip: float = 1
    gain: float = 1
    norm: bool = False
    scale: float = 1
    fixup: float = 0


def blocks(depth: int, gain: float = 0) -> dict[str, Block]:
    """The block of each kind of network of ``depth`` blocks; ``gain`` is that of SkipInit.

    ``residual_half`` divides the sum by sqrt(2), ``residual_depth`` the branch by sqrt(depth): the largest gain of
    SkipInit. ``residual_fixup`` has a branch of two layers, the last of which starts at 0.
    """
    return {
        "plain": Block(skip=0),
        "plain_bn": Block(skip=0, norm=True),
        "residual": Block(),
        "residual_bn": Block(norm=True),
        "residual_skipinit": Block(gain=gain),
        "residual_fixup": Block(gain=0, fixup=fixup_scale(depth)),
        "residual_half": Block(scale=1 / math.sqrt(2)),
        "residual_depth": Block(gain=1 / math.sqrt(depth)),
    }


def fixup_scale(depth: int, layers: int = 2) -> float:
    """``L^(-1 / (2 m - 2))``: Fixup's factor on all but the last of the m layers of each of L branches (Zhang 2019).

    :raises ValueError: a branch has fewer than two layers, or there is no branch.
    """
    if layers < 2 or depth < 1:
        raise ValueError(f"Fixup needs a branch of two layers or more (got {depth} branches of {layers})")
    return depth ** (-1 / (2 * layers - 2))


class Signals(NamedTuple):
    """What comes into each block, and out of the last: arrays of shape (depth + 1,).

    ``branch_*`` is what the block adds to the skip. ``correlation`` is that of two samples.
    """

    second_moment: Floats
    batch_variance: Floats
    correlation: Floats
    branch_second_moment: Floats
    branch_batch_variance: Floats


def signals(block: Block, depth: int, batch: float = math.inf) -> Signals:
    """The signals of a network of ``depth`` equal blocks; ``batch`` may be infinite.

    :raises ValueError: fewer than 1 block or 2 samples.
    """
    _check(depth, batch)
    between = -1 / (batch - 1)  # the correlation of two samples of a normalized feature
    q, p = 1.0, 0.0
    found = []
    for _ in range(depth + 1):
        branch = block.gain**2 * (1.0 if block.norm else q)
        product = branch * float(relu_cosine(between if block.norm else p / q))
        found.append((q, (1 - 1 / batch) * (q - p), p / q, branch, (1 - 1 / batch) * (branch - product)))
        q, p = (block.scale**2 * (block.skip * old + new) for old, new in ((q, branch), (p, product)))
    return Signals(*np.array(found).T)


def log_gradient(block: Block, depth: int, batch: float = math.inf) -> Floats:
    """``ln(||g_l||^2 / ||g_L||^2)`` at the input of each block and at the output, for random gradients there.

    The gradients of the samples at the output are independent. For an infinite batch it is the sum over the blocks
    from l on of ``ln(scale^2 (skip + gain^2 / sigma^2))``, where sigma^2 is the batch variance with BN and 1 without;
    the growth of a plain network with BN is Yang et al.'s lambda(B), Table 1, for any batch. Shape (depth + 1,), the
    last is 0.

    :raises ValueError: fewer than 1 block or 2 samples, or with BN fewer than 4.
    """
    found, ratio = [0.0], 0.0
    for place in _from_the_top(block, depth, batch):
        factor, ratio = _back(block, place, ratio, batch)
        found.append(found[-1] + math.log(factor))
    return np.array(found[::-1])


def gradient_correlation(block: Block, depth: int, batch: float = math.inf) -> Floats:
    """Correlation between two samples of the gradient at the input, by the number of blocks above it, (depth,).

    One common gradient is put at the output. BN's statistics are held constant in the backward pass. Each block
    multiplies by ``(skip + gain^2 kappa / sigma^2) / (skip + gain^2 / sigma^2)``, with the gate overlap kappa of its
    correlation. Special cases for an infinite batch:

    - plain: ``prod kappa(c_l)``, which tends to L^-3, as c_l tends to 1;
    - plain with BN: 2^-L;
    - residual: 3/4 for the first block, and more for each later one;
    - residual with BN: ``prod (s + 1/2) / (s + 1)`` with s = 1 + (1 - 1/pi) l.

    :raises ValueError: as :func:`log_gradient`.
    """
    gates, divided_by = np.array(_from_the_top(block, depth, batch)[::-1]).T
    passed = block.gain**2 / divided_by
    return np.cumprod((block.skip + passed * gate_overlap(gates)) / (block.skip + passed))


def correlation_through_statistics(block: Block, depth: int, batch: float = math.inf) -> Floats:
    """The same where the backward pass goes through the statistics of BN, (depth,).

    The branch's gradients then have the sum 0 over the batch: in a plain network their correlation is  -1 / (B - 1)
    at any depth, and only a skip lets what samples share pass.

    :raises ValueError: as :func:`log_gradient`.
    """
    places = _from_the_top(block, depth, batch)[::-1]
    found = []
    for blocks_above in range(1, depth + 1):
        ratio = 1.0
        for place in places[:blocks_above][::-1]:
            _, ratio = _back(block, place, ratio, batch)
        found.append(ratio)
    return np.array(found)


class _Place(NamedTuple):
    """Of one block: the correlation of two samples at its gates, and what its norm divides a square by."""

    gates: float
    divided_by: float


def _from_the_top(block: Block, depth: int, batch: float) -> list[_Place]:
    """The blocks, the last first.

    Each feature has a batch variance of its own, sigma^2 times chi-squared of B - 1 degrees of freedom over B - 1, so
    that the mean of its inverse is  (B - 1) / (B - 3) / sigma^2.
    """
    expected = signals(block, depth, batch)
    if not block.norm:
        return [_Place(gates, 1.0) for gates in expected.correlation[-2::-1]]
    if batch < 4:
        raise ValueError(f"gradients through BN need a batch of 4 (got {batch}): with fewer they have no mean")
    lost = 1 + 2 / (batch - 3)
    return [_Place(-1 / (batch - 1), variance / lost) for variance in expected.batch_variance[-2::-1]]


def _back(block: Block, place: _Place, ratio: float, batch: float) -> tuple[float, float]:
    """Through one block: the factor on the mean squared gradient, and the correlation of two samples behind it.

    ``ratio``: the correlation before it. BN takes the mean over the batch and the direction of its own output from
    the gradient b of its input: with the mean squares 1 and products kappa ratio of b, what is left is
    ``(1 - 1/B) (1 - (kappa + J) ratio) - 1/B``.
    """
    own, shared = 1.0, float(gate_overlap(place.gates)) * ratio
    if block.norm:
        own = (1 - 1 / batch) * (1 - shared - float(relu_cosine(place.gates)) * ratio) - 1 / batch
        shared = -own / (batch - 1)
    passed = block.gain**2 / place.divided_by
    factor = block.skip + passed * own
    return block.scale**2 * factor, (block.skip * ratio + passed * shared) / factor


def _check(depth: int, batch: float) -> None:
    if depth < 1 or batch < 2:
        raise ValueError(f"theory needs a block and two samples (got {depth} blocks, a batch of {batch})")

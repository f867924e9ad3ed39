"""How many directions the signals of a batch take: measures of matrices ``(..., n, d)``, one sample a row.

Each is computed for every matrix in front of the last two dimensions. With H, the papers' matrix of d rows, a matrix
here is x = H'. None of them changes with the scale of x; s_i are its singular values, and what depends on them alone
takes the :class:`Spectrum`, so that they are found once.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Spectrum(NamedTuple):
    """Singular values, the largest first, ``(..., min(n, d))``.

    ``floor``: max(n, d) eps max s_i, what rounding leaves of a singular value 0, as in numpy's ``matrix_rank``,
    ``(..., 1)``.
    """

    values: Tensor
    floor: Tensor


def spectrum(x: Tensor) -> Spectrum:
    """The singular values of the matrices x."""
    values = torch.linalg.svdvals(x)
    return Spectrum(values, max(x.shape[-2:]) * torch.finfo(x.dtype).eps * values[..., :1])


def soft_rank(x: Tensor) -> Tensor:
    """``r = tr(M)^2 / ||M||_F^2`` with ``M = H H' / n``: between 1 and the rank (Daneshmand et al. 2020)."""
    gram = _small_gram(x)
    return _trace(gram).square() / gram.square().sum((-2, -1))


def stable_rank(of: Spectrum) -> Tensor:
    """``||x||_F^2 / max s_i^2``: between 1 and the rank."""
    squares = of.values.square()
    return squares.sum(-1) / squares[..., 0]


def numerical_rank(of: Spectrum) -> Tensor:
    """How many singular values are above the floor."""
    return (of.values > of.floor).sum(-1)


def smallest_share(of: Spectrum) -> Tensor:
    """``min s_i^2 / ||x||_F^2`` over the min(n, d) singular values: at most 1 / min(n, d)."""
    squares = of.values.square()
    return squares[..., -1] / squares.sum(-1)


def orthogonality_gap(x: Tensor) -> Tensor:
    """``V(H) = || H'H / ||H||_F^2 - I / n ||_F`` (Daneshmand et al. 2021, equation 2).

    0 where the n samples are orthogonal and equally long, ``sqrt(1 - 1/n)`` where all are the same. ``V^2 = 1/r - 1/n``
    with the :func:`soft_rank` r.
    """
    gram = x @ x.mT
    return (gram / _trace(gram)[..., None, None] - torch.eye(x.shape[-2], dtype=x.dtype) / x.shape[-2]).norm(
        dim=(-2, -1)
    )


def isometry_gap(of: Spectrum, directions: int | None = None) -> Tensor:
    """``log(mean s_i^2) - mean(log s_i^2)`` (Meterez et al. 2024), at least 0.

    :param directions: over how many of the singular values, the largest; all min(n, d) if None. A batch that was
        centred has one fewer than it has samples.

    A singular value below the floor is not known, and is taken to be the floor: what is returned is then a lower bound
    of the gap. A :func:`numerical_rank` below ``directions`` says where.
    """
    kept = of.values.clamp(min=of.floor)[..., :directions]
    return kept.square().mean(-1).log() - 2 * kept.log().mean(-1)


def _small_gram(x: Tensor) -> Tensor:
    return x @ x.mT if x.shape[-2] <= x.shape[-1] else x.mT @ x


def _trace(square: Tensor) -> Tensor:
    return square.diagonal(dim1=-2, dim2=-1).sum(-1)

"""Methods that minimise the loss of a linear unit, each for many problems at once, by its gradients.

A method yields the weights (n, d) at which it takes a gradient, and that gradient: one evaluation each. The length of
the weights is found by bisection, whose derivatives along one ray are not among the evaluations: on m samples of d
inputs such a derivative costs m operations, as ``z'w`` is known on the ray, and a gradient m d.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from icsbench.theory.activations import Floats
from icsbench.theory.length_direction import Moments, dot, times


class Objective(Protocol):
    """The loss f of the weights of one unit: :class:`icsbench.theory.length_direction.Halfspace` for Gaussian data."""

    @property
    def moments(self) -> Moments:
        """S and u."""
        ...

    @property
    def smoothness(self) -> float:
        """zeta, so that f is zeta L smooth."""
        ...

    @property
    def reach(self) -> float:
        """The largest length, in the norm of S, at which bisection looks, on either side of 0."""
        ...

    def slopes(self, w: Floats) -> tuple[Floats, Floats]:
        """``E phi'`` and ``E phi''``."""
        ...

    def pull(self, w: Floats) -> Floats:
        """The part of the gradient beside a multiple of Sw."""
        ...

    def gradient(self, w: Floats) -> Floats:
        """The gradient of f."""
        ...

    def along(self, direction: Floats) -> Callable[[Floats], Floats]:
        """df/dg along a direction, as a function of the length g."""
        ...


class Evaluation(NamedTuple):
    """Weights, and the gradient of the loss there."""

    weights: Floats
    gradient: Floats


Method = Callable[[Objective, Floats], Iterator[Evaluation]]


def bisected(objective: Objective, direction: Floats, halvings: int = 60) -> Floats:
    """The length of a direction at which f is lowest: the root of df/dg, by halvings of an interval around 0."""
    slope = objective.along(direction)
    low = np.full(direction.shape[:-1], -objective.reach)
    high = -low
    for _ in range(halvings):
        middle = (low + high) / 2
        rising = slope(middle) > 0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    return (low + high) / 2


def gradient_descent(objective: Objective, w: Floats, factor: float | Floats = 1.0) -> Iterator[Evaluation]:
    """Steps of ``factor / (zeta L)`` times the gradient; ``factor`` may be one for each problem, (n, 1)."""
    step = factor * _step(objective)
    while True:
        gradient = objective.gradient(w)
        yield Evaluation(w, gradient)
        w = w - step * gradient


def accelerated(objective: Objective, w: Floats) -> Iterator[Evaluation]:
    """Nesterov's method for convex functions (1983), with the same step: the gradient is taken at

    ``y_k = w_k + (t_{k-1} - 1) / t_k (w_k - w_{k-1})``, ``t_k = (1 + sqrt(1 + 4 t_{k-1}^2)) / 2``, ``t_0 = 1``.
    """
    step, t, ahead = _step(objective), 1.0, w
    while True:
        gradient = objective.gradient(ahead)
        yield Evaluation(ahead, gradient)
        after, following = ahead - step * gradient, (1 + np.sqrt(1 + 4 * t**2)) / 2
        w, ahead, t = after, after + (t - 1) / following * (after - w), following


def gdnp(objective: Objective, w: Floats, *, halvings: int = 60, printed: bool = False) -> Iterator[Evaluation]:
    """Gradient descent in normalized parameterisation (Kohler et al. 2019, Algorithm 1), from ``w / |w|_S``.

    A step of ``s = -|v|_S^3 / (L g h)`` on the direction v, then bisection of the length g. With
    ``h = c1 u'v`` (in general the pull times v), the directions on Gaussian data are those of Theorem 1, whatever the
    loss. ``printed``: h as the algorithm is quoted, ``E phi' u'v - E phi'' (u'v)^2``, which lacks the factor
    ``g / |v|_S`` in its second term.
    """
    moments = objective.moments
    v, g = w, np.ones(w.shape[:-1])
    while True:
        length = moments.length(v)
        weights = (g / length)[..., None] * v
        gradient = objective.gradient(weights)
        yield Evaluation(weights, gradient)
        h = step_divisor(objective, v, weights, printed)
        h = np.where(h == 0, np.inf, h)  # no step, as in the algorithm
        normal = gradient - (dot(v, gradient) / length**2)[..., None] * times(moments.second, v)
        v = v + (length**2 / (moments.largest * h))[..., None] * normal  # v - s df/dv, df/dv = g / |v|_S normal
        g = bisected(objective, v / moments.length(v)[..., None], halvings)


def step_divisor(objective: Objective, v: Floats, weights: Floats, printed: bool = False) -> Floats:
    """The h of :func:`gdnp` for the direction v, at the weights ``g v / |v|_S``."""
    if not printed:
        return dot(objective.pull(weights), v)
    (first, second), along = objective.slopes(weights), dot(objective.moments.mean, v)
    return first * along - second * along**2


def weight_normalized(objective: Objective, w: Floats, *, halvings: int = 60) -> Iterator[Evaluation]:
    """As :func:`gdnp` with I for S in the norm, weight normalization: the control for what the covariance does there.

    No theorem gives a step. It is 1 / (zeta L g^2), one over the smoothness of ``f(g v / |v|)`` on the sphere at the
    best length g; all start at the same weights.
    """
    step, moments = _step(objective), objective.moments
    w = w / moments.length(w)[..., None]
    while True:
        gradient = objective.gradient(w)
        yield Evaluation(w, gradient)
        w = w - step * (gradient - (dot(w, gradient) / dot(w, w))[..., None] * w)
        direction = w / moments.length(w)[..., None]
        w = bisected(objective, direction, halvings)[..., None] * direction


def at_once(objective: Objective, w: Floats) -> Iterator[Evaluation]:
    """Gradient descent on direction and length at once, with one step of 1 / (zeta L), as networks with BN are trained.

    It starts from a direction of length 1 in the norm of S, and g = 1; no length is searched for.
    """
    step, moments = _step(objective), objective.moments
    v, g = w / moments.length(w)[..., None], np.ones(w.shape[:-1])
    while True:
        length = moments.length(v)
        weights = (g / length)[..., None] * v
        gradient = objective.gradient(weights)
        yield Evaluation(weights, gradient)
        along = dot(v, gradient) / length
        normal = gradient - (along / length)[..., None] * times(moments.second, v)
        v, g = v - step * (g / length)[..., None] * normal, g - step[..., 0] * along


def _step(objective: Objective) -> Floats:
    return 1 / (objective.smoothness * objective.moments.largest)[..., None]

"""The methods on random problems: how many gradients each needs, and how fast they shrink."""

import math
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np

from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Row
from icsbench.labs.halfspaces import HalfspacesOptions
from icsbench.labs.halfspaces.descent import (
    Method,
    Objective,
    accelerated,
    at_once,
    gdnp,
    gradient_descent,
    weight_normalized,
)
from icsbench.labs.halfspaces.objectives import Unit, breast_cancer, gaussian_problems, samples
from icsbench.streams import stream_seed
from icsbench.theory.activations import Floats
from icsbench.theory.length_direction import LOSSES, Halfspace

_POINTS_PER_DECADE = 6
_FACTORS = 2.0 ** np.arange(9)


class Problems(NamedTuple):
    """Problems of one kind: what is minimised, from where, and the condition number that they are listed under."""

    name: str
    condition: float
    objective: Objective
    start: Floats


class Way(NamedTuple):
    """What a method did: norms of its gradients (evaluations, n), and where it ended (n, d)."""

    gradients: Floats
    end: Floats
    worst_over_bound: Floats | None = None
    factor: Floats | None = None


def rows(options: HalfspacesOptions, seed: int) -> Iterator[Row]:
    """A row for each problem and method.

    :raises IcsbenchError: a covariance is singular, or real data can be separated.
    """
    try:
        for condition in options.conditions:
            yield from _of_halfspaces(options, seed, condition)
        yield from _of_units(options, seed)
        yield from _of_real_data(options, seed)
    except ValueError as error:
        raise IcsbenchError(f"lab halfspaces: {error}") from error


def _stream(seed: int, *name: str | float) -> np.random.Generator:
    return np.random.default_rng(stream_seed(seed, "halfspaces", *map(str, name)))


def _of_halfspaces(options: HalfspacesOptions, seed: int, condition: float) -> Iterator[Row]:
    """The three losses of the same problems from the same start."""
    random = _stream(seed, "gaussian", condition)
    moments = gaussian_problems(random, options.problems, options.inputs, condition)
    start = random.standard_normal((options.problems, options.inputs))
    for name, loss in LOSSES.items():
        objective = Halfspace(moments, loss, options.ridge if name == "sigmoid" else 0.0)
        of = Problems(name, condition, objective, start)
        ways = _ways(options, of)
        if name == "softplus":
            most = max(len(way.gradients) for way in ways.values())
            printed = partial(gdnp, halvings=options.halvings, printed=True)
            ways["gdnp_printed"] = _follow(of, printed, options.tolerance, most)
        yield from _described(options, of, ways)


def _of_units(options: HalfspacesOptions, seed: int) -> Iterator[Row]:
    """Each of two tanh units in its turn; for all methods the first then stands where gdnp left it."""
    random = _stream(seed, "units")
    moments = gaussian_problems(random, options.problems, options.inputs, options.unit_condition)
    start, other = random.standard_normal((2, options.problems, options.inputs))
    other /= moments.length(other)[:, None]
    for name in ("first", "second"):
        of = Problems(name, options.unit_condition, Unit(moments, other), start)
        ways = _ways(options, of)
        yield from _described(options, of, ways)
        start, other = other, ways["gdnp"].end


def _of_real_data(options: HalfspacesOptions, seed: int) -> Iterator[Row]:
    random = _stream(seed, "real")
    objective = samples(*breast_cancer(random, options.problems, options.components, options.share))
    start = random.standard_normal((options.problems, options.components))
    condition = float(np.median(objective.moments.largest / objective.moments.smallest))
    of = Problems("breast_cancer", condition, objective, start)
    yield from _described(options, of, _ways(options, of))


def _ways(options: HalfspacesOptions, of: Problems) -> dict[str, Way]:
    methods: dict[str, Method] = {
        "gd": gradient_descent,
        "agd": accelerated,
        "gdnp": partial(gdnp, halvings=options.halvings),
        "weight_norm": partial(weight_normalized, halvings=options.halvings),
        "bn": at_once,
    }
    in_theory = "gdnp" if isinstance(of.objective, Halfspace) else ""
    ways = {
        name: _follow(of, method, options.tolerance, options.evaluations, bounded=name == in_theory)
        for name, method in methods.items()
    }
    return ways | {"gd_best": with_best_step(of, options.tolerance, len(ways["gd"].gradients))}


def with_best_step(of: Problems, tolerance: float, most: int) -> Way:
    """Gradient descent with the step, of some factors times the safe one, that is first at the tolerance.

    One that ends beyond the reach of a best length is at no minimum: it jumped to where the loss is flat.
    """
    fewest, best = np.full(len(of.start), np.inf), np.ones(len(of.start))
    for factor in _FACTORS:
        enough = min(most, fewest.max() + 1)  # more cannot be the fewest of any problem
        way = _follow(of, partial(gradient_descent, factor=factor), tolerance, int(enough))
        below = (way.gradients < tolerance) & (of.objective.moments.length(way.end) <= of.objective.reach)
        needed = np.where(below.any(0), below.argmax(0), np.inf)
        best, fewest = np.where(needed < fewest, factor, best), np.minimum(needed, fewest)
    way = _follow(of, partial(gradient_descent, factor=best[:, None]), tolerance, most)
    return way._replace(factor=best)


@np.errstate(over="ignore", invalid="ignore")  # a method that diverges is not first
def _follow(of: Problems, method: Method, tolerance: float, most: int, *, bounded: bool = False) -> Way:
    """Until the slowest problem is at the tolerance. All methods start at the start divided by its length.

    ``bounded``: whether its gaps are set beside the bound of Theorem 1.
    """
    moments = of.objective.moments
    start = of.start / moments.length(of.start)[:, None]
    lowest = moments.lowest
    first_gap = moments.rayleigh(start) - lowest
    gradients, worst = [], np.zeros(len(start))
    reached, end = np.zeros(len(start), bool), start
    for step, (weights, gradient) in enumerate(islice(method(of.objective, start), most)):
        gradients.append(np.linalg.norm(gradient, axis=-1))
        if bounded and step:
            bound = moments.rate ** (2 * step)
            gap = (moments.rayleigh(weights) - lowest) / first_gap
            worst = np.where(bound > 1e-9, np.maximum(worst, gap / np.maximum(bound, 1e-9)), worst)
        reached, end = reached | (gradients[-1] < tolerance), weights
        if reached.all():
            break
    return Way(np.array(gradients), end, worst if bounded else None)


def _described(options: HalfspacesOptions, of: Problems, ways: dict[str, Way]) -> Iterator[Row]:
    moments = of.objective.moments
    for method, way in ways.items():
        at = recorded(len(way.gradients))
        for problem, norms in enumerate(way.gradients.T):
            found = summary(norms, options.tolerance)
            row: Row = {"step": found.pop("evaluations"), "problem": problem, "objective": of.name}
            row |= {"condition": of.condition, "method": method, **found}
            row["theory_rate"] = float(moments.rate[problem])
            if way.worst_over_bound is not None:
                row["worst_over_bound"] = float(way.worst_over_bound[problem])
            if way.factor is not None:
                row["factor"] = float(way.factor[problem])
            yield row | {"at": at, "gradient": norms[np.array(at) - 1].tolist()}


def recorded(last: int) -> list[int]:
    """The numbers of the gradients that a row lists: equally far apart in logarithms, from the first on."""
    decades = math.log10(last)
    return sorted({round(10 ** (place / _POINTS_PER_DECADE)) for place in range(int(decades * _POINTS_PER_DECADE) + 1)})


def summary(norms: Floats, tolerance: float) -> Row:
    """How one problem went: evaluations, whether the tolerance was reached, and where it was, rate and steadiness.

    Where fewer than six gradients are in the second half of the way, no rate is fitted.
    """
    below = np.flatnonzero(norms < tolerance)
    if not len(below):
        return {"evaluations": len(norms), "reached": False}
    last = int(below[0])
    logs = np.log(norms[: last + 1])
    half = int(np.flatnonzero(logs <= (logs[0] + math.log(tolerance)) / 2)[0])
    row: Row = {"evaluations": last + 1, "reached": True}
    if last - half < 5:
        return row
    middle = (half + last) // 2
    slopes = [float(np.polyfit(np.arange(a, b + 1), logs[a : b + 1], 1)[0]) for a, b in _spans(half, middle, last)]
    return row | {"rate": math.exp(slopes[0]), "steadiness": slopes[2] / slopes[1]}


def _spans(first: int, middle: int, last: int) -> tuple[tuple[int, int], ...]:
    return (first, last), (first, middle), (middle, last)

"""Methods on halfspaces: known numbers, equal paths, gradients of a network's unit, and what is refused."""

import math
from functools import partial
from itertools import islice

import numpy as np
import pytest
from scipy import integrate, special, stats

from icsbench.errors import IcsbenchError
from icsbench.labs.halfspaces import HalfspacesOptions
from icsbench.labs.halfspaces.descent import (
    accelerated,
    at_once,
    bisected,
    gdnp,
    gradient_descent,
    step_divisor,
    weight_normalized,
)
from icsbench.labs.halfspaces.measure import Problems, recorded, rows, summary, with_best_step
from icsbench.labs.halfspaces.objectives import Unit, breast_cancer, gaussian_problems, samples
from icsbench.theory.length_direction import LOSSES, Halfspace, dot, moments

SECOND = np.array([[2, 0.5], [0.5, 1]])
MEAN = np.array([-0.6, 0.3])
START = np.array([1.0, 1.0])
GOLDEN = moments(SECOND, MEAN)
SOFTPLUS = Halfspace(GOLDEN, LOSSES["softplus"])


def along(method, objective, start, count, **options):
    return [*islice(method(objective, start, **options), count)]


def norms(path):
    return np.array([np.linalg.norm(one.gradient, axis=-1) for one in path])


def direction(weights, of):
    return weights / of.length(weights)[..., None]


def test_the_known_path_on_a_halfspace():
    known = [  # g, f, |gradient|, step, h
        (1, 0.7310618320988, 3.077783e-1, 24.167789505065, -0.149978743973),
        (1.5750229883163, 0.5142123822476, 1.762366e-1, 22.823108127342, -1.248081969317),
        (2.1047897620359, 0.4414049218438, 6.784314e-2, 12.061109155022, -1.239273256030),
        (2.1768564005186, 0.4321646179311, 1.350357e-2, 10.553147399154, -1.195530985088),
    ]
    v = START
    for (g, f, size, step, divisor), one in zip(known, along(gdnp, SOFTPLUS, START, 4), strict=True):
        np.testing.assert_allclose(direction(one.weights, GOLDEN), direction(v, GOLDEN), rtol=1e-12)
        assert GOLDEN.length(one.weights) == pytest.approx(g, abs=1e-11)
        assert SOFTPLUS.value(one.weights) == pytest.approx(f, abs=1e-11)
        assert np.linalg.norm(one.gradient) == pytest.approx(size, rel=1e-6)
        h = step_divisor(SOFTPLUS, v, one.weights)
        assert h == pytest.approx(divisor, abs=1e-11)
        assert -(GOLDEN.length(v) ** 3) / (GOLDEN.largest * g * h) == pytest.approx(step, rel=1e-11)
        v = GOLDEN.descend(v)


def test_the_known_end_on_a_halfspace():
    path = along(gdnp, SOFTPLUS, START, 40)
    assert GOLDEN.length(path[-1].weights) == pytest.approx(2.1796062447226827, abs=1e-11)
    assert SOFTPLUS.value(path[-1].weights) == pytest.approx(0.43181538942875763, abs=1e-13)
    ratios = norms(path)[9:11]
    assert ratios[1] / ratios[0] == pytest.approx(0.136313, abs=2e-6)
    best = np.linalg.solve(SECOND, MEAN)
    assert dot(path[-1].weights, SECOND @ best) / (GOLDEN.length(path[-1].weights) * GOLDEN.length(best)) == (
        pytest.approx(-1, abs=1e-14)
    )


def test_the_printed_step_goes_another_way():
    path = along(gdnp, SOFTPLUS, START, 12, printed=True)
    first = np.array([3.34648174052333, -1.34648174052333])
    np.testing.assert_allclose(direction(path[1].weights, GOLDEN), direction(first, GOLDEN), rtol=1e-11)
    assert GOLDEN.length(path[1].weights) == pytest.approx(1.5417916571283, abs=1e-11)
    assert norms(path)[11] / norms(path)[10] == pytest.approx(0.319288, abs=1e-3)
    other = along(gdnp, SOFTPLUS, START, 2)[1].weights
    assert np.abs(direction(path[1].weights, GOLDEN) - direction(other, GOLDEN)).max() > 1e-3


def test_known_gradients_of_gradient_descent():
    start = direction(START, GOLDEN)
    plain = norms(along(gradient_descent, SOFTPLUS, start, 400))
    fast = norms(along(accelerated, SOFTPLUS, start, 400))
    assert plain[[10, 50, 100]].tolist() == pytest.approx([2.966e-2, 5.289e-4, 5.640e-6], rel=2e-4)
    assert fast[[10, 50, 100]].tolist() == pytest.approx([2.801e-3, 7.773e-5, 6.706e-6], rel=2e-4)
    assert plain[399] < 1e-15 and fast[399] == pytest.approx(1.9e-13, rel=0.1)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("seed", "inputs", "condition"), [(1, 6, 5.0), (2, 9, 40.0)])
def test_directions_are_those_of_theorem_1_whatever_the_loss(loss, seed, inputs, condition):
    random = np.random.default_rng(seed)
    of = gaussian_problems(random, 3, inputs, condition)
    w = random.standard_normal((3, inputs))
    objective = Halfspace(of, LOSSES[loss], 0.01 if loss == "sigmoid" else 0.0)
    for one in along(gdnp, objective, w, 40):
        cosines = dot(direction(one.weights, of), (of.second @ direction(w, of)[..., None])[..., 0])
        np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-12)
        w = of.descend(w)


def test_theorem_2_is_an_identity_at_the_best_length():
    """|gradient|^2 in the norm of S^-1 is c1^2 times the gap of the Rayleigh quotient."""
    random = np.random.default_rng(3)
    of = gaussian_problems(random, 4, 7, 10.0)
    objective = Halfspace(of, LOSSES["softplus"])
    for one in along(gdnp, objective, random.standard_normal((4, 7)), 20)[1:]:
        inverse = np.linalg.solve(of.second, one.gradient[..., None])[..., 0]
        c1 = dot(objective.pull(one.weights), of.mean) / dot(of.mean, of.mean)
        gap = of.rayleigh(one.weights) - of.lowest
        np.testing.assert_allclose(dot(one.gradient, inverse), c1**2 * gap, rtol=1e-9, atol=1e-13)


def test_every_method_ends_at_the_best_weights():
    random = np.random.default_rng(4)
    of = gaussian_problems(random, 2, 4, 5.0)
    best = -np.linalg.solve(of.second, of.mean[..., None])[..., 0]
    start = random.standard_normal((2, 4))
    start /= of.length(start)[:, None]
    for method in (gradient_descent, accelerated, gdnp, weight_normalized, at_once):
        end = along(method, Halfspace(of, LOSSES["square"]), start, 500)[-1].weights
        np.testing.assert_allclose(end, best, atol=1e-6)
        end = along(method, Halfspace(of, LOSSES["softplus"]), start, 200)[-1].weights
        cosine = dot(end, (of.second @ best[..., None])[..., 0]) / (of.length(end) * of.length(best))
        np.testing.assert_allclose(cosine, 1, atol=1e-9)


@pytest.mark.parametrize(("condition", "known"), [(5, (60, 62, 39)), (50, (592, 307, 326)), (500, (5378, 1344, 2768))])
def test_medians_of_known_problems(condition, known):
    """Of five others, with a spread of a fifth between problems."""
    random = np.random.default_rng(105)
    of = gaussian_problems(random, 12, 15, condition)
    w = random.standard_normal((12, 15))
    methods = (gradient_descent, accelerated, partial(gdnp, halvings=40))
    for method, expected in zip(methods, known, strict=True):
        path = norms(along(method, Halfspace(of, LOSSES["softplus"]), w / of.length(w)[:, None], 3 * expected // 2))
        assert np.median((path < 1e-6).argmax(0)) == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize(("condition", "known", "bound"), [(5, 0.775, 0.795), (50, 0.9722, 0.9785)])
def test_the_rate_is_that_of_theorem_2_or_a_little_faster(condition, known, bound):
    """Of five others the gradient fell by ``known`` in a step, where the bound is ``bound``."""
    random = np.random.default_rng(106)
    of = gaussian_problems(random, 12, 15, condition)
    objective = Halfspace(of, LOSSES["softplus"])
    path = norms(along(gdnp, objective, random.standard_normal((12, 15)), 12 * condition, halvings=40))
    rates = np.array([summary(one, 1e-6)["rate"] for one in path.T])
    assert (np.log(rates) / np.log(of.rate) > 1).all()
    assert np.log(np.median(of.rate)) == pytest.approx(np.log(bound), rel=0.2)
    assert np.log(np.median(rates)) == pytest.approx(np.log(known), rel=0.3)


@pytest.mark.parametrize("condition", [5.0, 50.0])
def test_random_problems_are_those_that_the_sheet_describes(condition):
    of = gaussian_problems(np.random.default_rng(10), 3, 6, condition)
    covariance = of.second - of.mean[:, :, None] * of.mean[:, None, :]
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance), [np.geomspace(1 / condition, 1, 6)] * 3, rtol=1e-12)
    inverse = np.linalg.solve(covariance, of.mean[..., None])[..., 0]
    np.testing.assert_allclose(dot(of.mean, inverse), 0.25, rtol=1e-12)


def slopes_of(f, at):
    """The gradient of f by difference quotients, f of (n, k) for n problems at once."""
    steps = 1e-5 * np.eye(at.shape[1])
    return np.stack([(f(at + step) - f(at - step)) / 2e-5 for step in steps], 1)


@pytest.mark.parametrize(("seed", "loss"), [(11, "softplus"), (12, "square")])
def test_a_step_on_both_at_once_and_one_of_weight_normalization(seed, loss):
    random = np.random.default_rng(seed)
    of = gaussian_problems(random, 2, 4, 5.0)
    f, w = Halfspace(of, LOSSES[loss]), direction(random.standard_normal((2, 4)), of)
    step = 1 / (f.smoothness * of.largest)[:, None]

    pair = np.concatenate([w, np.ones((2, 1))], 1)
    pair = pair - step * slopes_of(lambda both: f.value(both[:, 4:] * direction(both[:, :4], of)), pair)
    found = along(at_once, f, w, 2)[1].weights
    np.testing.assert_allclose(found, pair[:, 4:] * direction(pair[:, :4], of), atol=1e-9)

    g = np.linalg.norm(w, axis=1, keepdims=True)
    v = w / g
    slope = slopes_of(lambda v: f.value(g * v / np.linalg.norm(v, axis=1, keepdims=True)), v)
    v = direction(v - step / g**2 * slope, of)
    found = along(weight_normalized, f, w, 2)[1].weights
    np.testing.assert_allclose(found, bisected(f, v)[:, None] * v, atol=1e-8)


def test_a_direction_without_a_pull_stays():
    start = np.array([[1.0, 2.0], [1.0, 1.0]])  # u'v = 0, and the known start
    of = moments(np.stack([SECOND] * 2), np.stack([MEAN] * 2))
    with np.errstate(all="raise"):
        path = along(gdnp, Halfspace(of, LOSSES["softplus"]), start, 3)
    for one in path[1:]:
        np.testing.assert_allclose(one.weights[0, 1], 2 * one.weights[0, 0], atol=1e-12)
    np.testing.assert_allclose(path[2].weights[1], along(gdnp, SOFTPLUS, START, 3)[2].weights, rtol=1e-12)


@pytest.mark.parametrize(("seed", "inputs", "length"), [(13, 3, 0.0), (14, 5, 0.7)])
def test_a_unit_ends_along_the_one_direction_where_the_other_is_along_it(seed, inputs, length):
    """``S^-1 u``, the only direction along which a unit's gradient can vanish."""
    random = np.random.default_rng(seed)
    of = gaussian_problems(random, 2, inputs, 5.0)
    best = direction(np.linalg.solve(of.second, of.mean[..., None])[..., 0], of)
    unit = Unit(of, -length * best)
    end = along(gdnp, unit, direction(random.standard_normal((2, inputs)), of), 120)[-1].weights
    assert (np.linalg.norm(unit.gradient(end), axis=1) < 1e-8).all()
    cosines = dot(direction(end, of), (of.second @ best[..., None])[..., 0])
    np.testing.assert_allclose(cosines, -1, atol=1e-14)


@pytest.mark.parametrize("seed", [5, 6])
def test_the_gradient_of_a_unit_is_that_of_the_whole_network(seed):
    random = np.random.default_rng(seed)
    of = gaussian_problems(random, 1, 3, 5.0)
    w, other = random.standard_normal((2, 1, 3))
    unit = Unit(of, other)
    root = np.linalg.cholesky(of.second[0] - np.outer(of.mean, of.mean))
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    grid = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1).reshape(-1, 3)
    shares = np.prod(np.stack(np.meshgrid(weights, weights, weights, indexing="ij"), -1), -1).ravel()
    z = of.mean + grid @ root.T
    p, r = np.tanh(z @ w[0]), np.tanh(z @ other[0])
    slope = LOSSES["softplus"].first(p + r) * (1 - p**2) * shares / shares.sum()
    np.testing.assert_allclose(unit.gradient(w)[0], slope @ z, atol=1e-5)
    np.testing.assert_allclose(unit.along(w)(np.ones(1)), dot(unit.gradient(w), w), atol=1e-7)


@pytest.mark.parametrize("length", [0.3, 1.0, 3.0, 6.0])
def test_long_weights_of_a_unit_are_integrated_as_well(length):
    """The slope along the weights, by quadrature of its own, and the gradient by Stein's lemma are one function."""
    random = np.random.default_rng(8)
    of = gaussian_problems(random, 2, 15, 5.0)
    w, other = (direction(random.standard_normal((2, 15)), of) for _ in range(2))
    unit = Unit(of, 2 * other)
    slope = unit.along(w)(np.full(2, length))
    np.testing.assert_allclose(dot(unit.gradient(length * w), w), slope, rtol=0, atol=1e-9)
    mean, deviation = dot(of.mean, w)[0], math.sqrt(1 - dot(of.mean, w)[0] ** 2)
    alone = Unit(of, 0 * other).along(w)(np.full(2, length))[0]
    expected, _ = integrate.quad(
        lambda t: (
            special.expit(math.tanh(length * t)) * t / math.cosh(length * t) ** 2 * stats.norm.pdf(t, mean, deviation)
        ),
        -9,
        9,
        points=[0.0],
        epsabs=1e-13,
    )
    assert alone == pytest.approx(expected, abs=1e-10)


def test_the_length_is_where_the_slope_is_0():
    length = bisected(SOFTPLUS, direction(START, GOLDEN))
    assert SOFTPLUS.along(direction(START, GOLDEN))(length) == pytest.approx(0, abs=1e-12)


def test_known_numbers_of_the_real_data():
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    signs = -(2.0 * y - 1)[:, None]
    centred = x - x.mean(0)
    for inputs, condition in ((centred, 6.3e11), (centred / x.std(0), 9.98e4)):
        z = signs * inputs
        of = moments(z.T @ z / len(z), z.mean(0))
        assert of.largest / of.smallest == pytest.approx(condition, rel=5e-3)
        assert -of.lowest == pytest.approx(0.7240401037873, abs=1e-9)
    assert (of.smallest, of.largest) == (pytest.approx(1.3304e-4, rel=1e-4), pytest.approx(13.2816, rel=1e-5))
    inputs, classes = breast_cancer(np.random.default_rng(0), 2, 8, 1.0)
    assert inputs.shape == (2, 569, 8) and set(classes.ravel()) == {-1.0, 1.0}
    objective = samples(inputs, classes)
    assert objective.moments.largest[0] / objective.moments.smallest[0] == pytest.approx(27.866, rel=1e-3)


def test_the_gradient_on_samples_is_that_of_each():
    random = np.random.default_rng(7)
    x, y = random.standard_normal((2, 40, 3)), random.choice([-1.0, 1.0], (2, 40))
    objective, w = samples(x, y), random.standard_normal((2, 3))
    for problem in range(2):
        each = [-c * q / (1 + np.exp(c * q @ w[problem])) for q, c in zip(x[problem], y[problem], strict=True)]
        np.testing.assert_allclose(objective.gradient(w)[problem], np.mean(each, 0), rtol=1e-12)
    np.testing.assert_allclose(objective.along(w)(np.ones(2)), dot(objective.gradient(w), w), rtol=1e-12)


def test_separable_samples_are_refused():
    x = np.random.default_rng(8).standard_normal((1, 20, 3))
    with pytest.raises(ValueError, match="20 samples of 3 inputs can be separated without an error"):
        samples(x, np.sign(x[..., 0]))


def test_a_known_decay_is_summarised():
    found = summary(0.5 ** np.arange(40.0), 1e-6)
    assert found == {
        "evaluations": 21,
        "reached": True,
        "rate": pytest.approx(0.5),
        "steadiness": pytest.approx(1),
    }
    assert summary(np.full(7, 1.0), 1e-6) == {"evaluations": 7, "reached": False}
    assert summary(0.01 ** np.arange(6.0), 1e-6) == {"evaluations": 5, "reached": True}
    assert recorded(1) == [1] and recorded(100)[-1] == 100 and recorded(99)[-1] == 68


def small(**options):
    sizes = {"conditions": [5.0], "problems": 2, "inputs": 4, "evaluations": 60, "tolerance": 1e-3}
    return HalfspacesOptions("halfspaces", **(sizes | options))


def test_rows():
    found = [*rows(small(), 100)]
    methods = ["gd", "agd", "gdnp", "weight_norm", "bn", "gd_best"]
    assert len(found) == 2 * (6 * len(methods) + 1)
    assert found[:3] == [*islice(rows(small(), 100), 3)]
    for row in found:
        assert len(row["at"]) == len(row["gradient"]) and 0 < row["theory_rate"] < 1
        assert row["step"] <= 60 and (row["reached"] or "rate" not in row)
        if row["method"] == "gdnp":
            assert row["objective"] in ("first", "second", "breast_cancer") or 0 < row["worst_over_bound"] <= 1 + 1e-9
    by = {(row["objective"], row["method"], row["problem"]): row["step"] for row in found}
    assert all(by[objective, "gd_best", 0] <= by[objective, "gd", 0] for objective in ("square", "sigmoid", "first"))


def test_the_best_step_does_not_jump_to_where_the_loss_is_flat():
    random = np.random.default_rng(9)
    of = gaussian_problems(random, 6, 15, 5.0)
    start, other = random.standard_normal((2, 6, 15))
    unit = Unit(of, direction(other, of))
    far = along(gradient_descent, unit, direction(start, of), 20, factor=256.0)[-1]
    flat = (np.linalg.norm(far.gradient, axis=-1) < 1e-3) & (of.length(far.weights) > unit.reach)
    assert flat.any()
    way = with_best_step(Problems("first", 5.0, unit, start), 1e-3, 200)
    assert (of.length(way.end) <= unit.reach).all() and (way.factor[flat] < 256).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"inputs": 0}, "lab.inputs must be at least 2"),
        ({"conditions": []}, "the number of lab.conditions must be at least 1"),
        ({"conditions": [0.5]}, "lab.conditions must be at least 1"),
        ({"problems": 0}, "lab.problems must be at least 1"),
        ({"ridge": 0.0}, "the sigmoid loss has no minimum"),
        ({"ridge": -1.0}, "lab.ridge must be at least 0"),
        ({"components": 31}, "lab.components must be at least 2 and at most 30"),
        ({"share": 0.0}, "lab.share must be at least 0.1 and at most 1"),
        ({"tolerance": 0.1}, "lab.tolerance must be"),
        ({"evaluations": 1}, "lab.evaluations must be at least 10"),
        ({"halvings": 5}, "lab.halvings must be at least 10"),
    ],
)
def test_options_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        HalfspacesOptions("halfspaces", **wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"conditions": [1e17]}, "lab halfspaces: the covariance of the inputs is singular to rounding"),
        ({"components": 30, "share": 0.3}, "samples of 30 inputs can be separated without an error"),
    ],
)
def test_problems_without_an_answer_are_one_line(wrong, message):
    with pytest.raises(IcsbenchError, match=message):
        [*rows(small(evaluations=10, tolerance=0.01, **wrong), 100)]

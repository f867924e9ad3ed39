"""The Rayleigh quotient and halfspaces: known numbers, identities, and quadrature against another rule."""

import numpy as np
import pytest

from icsbench.theory.length_direction import LOSSES, Halfspace, dot, moments, normal_nodes

SECOND = np.array([[2, 0.5], [0.5, 1]])
MEAN = np.array([-0.6, 0.3])
START = np.array([1.0, 1.0])
GOLDEN = moments(SECOND, MEAN)
PATH = [  # w, rho, its gap, the step, the best length
    (1, 1, -0.0225, 3.889285714286e-1, 40.273941273064, 0.15),
    (3.49195011627085, -1.49195011627085, -0.30208116236743, 1.093474090611e-1, 16.051234568686, 0.549619106625),
    (2.95393756360465, -2.75118323361783, -0.39944738352868, 1.198118789989e-2, 9.581011039927, 0.632018499356),
    (2.66835259538864, -3.05781499660104, -0.41099539323657, 4.331781920051e-4, 8.505640373785, 0.641089224084),
    (2.60885194668120, -3.10973727135680, -0.41141932923282, 9.242195754e-6, 8.353008648499, 0.641419776147),
]
BOUNDS = (3.889285714286e-1, 1.596809669653e-1, 6.555962478484e-2, 2.691657298683e-2, 1.105103794803e-2)


def problem(seed, inputs=5, count=4):
    random = np.random.default_rng(seed)
    root = random.standard_normal((count, inputs, inputs))
    mean = 0.5 * random.standard_normal((count, inputs))
    second = root @ root.swapaxes(1, 2) / inputs + mean[:, :, None] * mean[:, None, :]
    return moments(second, mean), random.standard_normal((count, inputs))


def test_known_moments():
    assert GOLDEN.smallest == pytest.approx(0.7928932188134525, abs=1e-15)
    assert GOLDEN.largest == pytest.approx(2.2071067811865475, abs=1e-15)
    assert GOLDEN.rate == pytest.approx(0.6407544820340814, abs=1e-15)
    assert GOLDEN.lowest == pytest.approx(-0.41142857142857, abs=1e-13)
    w = START
    for _ in range(60):
        w = GOLDEN.descend(w)
    best = np.array([-0.42857142857, 0.51428571429])
    np.testing.assert_allclose(w / np.linalg.norm(w), -best / np.linalg.norm(best), rtol=1e-10)


def test_the_known_path_of_the_rayleigh_quotient():
    w = START
    for step, (first, second, rho, gap, size, length) in enumerate(PATH):
        np.testing.assert_allclose(w, (first, second), rtol=1e-11)
        assert GOLDEN.rayleigh(w) == pytest.approx(rho, abs=1e-11)
        assert GOLDEN.rayleigh(w) - GOLDEN.lowest == pytest.approx(gap, abs=1e-11)
        assert GOLDEN.rate ** (2 * step) * (GOLDEN.rayleigh(START) - GOLDEN.lowest) == pytest.approx(
            BOUNDS[step], abs=1e-11
        )
        assert GOLDEN.step_size(w) == pytest.approx(size, rel=1e-11)
        assert -dot(MEAN, w) / GOLDEN.length(w) == pytest.approx(length, abs=1e-11)
        slope = GOLDEN.rayleigh_gradient(w)
        identity = GOLDEN.length(w) ** 2 * dot(slope, np.linalg.solve(SECOND, slope)) / (4 * abs(GOLDEN.rayleigh(w)))
        assert identity == pytest.approx(GOLDEN.rayleigh(w) - GOLDEN.lowest, abs=5e-16)
        w = GOLDEN.descend(w)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_bound_of_theorem_1_and_the_identity_of_the_gradient_hold_at_every_step(seed):
    of, w = problem(seed)
    first = of.rayleigh(w) - of.lowest
    for step in range(60):
        gap = of.rayleigh(w) - of.lowest
        assert (gap <= of.rate ** (2 * step) * first + 1e-12).all()
        gradient = of.rayleigh_gradient(w)
        inverse = np.linalg.solve(of.second, gradient[..., None])[..., 0]
        identity = of.length(w) ** 2 * dot(gradient, inverse) / (4 * np.abs(of.rayleigh(w)))
        np.testing.assert_allclose(identity, gap, atol=1e-12)
        w = of.descend(w)


@pytest.mark.parametrize("seed", [3, 4])
def test_the_gradient_of_the_rayleigh_quotient_is_its_difference_quotient(seed):
    of, w = problem(seed)
    for axis in np.eye(w.shape[1]):
        rise = (of.rayleigh(w + 1e-5 * axis) - of.rayleigh(w - 1e-5 * axis)) / 2e-5
        np.testing.assert_allclose(dot(of.rayleigh_gradient(w), axis), rise, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", [5, 6])
def test_the_gradient_of_a_halfspace_is_its_difference_quotient(name, seed):
    of, w = problem(seed)
    f = Halfspace(of, LOSSES[name], ridge=0.01)
    for axis in np.eye(w.shape[1]):
        rise = (f.value(w + 1e-5 * axis) - f.value(w - 1e-5 * axis)) / 2e-5
        np.testing.assert_allclose(dot(f.gradient(w), axis), rise, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(f.along(w)(np.full(len(w), 0.7)), dot(f.gradient(0.7 * w), w), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("seed", [7, 8])
def test_the_squared_loss_is_least_squares(seed):
    of, w = problem(seed)
    f = Halfspace(of, LOSSES["square"])
    np.testing.assert_allclose(f.value(w), 1 + 2 * dot(of.mean, w) + of.length(w) ** 2, rtol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_moments_of_many_samples_are_those_of_the_normal_distribution(name):
    of, w = problem(9, count=1)
    w = w / of.length(w)[:, None]
    covariance = of.second[0] - np.outer(of.mean[0], of.mean[0])
    z = np.random.default_rng(0).multivariate_normal(of.mean[0], covariance, 400_000)
    t = z @ w[0]
    sampled = LOSSES[name].first(t)[:, None] * z
    error = sampled.std(0) / np.sqrt(len(z))
    assert (np.abs(sampled.mean(0) - Halfspace(of, LOSSES[name]).gradient(w)[0]) < 4.5 * error).all()


def test_the_quadrature_is_that_of_gauss_and_hermite():
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    for function in (LOSSES["softplus"].value, LOSSES["softplus"].second, LOSSES["sigmoid"].second):
        other = function(0.3 + 1.7 * nodes) @ weights / weights.sum()
        own, shares = normal_nodes()
        assert function(0.3 + 1.7 * own) @ shares == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_the_steepest_second_derivative(name):
    t = np.linspace(-9, 9, 200_001)
    assert np.abs(LOSSES[name].second(t)).max() == pytest.approx(LOSSES[name].steepest, rel=1e-8)


@pytest.mark.parametrize(
    ("second", "mean", "message"),
    [
        (np.eye(2) * [1, 0], MEAN, "covariance of the inputs is singular"),
        (np.diag([1, -1.0]), MEAN, "covariance of the inputs is singular"),
        (np.array([[1, 0.5], [0, 1]]), MEAN, "S must be symmetric"),
        (np.eye(3), MEAN, "must be of d and d x d numbers"),
        (np.empty((0, 0)), np.empty(0), "with d > 0"),
        (np.eye(2), np.zeros(2), "the mean u is 0"),
    ],
)
def test_moments_that_are_none_are_refused(second, mean, message):
    with pytest.raises(ValueError, match=message):
        moments(second, mean)

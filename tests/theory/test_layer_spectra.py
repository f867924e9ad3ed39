import numpy as np
import pytest

from icsbench.theory import jacobians as theory


def test_the_golden_singular_values_of_one_feature():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert theory.batch_norm_singular_values(x, gamma=2) == pytest.approx([1.7888543820, 1.7888543820, 0, 0], abs=1e-10)
    with_eps = theory.batch_norm_singular_values(x, gamma=2, eps=1e-5)
    assert with_eps == pytest.approx([1.7888472266, 1.7888472266, 1.431066e-5, 0], abs=1e-10)  # 2 / sqrt(1.25001)


@pytest.mark.parametrize(("x", "eps", "line"), [([1.0], 0.1, "2 values or more"), ([3.0, 3.0], 0, "divide by zero")])
def test_what_has_no_jacobian_is_refused(x, eps, line):
    with pytest.raises(ValueError, match=line):
        theory.batch_norm_singular_values(np.array(x), eps=eps)


@pytest.mark.parametrize(("batch", "c"), [(8, 0.250134932861), (16, 0.285684170487), (128, 0.314382745987)])
def test_the_fixed_point_of_relu(batch, c):
    assert theory.fixed_point_cosine("relu", batch) == pytest.approx(c, abs=1e-12)


def test_the_mean_square_is_the_first_part_of_the_rate_of_the_gradient():
    """The second part is E[phi'(z1) phi'(z2) (1 + z1 z2)] / ((B - 3) Var), and their sum the rate of Yang et al."""
    for batch, rate in ((8, 1.2), (16, 1.0769230769)):
        variance = theory.signal_variance("linear", batch, normalized=True)
        second = (1 - 1 / (batch - 1)) / ((batch - 3) * variance)
        assert theory.mean_square("bn", "linear", batch, variance) + second == pytest.approx(rate, abs=1e-9)
    variance = theory.signal_variance("relu", 8, normalized=True)  # gain 2: E phi^2 - E phi phi, doubled
    u = np.random.default_rng(0).standard_normal((400_000, 8))
    u -= u.mean(1, keepdims=True)
    z = u / np.sqrt(np.square(u).mean(1, keepdims=True))
    gates = (z[:, 0] > 0) & (z[:, 1] > 0)
    second = 2 * np.mean(gates * (1 + z[:, 0] * z[:, 1])) / (5 * variance)
    assert theory.mean_square("bn", "relu", 8, variance) + second == pytest.approx(1.788189976659, abs=2e-3)


def test_a_spectrum_without_bn_is_the_law_of_marchenko_and_pastur():
    quarter = theory.distribution("none", "linear", "gaussian", 8, 1.0)
    assert quarter is not None
    s = np.linspace(0, 2, 9)
    exact = (s * np.sqrt(4 - s**2) / 2 + 2 * np.arcsin(s / 2)) / np.pi
    assert quarter(s) == pytest.approx(exact, abs=1e-7)
    half = theory.distribution("none", "relu", "gaussian", 8, 1.0)
    assert half is not None
    w = np.random.default_rng(1).standard_normal((800, 800)) * np.sqrt(2 / 800)
    found = np.linalg.svd(w[:, :400], compute_uv=False)
    at = np.array([0.6, 0.9, 1.1, 1.5, 2.0])
    assert half(at) == pytest.approx([0.5 + np.mean(found <= one) / 2 for one in at], abs=0.01)
    assert half(np.array([-1.0, 0.0, 3.0])).tolist() == [0, 0.5, 1]


def test_a_spectrum_of_orthogonal_weights():
    below = theory.distribution("bn", "linear", "orthogonal", 8, 1.0)
    assert below is not None
    x = np.random.default_rng(2).standard_normal((200_000, 8))
    scales = 1 / x.std(1)
    at = np.array([0.9, 1.1, 2.0])
    assert below(at) == pytest.approx([0.25 + 0.75 * np.mean(scales <= one) for one in at], abs=3e-3)
    assert theory.quantiles(below, np.array([0.1, 0.2, 0.5]))[:2].tolist() == [0, 0]
    assert below(theory.quantiles(below, np.array([0.5]))) == pytest.approx([0.5], abs=1e-4)
    plain = theory.distribution("none", "relu", "orthogonal", 8, 1.0)
    assert plain is not None and plain(np.array([0.0, 1.41, 1.42])).tolist() == [0.5, 0.5, 1]
    assert theory.distribution("bn", "relu", "orthogonal", 8, 1.0) is None

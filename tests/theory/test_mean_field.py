import math

import numpy as np
import pytest
from scipy.special import eval_hermitenorm, expit, roots_jacobi

from icsbench.theory import mean_field
from icsbench.theory.activations import ACTIVATIONS, Activation

RELU = """4 3.084060948088 0.169496588042 0.88790452 | 64 1.493062937804 0.310413478596 2.49482528
5 2.273706648193 0.203309877845 1.21741678 | 96 1.484068131558 0.313064363349 2.53301112
6 2.003778624437 0.224697563863 1.43877706 | 128 1.479681272322 0.314382745987 2.55214864
8 1.788189976659 0.250134932861 1.72056650 | 256 1.473234263096 0.316351549469 2.58091049
10 1.696009869420 0.264721235475 1.89294145 | 384 1.471119964315 0.317005488138 2.59051257
12 1.644893537087 0.274171578966 2.00934077 | 512 1.470069207285 0.317332022109 2.59531637
16 1.589950416765 0.285684170487 2.15655358 | 1000 1.468538518362 0.317809545157 2.60235247
24 1.542970217508 0.296871663176 2.30569201 | 1024 1.468500991973 0.317821279709 2.60252554
32 1.521952830552 0.302346482176 2.38098488 | inf 1.466942206924 0.318309886184 2.60973885
48 1.502364770694 0.307743639442 2.45675871"""
OTHERS = """identity 1.2000000000 1.0769230769 1.0344827586 1.0163934426 1.0080000000 1
tanh 1.3585481254 1.2462584139 1.2083027599 1.1922643342 1.1848527966 1.1778072323
erf 1.4050540861 1.2938412944 1.2560958455 1.2401176259 1.2327280699 1.2257000038
sin 1.4017237283 1.3366071084 1.3219520152 1.3169704899 1.3148910977 1.3130352855
sigmoid 1.2236410146 1.1056299986 1.0656705851 1.0487947299 1.0409998114 1.0335923900
gelu 1.6223009333 1.4357086903 1.3712374400 1.3437524354 1.3309995640 1.3188449709
silu 1.4719684953 1.3127120088 1.2573112907 1.2336089982 1.2225924303 1.2120811148
softplus 1.2963508326 1.1636094313 1.1177903023 1.0982475610 1.0891763262 1.0805280525
square 2.8000000000 2.3076923077 2.1379310345 2.0655737705 2.0320000000 2"""


def leaky(slope):
    return Activation(lambda x: np.where(x > 0, x, slope * x), lambda x: np.where(x > 0, 1.0, slope))


ELU = Activation(lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), lambda x: np.exp(np.minimum(x, 0)))
SIGMOID = Activation(lambda x: np.tanh(x / 2), lambda x: (1 - np.tanh(x / 2) ** 2) / 2)
KNOWN = {
    **{"identity": ACTIVATIONS["linear"], **ACTIVATIONS, "sigmoid": SIGMOID},
    "sin": Activation(np.sin, np.cos),
    "softplus": Activation(lambda x: np.logaddexp(x, 0), expit),
    "square": Activation(np.square, lambda x: 2 * x),
}


def closed(slope, batch):
    """lambda and c* where phi is x above 0 and ``slope`` x below, from the arc-cosine kernels (Cho & Saul 2009)."""
    c = -1 / (batch - 1)
    j1 = (math.pi - math.acos(c)) / math.pi
    j = math.sqrt(1 - c * c) / math.pi + j1 * c
    squares, product = (1 + slope**2) / 2, slope * c + (1 - slope) ** 2 * j / 2
    cross = slope**2 * (1 + c) + slope * (1 - slope) * (1 + c) + (1 - slope) ** 2 * (j1 + j) / 2
    return (squares * (batch - 2) + cross) / ((batch - 3) * (squares - product)), product / squares


def two_by_two(phi, batch, nodes=160):
    """lambda by the quadrature of the two coordinates one after the other, for smooth phi."""
    t1, w1 = roots_jacobi(nodes, (batch - 4) / 2, (batch - 4) / 2)
    t2, w2 = roots_jacobi(nodes, (batch - 5) / 2, (batch - 5) / 2)
    weights = np.outer(w1 / w1.sum(), w2 / w2.sum())
    z1 = np.sqrt(batch - 1) * t1[:, None] + 0 * t2
    across = math.sqrt(1 - 1 / (batch - 1) ** 2) * np.sqrt(1 - t1[:, None] ** 2) * t2
    z2 = np.sqrt(batch - 1) * (across - t1[:, None] / (batch - 1))
    d1, d2 = phi.derivative(z1), phi.derivative(z2)
    above = (weights * (d1**2 * (batch - 1 - z1**2) + d1 * d2 * (1 + z1 * z2))).sum()
    return above / ((batch - 3) * (weights * phi.value(z1) * (phi.value(z1) - phi.value(z2))).sum())


def test_relu_has_the_rates_correlations_and_depth_scales_of_the_table():
    for line in RELU.replace("|", "\n").splitlines():
        batch, growth, cosine, depth = map(float, line.split())
        assert mean_field.rate("relu", batch) == pytest.approx(growth, abs=1e-12)
        assert mean_field.forward_correlation("relu", batch) == pytest.approx(cosine, abs=1e-12)
        assert mean_field.depth_scale("relu", batch) == pytest.approx(depth, abs=1e-8)
        assert mean_field.forward_second_moment("relu", batch) == pytest.approx(0.5, abs=1e-13)


def test_the_other_activations_have_the_rates_of_the_table():
    for line in OTHERS.splitlines():
        name, *rates = line.split()
        for batch, growth in zip((8, 16, 32, 64, 128, math.inf), map(float, rates), strict=True):
            assert mean_field.rate(KNOWN[name], batch) == pytest.approx(growth, abs=6e-11), (name, batch)


def test_limits_of_large_batches():
    assert mean_field.rate("relu", math.inf) == pytest.approx(math.pi / (math.pi - 1), abs=1e-14)
    assert mean_field.rate("relu", 10**6) == pytest.approx(1.46694380, abs=1e-8)
    assert mean_field.rate("erf", math.inf) == pytest.approx(2 / (math.sqrt(5) * math.asin(2 / 3)), abs=1e-13)
    assert mean_field.depth_scale("relu", math.inf) == pytest.approx(2.60973884670153, abs=1e-13)
    assert mean_field.depth_scale("linear", math.inf) == math.inf
    for slope, growth in {0.01: 1.4533707611, 0.1: 1.3427833512, 0.2: 1.2436001335, 0.25: 1.2026704073}.items():
        assert mean_field.rate(leaky(slope), math.inf) == pytest.approx(growth, abs=6e-11)
    assert mean_field.rate(ELU, math.inf) == pytest.approx(1.0790134555, abs=6e-11)
    for name in ACTIVATIONS:
        assert mean_field.rate(name, 10**7) == pytest.approx(mean_field.rate(name, math.inf), abs=1e-6)


@pytest.mark.parametrize("batch", [4, 5, 11, 300, 10**5])
def test_pieces_of_lines_have_a_closed_form(batch):
    for name, slope in {"relu": 0.0, "leaky": 0.01, "linear": 1.0}.items():
        growth, cosine = closed(slope, batch)
        assert mean_field.rate(name, batch) == pytest.approx(growth, rel=1e-11)
        assert mean_field.forward_correlation(name, batch) == pytest.approx(cosine, abs=1e-12)
    assert mean_field.rate(leaky(0.3), batch) == pytest.approx(closed(0.3, batch)[0], rel=1e-11)
    assert mean_field.rate("linear", batch) == pytest.approx((batch - 2) / (batch - 3), rel=1e-11)


@pytest.mark.parametrize("name", ["tanh", "erf", "gelu", "silu"])
def test_another_quadrature_of_smooth_activations(name):
    for batch in (4, 7, 20, 200):
        assert mean_field.rate(name, batch) == pytest.approx(two_by_two(ACTIVATIONS[name], batch), rel=1e-11)
        assert mean_field.rate(name, batch) > (batch - 2) / (batch - 3)


def test_forward_eigenvalues_of_relu():
    golden = {
        8: (0.5386107407, 0.7436110582),
        16: (0.6308148408, 0.8655837345),
        32: (0.6806958434, 0.9310488395),
        64: (0.7067027294, 0.9650636575),
        128: (0.7199892573, 0.9824133928),
    }
    for batch, expected in golden.items():
        found = mean_field.forward_eigenvalues("relu", batch)
        assert found == pytest.approx(expected, abs=6e-11)
        c = -1 / (batch - 1)
        u = (1 - mean_field.forward_correlation("relu", batch)) / 2
        closed_form = batch * (math.pi - math.acos(c)) / math.pi / (2 * (batch + 1) * u)
        assert found.correlations == pytest.approx(closed_form, abs=1e-12)
    limit = mean_field.forward_eigenvalues("relu", math.inf)
    assert limit == pytest.approx((mean_field.linear_share("relu"), 1), abs=1e-12)


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_forward_eigenvalues_are_the_derivative_of_the_map_of_covariances(name):
    batch, size, step = 5, 400_000, 0.1
    phi = ACTIVATIONS[name].value
    u = mean_field.forward_second_moment(name, batch) * (1 - mean_field.forward_correlation(name, batch))
    centring = np.eye(batch) - 1 / batch
    corners = np.zeros((batch, batch))  # + - + - around a square of samples: no diagonal, rows of sum 0
    for i, j, sign in ((0, 1, 1), (1, 2, -1), (2, 3, 1), (3, 0, -1)):
        corners[i, j] = corners[j, i] = sign
    norms = centring @ np.diag([1.0, -1.0, 0, 0, 0]) @ centring
    normal = np.random.default_rng(3).standard_normal((size, batch))

    def after(direction, sign):
        values, vectors = np.linalg.eigh(u * (centring + sign * step * direction))
        h = normal @ (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
        signal = phi(h / np.sqrt((h**2).mean(1, keepdims=True)))
        return centring @ (signal.T @ signal / size) @ centring

    for direction, factor in zip((corners, norms), mean_field.forward_eigenvalues(name, batch), strict=True):
        change = (after(direction, 1) - after(direction, -1)) / (2 * step * u)
        assert (change * direction).sum() / (direction**2).sum() == pytest.approx(factor, abs=0.02)


def test_the_share_of_the_linear_part():
    golden = {"relu": 0.7334711034, "tanh": 0.9304699236, "gelu": 0.7232875213, "silu": 0.7985095417, "linear": 1}
    for name, share in golden.items():
        assert mean_field.linear_share(name) == pytest.approx(share, abs=1e-10)
    for phi, share in {SIGMOID: 0.9841671669, leaky(0.1): 0.8043405223, ELU: 0.9367273497}.items():
        assert mean_field.linear_share(phi) == pytest.approx(share, abs=1e-10)


def test_the_share_of_the_linear_part_is_that_of_the_hermite_series():
    z, weight = np.polynomial.hermite_e.hermegauss(200)
    weight = weight / weight.sum()
    c = [(weight * np.tanh(z) * eval_hermitenorm(k, z)).sum() / math.sqrt(math.factorial(k)) for k in range(1, 100)]
    assert mean_field.linear_share("tanh") == pytest.approx(c[0] ** 2 / sum(v * v for v in c), abs=1e-8)


@pytest.mark.parametrize("name", ["relu", "leaky", "linear"])
def test_a_plain_layer_of_lines_keeps_signals_and_gradients_at_once(name):
    slope = {"relu": 0, "leaky": 0.01, "linear": 1}[name]
    for keeps in ("signals", "gradients"):
        found = mean_field.plain_layer(name, keeps, 1.7)
        assert found == pytest.approx((math.sqrt(2 / (1 + slope**2)), 1, 1.7), rel=1e-11)


def test_a_plain_layer_keeps_signals_or_gradients():
    signals = mean_field.plain_layer("tanh", "signals")
    assert signals.rate == pytest.approx(mean_field.rate("tanh", math.inf), abs=1e-10)
    assert signals.second_moment == pytest.approx(1, abs=1e-12)
    gradients = mean_field.plain_layer("tanh", "gradients")
    assert gradients.rate == pytest.approx(1, abs=1e-12)
    assert gradients.second_moment == pytest.approx(1 / mean_field.rate("tanh", math.inf), abs=1e-10)
    z = np.random.default_rng(5).standard_normal(400_000)
    gelu, at = ACTIVATIONS["gelu"], math.sqrt(0.5) * z
    expected = 0.5 * (gelu.derivative(at) ** 2).mean() / (gelu.value(at) ** 2).mean()
    assert mean_field.plain_layer("gelu", "signals", 0.5).rate == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(("name", "batch"), [("gelu", 6), ("leaky", 9)])
def test_the_expectations_by_drawing_batches(name, batch):
    phi, size = ACTIVATIONS[name], 300_000
    z = np.random.default_rng(1).standard_normal((size, batch))
    z -= z.mean(1, keepdims=True)
    z /= np.sqrt((z**2).mean(1, keepdims=True))
    value, slope = phi.value(z), phi.derivative(z)
    pairs = batch * (batch - 1)
    products = ((value.sum(1) ** 2 - (value**2).sum(1)) / pairs).mean()
    cross = (slope.sum(1) ** 2 - (slope**2).sum(1) + (slope * z).sum(1) ** 2 - ((slope * z) ** 2).sum(1)).mean() / pairs
    above = (slope**2 * (batch - 1 - z**2)).mean() + cross
    squares = (value**2).mean()
    assert mean_field.rate(name, batch) == pytest.approx(above / ((batch - 3) * (squares - products)), rel=5e-3)
    assert mean_field.forward_correlation(name, batch) == pytest.approx(products / squares, abs=2e-3)
    assert mean_field.forward_second_moment(name, batch) == pytest.approx(squares, rel=3e-3)


@pytest.mark.parametrize("batch", [3, 3.99, 0, math.nan])
def test_smaller_batches_have_no_theory(batch):
    with pytest.raises(ValueError, match="at least 4"):
        mean_field.rate("relu", batch)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="unknown activation 'relux'; there are linear, relu"):
        mean_field.depth_scale("relux", 8)

import numpy as np
import pytest
from scipy.optimize import minimize

from icsbench.theory.largest_margin import largest_margin


@pytest.mark.parametrize(("samples", "inputs"), [(6, 3), (12, 20)])
def test_it_is_the_shortest_of_the_vectors_with_margin_1(samples, inputs):
    random = np.random.default_rng(samples)
    x = random.standard_normal((samples, inputs))
    y = np.sign(x @ random.standard_normal(inputs))
    w = largest_margin(x, y)
    allowed = {"type": "ineq", "fun": lambda v: y * (x @ v) - 1}
    found = minimize(lambda v: v @ v, w + 0.1, constraints=allowed, method="SLSQP", options={"ftol": 1e-14})
    assert (y * (x @ w)).min() == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(w, found.x, atol=1e-5)


def test_one_sample():
    np.testing.assert_allclose(largest_margin(np.array([[3.0, 4.0]]), np.array([-1.0])), [-0.12, -0.16])


def test_classes_that_no_hyperplane_separates_are_refused():
    with pytest.raises(ValueError, match="cannot be separated"):
        largest_margin(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([1.0, -1.0]))

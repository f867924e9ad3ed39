import numpy as np
import pytest
import torch

from icsbench import random_networks
from icsbench.theory.activations import ACTIVATIONS


def test_both_halves_know_the_same_activations():
    assert list(ACTIVATIONS) == list(random_networks.ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_derivative_are_those_of_torch(name):
    x = torch.linspace(-4, 4, 101, dtype=torch.float64) + 0.013
    x.requires_grad_()
    y = random_networks.ACTIVATIONS[name](x)
    [slope] = torch.autograd.grad(y.sum(), x)
    at = x.detach().numpy()
    np.testing.assert_allclose(ACTIVATIONS[name].value(at), y.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(ACTIVATIONS[name].derivative(at), slope.numpy(), rtol=1e-12, atol=1e-14)

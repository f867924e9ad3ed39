"""The Fisher information against Jacobians of one network at a time, and against a known table."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.func import jacrev

from icsbench import random_networks
from icsbench.errors import IcsbenchError
from icsbench.labs.fisher import PLACES, FisherOptions
from icsbench.labs.fisher.kernel import kernel, rows

DOUBLE = torch.float64


def written_out(weights, x, where):
    h = x
    for layer, matrix in enumerate(weights, 1):
        h = torch.stack([matrix @ sample for sample in h])
        last = layer == len(weights)
        if where == "all" or where == ("last" if last else "middle"):
            h = (h - h.mean(0)) / h.var(0, unbiased=False).sqrt()
        elif last and where == "last_mean":
            h = h - h.mean(0)
        elif last and where == "last_scale":
            h = h / (h**2).mean(0).sqrt()
        h = h if last else h * (h > 0)
    return h[:, 0]


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize(("samples", "sizes"), [(6, (5, 9, 1)), (4, (7, 12, 10, 1))])
def test_the_kernel_is_that_of_the_jacobian_of_each_network(where, samples, sizes):
    generator = random_networks.stream(samples, "test")
    weights = [
        random_networks.gaussian(generator, 3, rows, columns, dtype=DOUBLE)
        for columns, rows in itertools.pairwise(sizes)
    ]
    x = random_networks.gaussian(generator, 3, samples, sizes[0], dtype=DOUBLE)
    found = kernel(weights, x, where)
    for network in range(3):
        of_one = tuple(matrix[network] for matrix in weights)
        jacobian = torch.cat([part.flatten(1) for part in jacrev(written_out)(of_one, x[network], where)], 1)
        expected = jacobian @ jacobian.T / samples
        torch.testing.assert_close(found[network], expected, rtol=1e-10, atol=1e-10 * expected.abs().max().item())
        fisher = jacobian.T @ jacobian / samples
        top = torch.linalg.eigvalsh(fisher)[-1]
        torch.testing.assert_close(torch.linalg.eigvalsh(found[network])[-1], top, rtol=1e-9, atol=0)


def test_the_table_with_as_many_inputs_as_units():
    """Where the last layer has BN, or its mean is subtracted, and the eigenvalue with BN in the middle layers."""
    share, largest = {}, {}
    for row in rows(FisherOptions("fisher", widths=[64, 128], networks=4), 105):
        share.setdefault((row["where"], row["width"]), []).append(row["share"])
        largest.setdefault((row["where"], row["width"]), []).append(row["largest"])
    for width, middle, mean, last, everywhere in ((64, 11.4, 0.07, 0.07, 0.05), (128, 21.4, 0.05, 0.05, 0.035)):
        assert np.mean(largest["middle", width]) == pytest.approx(middle, rel=0.08)
        assert np.mean(share["last_mean", width]) == pytest.approx(mean, rel=0.25)
        assert np.mean(share["last", width]) == pytest.approx(last, rel=0.25)
        assert np.mean(share["all", width]) == pytest.approx(everywhere, rel=0.25)


def test_the_table_with_few_inputs():
    """.37 and .35 without BN, .10 and .11 with BN in the middle layers, are the shares with ten inputs."""
    generator = random_networks.stream(106, "test")
    for width in (64, 128):
        sizes = (10, width, width, width, 1)
        weights = [
            random_networks.gaussian(generator, 8, rows, columns, std=math.sqrt(2 / columns))
            for columns, rows in itertools.pairwise(sizes)
        ]
        x = random_networks.gaussian(generator, 8, 64, 10)
        for where, expected in (("none", 0.36), ("middle", 0.10)):
            eigenvalues = torch.linalg.eigvalsh(kernel(weights, x, where).double())
            assert (eigenvalues[:, -1] / eigenvalues.sum(1)).mean().item() == pytest.approx(expected, rel=0.2)


def test_theory_beside_it():
    found = [*rows(FisherOptions("fisher", widths=[16, 200], hidden=2, samples=12, networks=8), 107)]
    shares = [row["share"] for row in found if row["where"] == "none" and row["width"] == 200]
    [theory] = {row["theory_share"] for row in found if "theory_share" in row}
    assert np.mean(shares) == pytest.approx(theory, rel=0.1)
    assert {row["step"] for row in found} == {16, 200} and len(found) == 2 * 6 * 8


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"widths": [64, 64]}, "number of different lab.widths must be at least 2"),
        ({"widths": [64, 0]}, "lab.widths must be at least 8"),
        ({"hidden": 0}, "lab.hidden must be at least 1"),
        ({"samples": 3}, "lab.samples must be at least 4"),
        ({"networks": 0}, "lab.networks must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        FisherOptions("fisher", **wrong)


def test_a_constant_feature_is_refused(monkeypatch):
    drawn = random_networks.square_weights

    def without_a_unit(*about, **more):
        weights = drawn(*about, **more)
        weights[:, 0] = 0
        return weights

    monkeypatch.setattr(random_networks, "square_weights", without_a_unit)
    with pytest.raises(IcsbenchError, match=r"middle, width 8, network 0: .* a feature is the same for all samples"):
        for row in rows(FisherOptions("fisher", widths=[8, 9], samples=4, networks=2), 0):
            assert row["where"] == "none"

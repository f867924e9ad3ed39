"""BN taken apart, against loops written out in numpy and against known tables."""

import numpy as np
import pytest
import torch

from icsbench import random_networks
from icsbench.errors import IcsbenchError
from icsbench.labs.parts import VARIANTS, PartsOptions
from icsbench.labs.parts.signals import cosines, rows, through
from icsbench.labs.rungs import rungs

DOUBLE = torch.float64


def normalized_by_hand(image, variant):
    """A batch as a matrix with a row for each sample."""
    batch, width = image.shape
    found = image.copy()
    for j in range(width):
        if variant in ("recentre", "both"):
            found[:, j] -= sum(found[:, j]) / batch
        if variant in ("rescale", "both"):
            found[:, j] /= np.sqrt(sum(found[:, j] ** 2) / batch)
    if variant in ("none", "recentre"):
        found /= np.sqrt(np.sum(found**2) / (batch * width))
    return found


def cosines_by_hand(h):
    batch = len(h)
    table = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in h] for a in h]
    with_others = [np.mean([table[i][j] for j in range(batch) if j != i]) for i in range(batch)]
    odd = int(np.argmin(with_others))
    rest = [table[i][j] for i in range(batch) for j in range(i) if odd not in (i, j)]
    norms = np.sort(np.linalg.norm(h, axis=1))
    return {
        "cosine": np.mean(with_others),
        "rest_cosine": np.mean(rest),
        "odd_cosine": with_others[odd],
        "norm_ratio": norms[-1] / np.median(norms),
        "odd_is_largest": float(np.linalg.norm(h, axis=1).argmax() == odd),
    }


@pytest.mark.parametrize(("networks", "batch", "width"), [(2, 5, 11), (3, 8, 40)])
def test_layers_and_cosines_are_those_written_out(networks, batch, width):
    generator = random_networks.stream(3, "test")
    inputs = random_networks.gaussian(generator, networks, batch, width, dtype=DOUBLE)
    matrices = [random_networks.gaussian(generator, networks, width, width, dtype=DOUBLE) for _ in range(4)]
    signals = inputs.repeat(1, len(VARIANTS), 1)
    for weights in matrices:
        signals = through(signals, weights)
    for variant, part in zip(VARIANTS, signals.chunk(len(VARIANTS), 1), strict=True):
        found = cosines(part)
        for network in range(networks):
            h = inputs[network].numpy()
            for weights in matrices:
                h = np.maximum(normalized_by_hand(h @ weights[network].numpy().T, variant), 0)
            np.testing.assert_allclose(part[network].numpy(), h, atol=1e-12)
            by_hand = cosines_by_hand(h)
            assert {key: values[network].item() for key, values in found.items()} == pytest.approx(by_hand, abs=1e-12)


def means(options, seed):
    """Cosine of all pairs, of the rest, of the odd point, norm ratio, by variant and layer."""
    keys = ("cosine", "rest_cosine", "odd_cosine", "norm_ratio")
    found = {}
    for row in rows(options, seed):
        found.setdefault((row["variant"], row["step"]), []).append([row[key] for key in keys])
    return {key: np.mean(values, 0) for key, values in found.items()}


def test_the_table_of_width_256_to_layer_100():
    found = means(PartsOptions("parts", [256], 32, 100, 4), 101)
    for variant in ("both", "recentre"):
        assert found[variant, 1] == pytest.approx([0.306, 0.308, 0.277, 1.2], abs=0.03)
    assert found["both", 100][:3] == pytest.approx([0.304, 0.307, 0.271], abs=0.03)
    assert found["recentre", 100][:3] == pytest.approx([0.872, 0.930, 0.003], abs=0.04)
    assert 20 < found["recentre", 100][3] < 35 and found["both", 100][3] < 2


def test_the_table_of_width_32_at_layer_1000():
    found = means(PartsOptions("parts", [32], 32, 1000, 10), 102)
    assert found["both", 1][:3] == pytest.approx([0.318, 0.323, 0.237], abs=0.03)
    assert found["both", 1000][:3] == pytest.approx([0.318, 0.324, 0.228], abs=0.05)
    assert found["recentre", 1000][1] > 0.8 and found["recentre", 1000][2] < 0.05


@pytest.mark.slow
def test_the_table_of_width_256_at_layer_1000():
    found = means(PartsOptions("parts", [256], 32, 1000, 6), 103)
    assert found["both", 1000][:3] == pytest.approx([0.302, 0.303, 0.276], abs=0.02)
    assert found["recentre", 1000][:3] == pytest.approx([0.871, 0.929, 0.003], abs=0.04)
    assert 20 < found["recentre", 1000][3] < 40


def test_theory_beside_it():
    found = [*rows(PartsOptions("parts", [512], 8, 5, 2), 104)]
    for row in found:
        if row["variant"] == "recentre":
            assert "theory_cosine" not in row
        else:
            assert row["cosine"] == pytest.approx(row["theory_cosine"], abs=0.05)


def test_the_same_seed_gives_the_same_rows():
    options = PartsOptions("parts", [24, 16], 4, 3, 2)
    assert [*rows(options, 5)] == [*rows(options, 5)] != [*rows(options, 6)]


def test_layers_that_are_recorded():
    assert rungs(1000) == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    assert rungs(7) == [1, 2, 5, 7] and rungs(1) == [1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": 3}, "lab.batch must be at least 4"),
        ({"depth": 0}, "lab.depth must be at least 1"),
        ({"widths": []}, "number of lab.widths"),
        ({"widths": [64, 0]}, "lab.widths must be at least 8"),
        ({"networks": 0}, "lab.networks must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        PartsOptions("parts", **wrong)


def test_a_constant_feature_is_refused(monkeypatch):
    monkeypatch.setattr(random_networks, "square_weights", lambda *about, **more: torch.zeros(2, 8, 8))
    with pytest.raises(IcsbenchError, match="a feature is the same for all samples"):
        [*rows(PartsOptions("parts", [8], 4, 2, 2), 0)]

"""Runs of residual networks: rates of the scalars of Fixup, and every regime with every probe."""

from dataclasses import replace

import pytest
from networks import NORMS
from test_loop import EVERYTHING, resnet, rows, weights

from icsbench import training
from icsbench.config import options_of, probes_options


@pytest.mark.parametrize("scalar_lr", [0.1, 0.0])
def test_an_update_moves_scalars_by_their_rate(tmp_path, scalar_lr):
    c = resnet(tmp_path, "fixup", steps=1, optim=options_of("optim"), probes=probes_options(shift=False))
    c.norm.scalar_lr = scalar_lr
    before = training.build_model(c, 10).state_dict()
    training.run(c)
    after = weights(c)
    # At the start all logits are 0: only the output layer has a gradient.
    assert {name for name, value in before.items() if (after[name] != value).any()} == {
        f"fc.transform.inside.{w}" for w in ("weight", "bias")
    }
    c = replace(c, steps=3, results=str(tmp_path / "longer"))
    training.run(c)
    after = weights(c)
    scalars = [name for name, value in after.items() if value.dim() == 0]
    assert any((after[name] != before[name]).item() for name in scalars) == (scalar_lr > 0)


@pytest.mark.parametrize("norm", NORMS)
def test_every_regime_trains_a_resnet_measured_by_every_probe(tmp_path, norm):
    small = {"batch_size": 32} if norm == "ghost" else {}  # what its ghost batches divide
    c = resnet(tmp_path, norm, steps=2, probes=EVERYTHING, model=options_of("model", "resnet20", width=1 / 8), **small)
    assert training.run(c)["outcome"] != "diverged"
    layers = [path for path, _ in training.build_model(c, 10).layers()]
    measured = {key for row in rows(c) for key in row}
    assert {"landscape/beta", f"shift/{layers[-2]}/mean"} <= measured
    assert [path for path in layers if f"ics/{path}/l2" in measured] == layers
    removed = [path for path in layers if f"least_squares/{path}/removed" in measured]
    of_norm = {"bn": layers[:-1], "noisy_bn": layers[:-1], "bn_first": layers[:1], "bn_last": layers[-2:-1]}
    assert removed == of_norm.get(norm, [])

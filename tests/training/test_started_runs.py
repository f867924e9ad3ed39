"""Runs of a norm that starts from the data: the start is a function of config and seed, and precedes everything."""

from dataclasses import replace

import pytest
import torch
from test_loop import EVERYTHING, Killed, config, kill_at, record_bytes, resnet, rows, same_weights, weights
from torch.nn import functional as F

from icsbench import training
from icsbench.config import options_of, probes_options
from icsbench.data import Batches, channel_statistics, load_dataset
from icsbench.labs.network import Network
from icsbench.norms import start_from_data


def first_batch(c):
    dataset = load_dataset("digits", None, c.data.val_size)
    mean, std = channel_statistics(dataset.train.images)
    return Batches(dataset.train, c.batch_size, c.seed, mean=mean, std=std, device="cpu")(0)


@pytest.mark.parametrize("make", [config, resnet])
def test_the_first_update_is_that_of_the_started_network(tmp_path, make):
    c = make(tmp_path, "weight_norm", steps=1, log_every=1, probes=probes_options(shift=False))
    training.run(c)
    inputs, targets = first_batch(c)
    model = training.build_model(c, 10).to(memory_format=torch.channels_last)
    plain = {name: value.clone() for name, value in model.state_dict().items()}
    start_from_data(model, lambda: inputs)
    assert any(not torch.equal(plain[name], value) for name, value in model.state_dict().items())
    optimizer = torch.optim.SGD(model.parameters(), c.optim.lr, c.optim.momentum)
    loss = F.cross_entropy(model(inputs), targets)
    loss.backward()
    optimizer.step()
    assert rows(c)[-2]["train/loss"] == loss.item()
    assert same_weights(weights(c), model.state_dict())


def test_labs_see_the_started_network(tmp_path):
    c = config(tmp_path, "weight_norm")
    model = training.build_model(c, 10)
    start_from_data(model, lambda: first_batch(c)[0])
    assert same_weights(Network(c, lambda _: {}).untrained().state_dict(), model.state_dict())


def test_probes_see_it_too_and_change_nothing_and_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    on = config(tmp_path / "on", "weight_norm", probes=EVERYTHING, optim=options_of("optim", lr=0.01))
    off = replace(on, results=str(tmp_path / "off"), probes=probes_options(shift=False))
    training.run(on), training.run(off)
    assert same_weights(weights(on), weights(off))
    first = next(row for row in rows(on) if "landscape/loss" in row)
    assert first["step"] == 0
    killed = replace(on, results=str(tmp_path / "killed"))
    for step in (0, 5, 8):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            kill_at(step, patch)
            training.run(killed)
    training.run(killed)
    assert record_bytes(on) == record_bytes(killed)
    assert same_weights(weights(on), weights(killed))

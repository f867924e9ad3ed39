"""A probe that nothing else names: what it returns is stored, what it does is put back, what it keeps survives."""

import random
import types
from dataclasses import make_dataclass

import numpy as np
import pytest
import torch
from test_loop import EVERYTHING, Killed, config, kill_at, record_bytes, regression, rows, same_weights, weights

from icsbench import members, training
from icsbench.data import load_dataset
from icsbench.norms import noise_modules
from icsbench.probes import NetworkWatcher, Probe, Reading, UpdateWatcher
from icsbench.training import checkpoint, cost
from icsbench.training.trainer import Trainer

STEPS = [0, 4, 8, 12, 16, 20, 24]


class Careless(NetworkWatcher, UpdateWatcher):
    """Measures weights, counts its measurements, and leaves a mess."""

    def __init__(self, model):
        self.model = model
        self.count = 0

    def due(self, step):
        return step % 4 == 0

    def measure(self, step):
        self.count += 1
        norms = [parameter.detach().norm().item() for parameter in self.model.parameters()]
        self.mess()
        row = {"weights/largest": max(norms), "weights/count": self.count}
        layers = [{"layer": path, "depth": depth} for depth, (path, _) in enumerate(self.model.layers(), 1)]
        return Reading(row, {"norms": np.array(norms)}, layers if step == 0 else None)

    def before(self, update):
        self.old = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.mess(update)

    def after(self, update):
        moved = [(p - old).norm().item() for p, old in zip(self.model.parameters(), self.old, strict=True)]
        self.mess(update)
        return Reading({"weights/moved": sum(moved), "weights/of": update.number})

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]

    def mess(self, update=None):
        torch.rand(3), random.random(), np.random.rand()
        for module in noise_modules(self.model):
            torch.rand(3, generator=module.generator)
        if update is not None:
            self.model(update.inputs).sum().backward()
            update.inputs.zero_()
        self.model.eval()
        with torch.no_grad():
            for tensor in (*self.model.parameters(), *self.model.buffers()):
                tensor.zero_()


@pytest.fixture
def careless(monkeypatch):
    """A switch of a member of another package, as an entry point would bring it."""
    switch = types.SimpleNamespace(on=True)
    module = types.ModuleType("theirs")
    module.MEMBER = Probe(
        "weights", make_dataclass("Options", []), lambda config, model, task: Careless(model) if switch.on else None
    )
    found = members._modules
    monkeypatch.setattr(members, "_modules", lambda room: (*found(room), module) if room == "probes" else found(room))
    return switch


def ours(c):
    return [row for row in rows(c) if not any(key.startswith("weights/") for key in row)]


def test_what_it_returns_is_stored(tmp_path, careless):
    c = config(tmp_path, probes=EVERYTHING)
    training.run(c)
    of_network = [row for row in rows(c) if "weights/count" in row]
    assert [row["step"] for row in of_network] == STEPS
    assert [row["weights/count"] for row in of_network] == [1, 2, 3, 4, 5, 6, 7]
    of_updates = [row for row in rows(c) if "weights/moved" in row]
    assert [row["step"] for row in of_updates] == [row["weights/of"] for row in of_updates] == STEPS[:-1]
    assert all(row["weights/moved"] > 0 for row in of_updates)
    folder = c.run_dir / "probes" / "weights"
    assert sorted(path.name for path in folder.iterdir()) == ["layers.json", *(f"step-{s:08d}.npz" for s in STEPS)]
    first = np.load(folder / "step-00000000.npz")["norms"]
    model = training.build_model(c, 10)
    assert first == pytest.approx([parameter.norm().item() for parameter in model.parameters()], rel=1e-6)
    last = np.load(folder / "step-00000024.npz")["norms"]
    kept = [weights(c)[name] for name, _ in model.named_parameters()]
    assert last == pytest.approx([parameter.norm().item() for parameter in kept], rel=1e-6)


def test_probes_that_are_due_together_have_their_rows_in_a_fixed_order(tmp_path, careless):
    c = config(tmp_path, probes=EVERYTHING, eval_every=4, log_every=4)
    training.run(c)

    def kinds(step):
        at = [row for row in rows(c) if row["step"] == step]
        return [next(key for key in row if key not in ("step", "shift/interval")).split("/")[0] for row in at]

    # Up to this step: the row of training; then the network: probes, accuracy; then the update that comes next.
    assert kinds(12) == ["train", "shift", "weights", "test", "weights"]
    assert kinds(20) == ["train", "weights", "test", "least_squares", "ics", "weights"]


@pytest.mark.parametrize("make", [config, regression])
@pytest.mark.parametrize("norm", ["none", "bn", "noisy_bn"])
def test_whatever_it_does_training_is_bit_identical(tmp_path, careless, make, norm):
    on, off = (make(tmp_path / name, norm, probes=EVERYTHING) for name in ("on", "off"))
    summary = training.run(on)
    careless.on = False
    assert training.run(off) == summary
    assert same_weights(weights(on), weights(off))
    assert ours(on) == rows(off)
    assert not (off.run_dir / "probes" / "weights").exists()
    for path in off.run_dir.glob("probes/*/*"):
        assert path.read_bytes() == (on.run_dir / path.relative_to(off.run_dir)).read_bytes()


@pytest.mark.parametrize("step", [3, 13])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, careless, step):
    whole, killed = (config(tmp_path / name, "noisy_bn") for name in "ab")
    training.run(whole)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(step, patch)
        training.run(killed)
    training.run(killed)
    assert record_bytes(whole) == record_bytes(killed)
    assert same_weights(weights(whole), weights(killed))


def test_its_cost_is_counted_without_being_told(tmp_path, careless, monkeypatch):
    c = config(tmp_path)
    prices = {(): 0.0, (("step", 0),): 1.0, (("look", "ShiftProbe"),): 0.0}
    prices |= {(("look", "Careless"),): 1000.0, (("step", 1),): 11.0}
    called = []
    for name, what in (("step", lambda args: len(args[1]) if args[1:] else 0), ("look", lambda a: type(a[0]).__name__)):
        plain = getattr(Trainer, name)

        def noting(self, *args, plain=plain, name=name, what=what):
            called.append((name, what(args)))
            return plain(self, *args)

        monkeypatch.setattr(Trainer, name, noting)

    def priced(work, device):
        called.clear()
        work()
        return prices[tuple(called)]

    monkeypatch.setattr(cost, "_seconds", priced)
    data = load_dataset("digits", None, 157)
    assert cost.seconds_of_run(c, data) == 24 + 7 * 1000 + 6 * (11 - 1)
    careless.on = False
    assert cost.seconds_of_run(c, data) == 24


def test_a_checkpoint_of_the_former_format_goes_on(tmp_path):
    """Format 1 had room for the state of one probe, that of the shift."""
    whole, killed = (config(tmp_path / name, "noisy_bn") for name in "ab")
    training.run(whole)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(16, patch)
        training.run(killed)
    path = killed.run_dir / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    former = {**state, "format": 1, "probe": state["probes"]["shift"], "rows_from": 10}
    del former["probes"]
    assert former["step"] == 14 and former["probe"]["first"]
    torch.save(former, path)
    assert checkpoint.load(path, killed, torch.device("cpu"))["probes"].keys() == {"shift"}
    training.run(killed)
    assert record_bytes(whole) == record_bytes(killed)
    assert same_weights(weights(whole), weights(killed))

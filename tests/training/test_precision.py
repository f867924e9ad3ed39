"""bfloat16 autocast: what is computed in it, and what is not."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from test_loop import EVERYTHING, Killed, config, kill_at, record_bytes, regression, rows, same_weights, weights
from torch.nn import functional as F

from icsbench import training
from icsbench.config import ModelConfig, NormConfig, ProbesConfig
from icsbench.data import Batches, Split, channel_statistics, load_dataset
from icsbench.errors import IcsbenchError
from icsbench.training import Protocol, environment, evaluate, loop, task

DATA = load_dataset("digits", None, 157)
MEAN, STD = channel_statistics(DATA.train.images)


def amp_loop(c, steps):
    """Training under autocast by hand; the network, and its weights before and after each update."""
    batches = Batches(DATA.train, c.batch_size, c.seed, mean=MEAN, std=STD, device="cpu")
    model = training.build_model(c, 10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), c.optim.lr)
    history = [copy.deepcopy(model)]
    for step in range(steps):
        inputs, targets = batches(step)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(inputs)
        F.cross_entropy(outputs.float(), targets).backward()
        optimizer.step()
        history.append(copy.deepcopy(model))
    return batches, history


@pytest.mark.parametrize("norm", ["none", "bn"])
def test_training_is_under_autocast_as_by_hand(tmp_path, norm):
    c = config(tmp_path, norm, amp=True)
    training.run(c)
    _, history = amp_loop(c, c.steps)
    assert same_weights(weights(c), history[-1].state_dict())
    assert not same_weights(weights(c), weights_of_plain(tmp_path / "plain", norm))


def weights_of_plain(folder, norm):
    c = config(folder, norm)
    training.run(c)
    return weights(c)


@pytest.mark.parametrize("norm", ["none", "bn"])
def test_the_update_probe_measures_in_float32(tmp_path, norm):
    c = config(tmp_path, norm, amp=True, model=ModelConfig("vgg11", width=0.125), probes=replace(EVERYTHING))
    training.run(c)
    row = next(row for row in rows(c) if row["step"] == 5 and "landscape/loss" in row)
    batches, history = amp_loop(c, 6)
    inputs, targets = batches(5)
    old, new = history[5], history[6]

    def gradient(network):
        network = copy.deepcopy(network).train()
        loss = F.cross_entropy(network(inputs), targets)
        names = [name for name, _ in network.named_parameters()]
        return loss.item(), dict(zip(names, torch.autograd.grad(loss, [*network.parameters()]), strict=True))

    loss, here = gradient(old)
    assert row["landscape/loss"] == pytest.approx(loss, rel=1e-6)
    moved = copy.deepcopy(old)
    alpha = row["landscape/alphas"][-1]
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            parameter -= alpha * here[name]
    there_loss, there = gradient(moved)
    assert row["landscape/losses"][-1] == pytest.approx(there_loss, rel=1e-5)
    difference = torch.cat([(there[name] - here[name]).flatten() for name in here]).norm().item()
    assert row["landscape/gradient_differences"][-1] == pytest.approx(difference, rel=1e-3)

    paths = [path for path, _ in old.layers()]
    for count in (1, 4):  # layers before this one are updated
        mixed = copy.deepcopy(old)
        with torch.no_grad():
            for (name, parameter), value in zip(mixed.named_parameters(), new.parameters(), strict=True):
                if name.startswith(tuple(f"{path}." for path in paths[:count])):
                    parameter.copy_(value)
        after = gradient(mixed)[1]
        weight = f"{paths[count]}.transform.weight"
        l2 = (after[weight] - here[weight]).norm().item()
        assert row[f"ics/{paths[count]}/l2"] == pytest.approx(l2, rel=1e-3)


def test_the_shift_probe_measures_in_float32(tmp_path):
    """At step 0 nothing is trained yet, so that amp must not show."""
    probes = ProbesConfig(every=6, batch_size=16, samples=64)
    plain, amp = (config(tmp_path / str(on), "bn", amp=on, steps=2, probes=probes) for on in (False, True))
    training.run(plain), training.run(amp)
    name = "probes/shift/step-00000000.npz"
    assert (plain.run_dir / name).read_bytes() == (amp.run_dir / name).read_bytes()


@pytest.mark.parametrize("norm", ["none", "bn", "noisy_bn", "linf"])
def test_probes_on_or_off_is_bit_identical_training_under_autocast(tmp_path, norm):
    on = config(tmp_path / "on", norm, amp=True, probes=EVERYTHING)
    off = config(tmp_path / "off", norm, amp=True, probes=ProbesConfig(shift=False))
    assert training.run(on) == training.run(off)
    assert same_weights(weights(on), weights(off))


@pytest.mark.parametrize("norm", ["none", "bn", "noisy_bn"])
def test_a_run_under_autocast_killed_goes_on_to_the_same_bytes(tmp_path, norm):
    whole, killed = (config(tmp_path / name, norm, amp=True, probes=EVERYTHING) for name in "ab")
    training.run(whole)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(13, patch)
        training.run(killed)
    training.run(killed)
    assert record_bytes(whole) == record_bytes(killed)
    assert same_weights(weights(whole), weights(killed))


@pytest.mark.parametrize("norm", ["none", "bn"])
def test_evaluation_is_under_autocast(tmp_path, norm):
    c = config(tmp_path, norm, amp=True, steps=40, model=ModelConfig("vgg11", width=0.125))
    summary = training.run(c)
    model = training.build_model(c, 10).to(memory_format=torch.channels_last)
    model.load_state_dict(weights(c))
    with torch.autocast("cpu", torch.bfloat16):
        found = evaluate(
            model, DATA.test, Protocol("running", False), batch_size=32, mean=MEAN.float(), std=STD.float(), seed=0
        )
    assert summary["test/accuracy"]["running-off"] == found


def test_the_record_says_what_was_computed_in_what(tmp_path):
    found = {}
    for name, c in {
        "plain": config(tmp_path, steps=1),
        "amp": config(tmp_path, steps=1, amp=True),
        "regression": regression(tmp_path, steps=1),
    }.items():
        training.run(c)
        found[name] = json.loads((c.run_dir / "environment.json").read_text())["precision"]
    assert found["plain"] == {"training": "float32", "evaluation": "float32", "probes": "float32"}
    assert found["amp"] == {"training": "bf16 autocast", "evaluation": "bf16 autocast", "probes": "float32"}
    assert found["regression"] == {"training": "float64", "evaluation": "float64", "probes": "float64"}


def begin(c, without):
    """A run that was begun by a version whose environment did not have the key yet."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(10, patch)
        training.run(c)
    path = c.run_dir / "environment.json"
    known = json.loads(path.read_text())
    del known[without]
    path.write_text(json.dumps(known))


def test_a_run_begun_before_the_record_said_so_goes_on(tmp_path):
    for c in (config(tmp_path), config(tmp_path, amp=True, probes=ProbesConfig(shift=False))):
        begin(c, without="precision")
        assert training.run(c)["status"] == "complete"


@pytest.mark.parametrize("probes", [ProbesConfig(batch_size=16), ProbesConfig(shift=False, landscape=True)])
def test_probes_in_bfloat16_are_not_continued_in_float32(tmp_path, probes):
    c = config(tmp_path, amp=True, probes=probes)
    begin(c, without="precision")
    with pytest.raises(IcsbenchError, match=r"seed-0 was begun by a version whose probes .*; delete it"):
        training.run(c)


def test_the_deep_linear_network_has_no_bfloat16(tmp_path):
    with pytest.raises(ValueError, match="amp=true does nothing for model dln, which is trained in float64"):
        regression(tmp_path, amp=True)


# --- the instructions of the CPU -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amp", "has", "warned"), [(True, False, 1), (True, True, 0), (True, None, 0), (False, False, 0)]
)
def test_a_cpu_without_the_instructions_is_one_line(tmp_path, monkeypatch, capsys, amp, has, warned):
    monkeypatch.setattr(environment, "_has_bfloat16", lambda: has)
    training.run(config(tmp_path, amp=amp))
    lines = capsys.readouterr().err.splitlines()
    assert sum("this CPU has no bfloat16 instructions" in line for line in lines) == len(lines) == warned


@pytest.mark.parametrize(
    ("capabilities", "has"),
    [
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False, "amx_bf16": True}, True),
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx2": True}, False),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, True),
        ({"architecture": "aarch64", "neon": True, "bf16": False}, False),
    ],
)
def test_what_pytorch_says_of_the_cpu(monkeypatch, capabilities, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert environment._has_bfloat16() is has


@pytest.mark.parametrize(
    ("machine", "answers", "has"),
    [
        ("x86_64", {"_is_avx512_bf16_supported": True, "_is_amx_tile_supported": False}, True),
        ("AMD64", {"_is_avx512_bf16_supported": False, "_is_amx_tile_supported": True}, True),
        ("x86_64", {"_is_avx512_bf16_supported": False, "_is_amx_tile_supported": False}, False),
        ("x86_64", {}, None),
        ("aarch64", {"mkldnn": True}, True),
        ("arm64", {"mkldnn": False}, False),
    ],
)
def test_what_earlier_versions_of_pytorch_say_of_the_cpu(monkeypatch, machine, answers, has):
    for name in ("get_capabilities", "_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    for name, answer in answers.items():
        if name == "mkldnn":
            monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda answer=answer: answer)
        else:
            monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer, raising=False)
    monkeypatch.setattr(environment.platform, "machine", lambda: machine)
    assert environment._has_bfloat16() is has


# --- what the network knows ------------------------------------------------------------------------------------------

KNOWN = ("test/accuracy/recalibrated-off", "train/accuracy/recalibrated-off")


def known_rows(c):
    return {row["step"]: [row[key] for key in KNOWN] for row in rows(c) if any(key in row for key in KNOWN)}


@pytest.mark.parametrize("norm", ["none", "bn", "noisy_bn", "noise", "l1"])
@pytest.mark.parametrize("amp", [False, True])
def test_what_the_network_knows_is_the_recalibrated_accuracy_without_noise(tmp_path, norm, amp):
    c = config(tmp_path, norm, amp=amp, eval_every=12, checkpoint_every=12, probes=ProbesConfig(shift=False))
    states = {}
    with pytest.MonkeyPatch.context() as patch:
        plain = loop.checkpoint.save
        patch.setattr(
            loop.checkpoint,
            "save",
            lambda path, config, state: (
                states.update({state["step"]: copy.deepcopy(state["model"])}) or plain(path, config, state)
            ),
        )
        summary = training.run(c)
    batches = Batches(DATA.train, 32, 0, mean=MEAN, std=STD, device="cpu")
    protocol = Protocol("running" if norm in ("none", "noise") else "recalibrated", False)
    for step, found in known_rows(c).items():
        model = training.build_model(replace(c, norm=NormConfig("bn" if norm == "noisy_bn" else norm)), 10)
        model.to(memory_format=torch.channels_last).load_state_dict(states[step])
        for split, accuracy in zip((DATA.test, DATA.train), found, strict=True):
            options = {"batch_size": 32, "mean": MEAN.float(), "std": STD.float(), "seed": 7}
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                again = evaluate(model, split, protocol, recalibration=(batches(i)[0] for i in range(3)), **options)
            assert accuracy == again
    assert list(known_rows(c)) == [12, 24]
    assert known_rows(c)[24] == [summary[key] for key in KNOWN]
    assert summary["test/accuracy"][str(protocol)] == summary[KNOWN[0]]


@pytest.mark.parametrize("norm", ["none", "bn", "noisy_bn"])
def test_measuring_what_the_network_knows_changes_nothing_else(tmp_path, monkeypatch, norm):
    on, off = config(tmp_path / "on", norm, eval_every=5), config(tmp_path / "off", norm, eval_every=5)
    monkeypatch.setattr(task.Task, "_affordable", lambda self, images: frozenset((5, 10, 15, 20)))
    with_it = training.run(on)
    monkeypatch.setattr(task.Task, "_affordable", lambda self, images: frozenset())
    assert training.run(off) == with_it
    assert same_weights(weights(on), weights(off))
    assert list(known_rows(on)) == [5, 10, 15, 20, 24]
    without = [{key: value for key, value in row.items() if key not in KNOWN} for row in rows(on)]
    assert without == [{key: value for key, value in row.items() if key not in KNOWN} for row in rows(off)]


def task_of(c, images=1000, test=100):
    """The task of a config on random data of so many images."""
    generator = torch.Generator().manual_seed(0)

    def split(count):
        pixels = torch.randint(256, (count, 2, 2, 3), dtype=torch.uint8, generator=generator)
        return Split(pixels, torch.randint(10, (count,), generator=generator))

    data = replace(DATA, train=split(images), test=split(test), val=split(10))
    return task.Task(c, data, torch.device("cpu"))


def test_the_training_images_are_5000_and_the_same_whatever_the_seed(tmp_path):
    chosen = [
        task_of(config(tmp_path, norm, seed=seed), 6000)._evaluated["train"] for norm, seed in (("bn", 0), ("none", 9))
    ]
    assert len(chosen[0]) == 5000
    assert torch.equal(chosen[0].images, chosen[1].images) and torch.equal(chosen[0].labels, chosen[1].labels)
    everything = task_of(config(tmp_path), 4999)._evaluated["train"]
    assert len(everything) == 4999


@pytest.mark.parametrize(
    ("steps", "eval_every", "batch_size", "train", "test", "recalibration", "at"),
    [
        (2000, 250, 128, 5000, 10_000, 40, {1000}),  # scale=cpu
        (300, 50, 64, 1280, 360, 40, {150}),  # scale=demo
        (15_000, 1000, 128, 5000, 10_000, 40, set(range(1000, 15_000, 1000))),  # experiment=long scale=cpu
        (40_000, 1000, 128, 5000, 10_000, 40, set(range(2000, 40_000, 2000))),
        (100, 1000, 32, 1000, 100, 40, set()),
        (20, 10, 32, 1000, 100, 40, {10}),
    ],
)
def test_it_is_measured_as_often_as_a_twentieth_of_the_training_pays_for(
    tmp_path, steps, eval_every, batch_size, train, test, recalibration, at
):
    c = config(tmp_path, steps=steps, eval_every=eval_every, batch_size=batch_size, recalibration_batches=recalibration)
    found = task_of(c, train, test).known_steps
    assert found == at
    if len(found) > 1:
        passes = recalibration * batch_size + test + min(train, 5000)
        assert len(found) * passes <= 0.05 * 3 * steps * batch_size

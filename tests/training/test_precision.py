"""bfloat16 autocast: what is computed in it, and what is not."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from test_loop import EVERYTHING, Killed, config, kill_at, record_bytes, regression, rows, same_weights, weights
from torch.nn import functional as F

from icsbench import training
from icsbench.config import options_of, probes_options
from icsbench.data import Batches, Split, channel_statistics, load_dataset
from icsbench.errors import IcsbenchError
from icsbench.norms import NoisyBatchNorm2d
from icsbench.training import Protocol, accuracies, checkpoint, environment, evaluation, task

DATA = load_dataset("digits", None, 157)
MEAN, STD = channel_statistics(DATA.train.images)


def evaluate(model, split, protocol, **options):
    """The accuracy on one split."""
    return accuracies(model, {"": split}, protocol, **options)[""]


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
    c = config(tmp_path, norm, amp=True, model=options_of("model", "vgg11", width=0.125), probes=replace(EVERYTHING))
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


def test_the_update_probe_sees_the_noise_of_the_update(tmp_path, monkeypatch):
    """Its loss differs from that in bfloat16 by rounding alone; that of another draw is far off."""

    def largest_error(folder):
        options = {"amp": True, "log_every": 1, "steps": 8, "probes": replace(EVERYTHING, ics=False, update_every=1)}
        c = replace(config(folder, **options), norm=options_of("norm", "noisy_bn", strength=2.0))
        training.run(c)
        measured = {row["step"]: row["landscape/loss"] for row in rows(c) if "landscape/loss" in row}
        trained = {row["step"] - 1: row["train/loss"] for row in rows(c) if "train/loss" in row}
        assert measured.keys() == trained.keys()
        return max(abs(measured[step] - trained[step]) for step in trained)

    assert largest_error(tmp_path / "same") < 0.02
    monkeypatch.setattr(NoisyBatchNorm2d, "coarse", property(lambda self: False, lambda self, value: None), False)
    assert largest_error(tmp_path / "another") > 0.1


def test_the_shift_probe_measures_in_float32(tmp_path):
    """At step 0 nothing is trained yet, so that amp must not show."""
    probes = probes_options(every=6, batch_size=16, samples=64)
    plain, amp = (config(tmp_path / str(on), "bn", amp=on, steps=2, probes=probes) for on in (False, True))
    training.run(plain), training.run(amp)
    name = "probes/shift/step-00000000.npz"
    assert (plain.run_dir / name).read_bytes() == (amp.run_dir / name).read_bytes()


@pytest.mark.parametrize("norm", ["none", "bn", "noisy_bn", "linf"])
def test_probes_on_or_off_is_bit_identical_training_under_autocast(tmp_path, norm):
    on = config(tmp_path / "on", norm, amp=True, probes=EVERYTHING)
    off = config(tmp_path / "off", norm, amp=True, probes=probes_options(shift=False))
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
    c = config(tmp_path, norm, amp=True, steps=40, model=options_of("model", "vgg11", width=0.125))
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
    for c in (config(tmp_path), config(tmp_path, amp=True, probes=probes_options(shift=False))):
        begin(c, without="precision")
        assert training.run(c)["status"] == "complete"


@pytest.mark.parametrize("probes", [probes_options(batch_size=16), probes_options(shift=False, landscape=True)])
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


@pytest.fixture
def as_many(monkeypatch):
    """As many training images as are looked at, all of them; at every evaluation."""
    monkeypatch.setattr(task, "KNOWN_IMAGES", len(DATA.train))
    monkeypatch.setattr(evaluation, "_SHARE", 1e6)


def known_rows(c):
    return {row["step"]: [row[key] for key in KNOWN] for row in rows(c) if any(key in row for key in KNOWN)}


@pytest.mark.parametrize("norm", ["none", "bn", "noisy_bn", "noise", "l1"])
@pytest.mark.parametrize("amp", [False, True])
def test_what_the_network_knows_is_the_recalibrated_accuracy_without_noise(tmp_path, as_many, norm, amp):
    c = config(tmp_path, norm, amp=amp, eval_every=12, checkpoint_every=12, probes=probes_options(shift=False))
    states = {}
    with pytest.MonkeyPatch.context() as patch:
        plain = checkpoint.save
        patch.setattr(
            checkpoint,
            "save",
            lambda path, config, state: (
                states.update({state["step"]: copy.deepcopy(state["model"])}) or plain(path, config, state)
            ),
        )
        summary = training.run(c)
    batches = Batches(DATA.train, 32, 0, mean=MEAN, std=STD, device="cpu")
    protocol = Protocol("running" if norm in ("none", "noise") else "recalibrated", False)
    assert list(known_rows(c)) == [12, 24]
    for step, found in known_rows(c).items():
        model = training.build_model(replace(c, norm=options_of("norm", "bn" if norm == "noisy_bn" else norm)), 10)
        model.to(memory_format=torch.channels_last).load_state_dict(states[step])
        for split, accuracy in zip((DATA.test, DATA.train), found, strict=True):
            options = {"batch_size": 32, "mean": MEAN.float(), "std": STD.float(), "seed": 7}
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                again = evaluate(model, split, protocol, recalibration=(batches(i)[0] for i in range(3)), **options)
            assert accuracy == again
    assert known_rows(c)[24] == [summary[key] for key in KNOWN]
    assert summary["test/accuracy"][str(protocol)] == summary[KNOWN[0]]


@pytest.mark.parametrize("norm", ["none", "bn", "noisy_bn"])
def test_measuring_what_the_network_knows_changes_nothing_else(tmp_path, as_many, norm):
    often, seldom = config(tmp_path / "often", norm, eval_every=5), config(tmp_path / "seldom", norm, eval_every=24)
    assert training.run(often) == training.run(seldom)
    assert same_weights(weights(often), weights(seldom))
    assert list(known_rows(often)) == [5, 10, 15, 20, 24]
    others = [[row for row in rows(c) if "test/accuracy" not in row] for c in (often, seldom)]
    assert others[0] == others[1]


def evaluations_of(c, images=1000, test=100):
    """The evaluations of a config on random data of so many images."""
    generator = torch.Generator().manual_seed(0)

    def split(count):
        pixels = torch.randint(256, (count, 2, 2, 3), dtype=torch.uint8, generator=generator)
        return Split(pixels, torch.randint(10, (count,), generator=generator))

    data = replace(DATA, train=split(images), test=split(test), val=split(10))
    return evaluation.Evaluations(c, task.Task(c, data, torch.device("cpu")), torch.nn.Identity())


def test_the_training_images_are_5000_and_the_same_whatever_the_seed(tmp_path):
    chosen = [
        evaluations_of(config(tmp_path, norm, seed=seed), 6000)._task.splits["train"]
        for norm, seed in (("bn", 0), ("none", 9))
    ]
    assert len(chosen[0]) == 5000
    assert torch.equal(chosen[0].images, chosen[1].images) and torch.equal(chosen[0].labels, chosen[1].labels)
    few = evaluations_of(config(tmp_path), 4999)
    assert few.known_splits == ("test",) and "train" not in few._task.splits


def test_recalibration_along_the_way_sees_an_image_once_at_most(tmp_path):
    assert evaluations_of(config(tmp_path, recalibration_batches=40), 320).recalibration_along == 10
    assert evaluations_of(config(tmp_path, recalibration_batches=4), 320).recalibration_along == 4


@pytest.mark.parametrize(
    ("steps", "eval_every", "batch_size", "train", "test", "at"),
    [
        (2000, 250, 128, 45_000, 10_000, {1000}),  # scale=cpu
        (300, 50, 64, 1280, 360, {150}),  # scale=demo
        (15_000, 1000, 128, 45_000, 10_000, set(range(1000, 15_000, 1000))),  # experiment=long scale=cpu
        (40_000, 1000, 128, 45_000, 10_000, set(range(2000, 40_000, 2000))),
        (100, 1000, 32, 1000, 100, set()),
        (20, 10, 32, 1000, 100, set()),
    ],
)
def test_it_is_measured_as_often_as_a_twentieth_of_the_training_pays_for(
    tmp_path, steps, eval_every, batch_size, train, test, at
):
    c = config(tmp_path, steps=steps, eval_every=eval_every, batch_size=batch_size, recalibration_batches=40)
    found = evaluations_of(c, train, test).known_steps
    assert found == at
    images = min(40, train // batch_size) * batch_size + test + (5000 if train >= 5000 else 0)
    assert len(found) * images <= 0.05 * 3 * steps * batch_size

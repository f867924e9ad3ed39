"""Optimizers of other packages, and wrappers around any of them: arithmetic by hand, order, identity, resuming."""

import json
import math
from dataclasses import dataclass, replace

import pytest
import torch
from networks import register
from omegaconf import OmegaConf
from torch import nn

from icsbench.app.compose import composed
from icsbench.config import (
    Config,
    DataConfig,
    OptimConfig,
    WandbConfig,
    options_of,
    probes_options,
    resolve,
    unknown_key,
)
from icsbench.errors import IcsbenchError
from icsbench.options import in_range
from icsbench.record.writer import load_config
from icsbench.training import run
from icsbench.training.optimizers import Optimizer, Wrapper, build_optimizer


@dataclass
class ClipOptions:
    most: float
    slack: float = 0.0

    def __post_init__(self):
        in_range("optim.wrap.clip.most", self.most, 0, open_low=True)


@dataclass
class WarmUpOptions:
    updates: int = 4


def parameters_of(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def clip(optimizer, options):
    torch.nn.utils.clip_grad_norm_(parameters_of(optimizer), options.most)


def project(optimizer, options):
    """Every parameter back into the ball of the same size."""
    with torch.no_grad():
        for parameter in parameters_of(optimizer):
            parameter *= min(1.0, options.most / parameter.norm().item())


def warm_up(optimizer, options):
    state = optimizer.state["warm_up"]
    state["made"] = state.get("made", 0) + 1
    for group in optimizer.param_groups:
        group["lr"] *= min(1.0, state["made"] / options.updates)


CLIP = Wrapper("clip", ClipOptions, before=clip, after=project)
WARM_UP = Wrapper("warm_up", WarmUpOptions, before=warm_up)


@dataclass
class SignOptions(OptimConfig):
    name: str = "sign"
    power: int = 1


class Sign(torch.optim.Optimizer):
    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter -= group["lr"] * parameter.grad.sign()


SIGN = Optimizer("sign", lambda parameters, options: Sign(parameters, options.lr), SignOptions)


@pytest.fixture(autouse=True)
def dummies(monkeypatch):
    register(monkeypatch, "training.optimizers", CLIP, WARM_UP, SIGN)


def config(folder="results", optim="sgd", **options):
    return Config(
        results=str(folder),
        steps=9,
        log_every=3,
        eval_every=9,
        checkpoint_every=100,
        batch_size=32,
        device="cpu",
        threads=1,
        data=DataConfig("digits8", val_size=157),
        model=options_of("model", "mlp", depth=1, units=12),
        norm=options_of("norm", "none"),
        optim=options_of("optim", optim, **options),
        probes=probes_options(shift=False),
        wandb=WandbConfig("disabled"),
    )


def test_an_update_is_clipped_then_made_then_projected():
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    options = options_of("optim", lr=0.5, momentum=0.9, wrap={"clip": ClipOptions(2.0)})
    optimizer = build_optimizer([weight], options)
    weight.grad = torch.tensor([6.0, 8.0])
    optimizer.step()
    # the gradient of length 10 becomes (1.2, 1.6); 3 - 0.6, 4 - 0.8 has length 4 and becomes 2
    torch.testing.assert_close(weight.detach(), torch.tensor([1.2, 1.6]))
    weight.grad = torch.tensor([0.3, 0.4])  # short enough: v = 0.9 (1.2, 1.6) + (0.3, 0.4)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([1.2 - 0.5 * 1.38, 1.6 - 0.5 * 1.84]))


def test_wrappers_act_in_their_order():
    acted = []

    def noting(name):
        return lambda optimizer, options: acted.append((name, options))

    first, second = (Wrapper(n, dict, noting(f"before {n}"), noting(f"after {n}")) for n in ("one", "two"))
    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    optimizer = torch.optim.SGD([weight], 0.1)
    optimizer.register_step_post_hook(lambda *_: acted.append(("after all", None)))
    acted.clear()
    for wrapper in (first, second):
        wrapper.attach(optimizer, wrapper.name)
    optimizer.step()
    assert [name for name, _ in acted] == ["before one", "before two", "after all", "after one", "after two"]
    assert [options for _, options in acted] == ["one", "two", None, "one", "two"]


def test_a_run_with_a_warm_up_uses_its_rates(tmp_path):
    c = config(tmp_path, lr=0.2, wrap={"warm_up": WarmUpOptions(4)})
    run(c)
    rows = [row for row in map(OmegaConf.create, (c.run_dir / "metrics.jsonl").read_text().splitlines()) if "lr" in row]
    assert [row.lr for row in rows] == [pytest.approx(0.15), 0.2, 0.2]


def test_a_probe_is_told_the_rate_that_was_used(tmp_path):
    probes = probes_options(shift=False, landscape=True, update_every=1, alpha_low=1.0, alpha_high=2.0, alpha_points=2)
    c = replace(config(tmp_path, lr=0.2, wrap={"warm_up": WarmUpOptions(4)}), probes=probes)
    run(c)
    rows = map(json.loads, (c.run_dir / "metrics.jsonl").read_text().splitlines())
    found = [row["landscape/alphas"] for row in rows if "landscape/alphas" in row]
    assert found == [pytest.approx([lr, 2 * lr]) for lr in (0.05, 0.1, 0.15, *[0.2] * 6)]


@pytest.mark.parametrize(
    "optim",
    [
        {"momentum": 0.9, "wrap": {"warm_up": WarmUpOptions(7), "clip": ClipOptions(1.5)}},
        {"optim": "sign", "lr": 1e-3, "wrap": {"warm_up": WarmUpOptions(7)}},
    ],
)
def test_a_resumed_run_is_bit_identical(tmp_path, optim):
    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step == 6:
            raise Killed

    whole = config(tmp_path / "whole", **optim)
    run(whole)
    halves = replace(config(tmp_path / "halves", **optim), checkpoint_every=5)
    with pytest.raises(Killed):
        run(halves, show=kill)
    run(halves)
    assert load_config(halves.run_dir / "config.yaml") == halves
    for name in ("metrics.jsonl", "summary.json"):
        assert (whole.run_dir / name).read_bytes() == (halves.run_dir / name).read_bytes()
    states = [torch.load(c.run_dir / "checkpoint.pt", weights_only=True) for c in (whole, halves)]
    assert states[0]["optimizer"]["state"]["warm_up"] == {"made": 9} == states[1]["optimizer"]["state"]["warm_up"]
    one, two = (state["model"] for state in states)
    assert all(torch.equal(one[name], two[name]) for name in one)
    plain = config(tmp_path / "plain", **{**optim, "wrap": None})
    run(plain)
    unwrapped = torch.load(plain.run_dir / "checkpoint.pt", weights_only=True)["model"]
    assert not all(torch.equal(one[name], unwrapped[name]) for name in one)


def test_wrappers_and_their_order_are_part_of_the_identity():
    def identity(*wrap):
        values = {"optim": {"lr": 0.1, "wrap": dict(wrap)}} if wrap else {}
        return resolve(OmegaConf.create(values)).identity()

    clipped, warmed = ("clip", {"most": 1.0}), ("warm_up", {"updates": 4})
    assert identity() == {}
    assert identity(clipped) == {"optim.wrap": ["clip"], "optim.wrap.clip.most": 1.0}
    assert identity(clipped, warmed) == {"optim.wrap": ["clip", "warm_up"], "optim.wrap.clip.most": 1.0}
    assert identity(warmed, clipped)["optim.wrap"] == ["warm_up", "clip"]
    assert identity(("warm_up", {"updates": 5}))["optim.wrap.warm_up.updates"] == 5


def test_another_optimizer_is_named_in_the_identity():
    c = resolve(OmegaConf.create({"optim": {"name": "sign", "lr": 0.01, "power": 2}}))
    assert isinstance(c.optim, SignOptions)
    assert c.identity() == {"optim.name": "sign", "optim.lr": 0.01, "optim.power": 2}


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        ({"wrap": {"clipp": {}}}, "no wrapper is called 'clipp'; did you mean clip?"),
        ({"wrap": {"clip": {}}}, "optim.wrap.clip.most has no value; give it one"),
        ({"wrap": {"clip": {"most": -1}}}, "optim.wrap.clip.most must be greater than 0 (got -1.0)"),
        ({"wrap": {"clip": {"most": "x"}}}, "'x' of type 'str' could not be converted to Float"),
        (
            {"wrap": {"clip": {"most": 1, "mots": 1}}},
            "unknown key 'optim.wrap.clip.mots'; did you mean 'optim.wrap.clip.most'?",
        ),
        ({"wrap": 3}, "optim.wrap must be a mapping of wrappers to their options (got 3)"),
        ({"wrap": {"clip": 3}}, "3"),
        ({"name": "adam"}, "no optimizer is called 'adam'"),
        ({"name": "sign", "momentum": 0.9}, "'optim.momentum' does not apply to the chosen optim"),
    ],
)
def test_what_is_wrong_is_one_clear_line(optim, message):
    with pytest.raises(IcsbenchError) as caught:
        resolve(OmegaConf.create({"optim": optim}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_loss_of_a_clipped_run_is_finite_where_the_plain_one_is_not(tmp_path):
    clipped = run(config(tmp_path / "clipped", lr=1e7, wrap={"clip": ClipOptions(1.0)}))
    assert math.isfinite(clipped["train/loss"])


def test_a_wrapper_is_put_around_from_the_command_line():
    c = composed(["+optim.wrap.warm_up.updates=9", "+optim.wrap.clip.most=1"])
    assert c.optim.wrap == {"warm_up": WarmUpOptions(9), "clip": ClipOptions(1.0)}
    said = "configuration: 'optim.wrap.clip.most' is of a wrapper that is not there yet; add it with '+{}=VALUE'"
    assert unknown_key("optim.wrap.clip.most") == said.format("optim.wrap.clip.most")

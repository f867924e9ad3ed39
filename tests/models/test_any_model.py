"""A model of another package is checked, named, trained and recorded by what it declares."""

from collections import OrderedDict
from dataclasses import dataclass, replace

import pytest
import torch
from networks import network, register
from omegaconf import OmegaConf
from torch import nn

from icsbench.config import Config, DataConfig, WandbConfig, options_of, probes_options, resolve
from icsbench.errors import IcsbenchError
from icsbench.members import members
from icsbench.models import Block, InitOptions, Model, Network, NormPlace, Residual
from icsbench.options import in_range
from icsbench.record import legacy
from icsbench.record.strict_json import loads
from icsbench.record.writer import load_config
from icsbench.training import run

MODELS = members("models", Model)
FORMER = [name for name in MODELS if legacy.model({"model.name": name})["scales"]]
OF_MODELS = {name: {"depth": 3, "units": 10} for name in ("mlp", "dln", "residual_mlp")}


@dataclass
class WedgeOptions(InitOptions):
    layers: int
    shrink: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        in_range("model.layers", self.layers, 1)
        in_range("model.shrink", self.shrink, 0, 1, open_low=True)

    @property
    def folder_name(self):
        return f"wedge{self.layers}"


class Wedge(Network, nn.Sequential):
    """Each hidden layer is a fixed part of the one before."""

    def __init__(self, options, norm, inputs, outputs, seed):
        layers = OrderedDict(flatten=nn.Flatten())
        for index in range(1, options.layers + 1):
            size = max(1, round(inputs * options.shrink))
            layers[f"fc{index}"] = Block(nn.Linear(inputs, size), NormPlace(size, 1), nn.Tanh())
            inputs = size
        layers["out"] = Block(nn.Linear(inputs, outputs), nn.Identity(), nn.Identity())
        super().__init__(layers)
        self.finish(norm, options, seed)

    def forward(self, x):
        return super().forward(x.double())


def build(options, norm, *, shape, num_classes, seed):
    return Wedge(options, norm, torch.Size(shape).numel(), num_classes, seed)


WEDGE = Model(
    "wedge",
    build,
    lambda options: f"wedge of {options.layers} layers",
    takes="grey images",
    fits=lambda shape, classes: classes and len(shape) == 3 and shape[0] == 1,
    options=WedgeOptions,
    units=True,
    dtype=torch.float64,
    scales={"cpu": {"model.layers": 9}},
)


@pytest.fixture
def wedge(monkeypatch):
    register(monkeypatch, "models", WEDGE)


def config(folder="results", **options):
    return Config(
        results=str(folder),
        **{"steps": 6, "log_every": 2, "eval_every": 3, "recalibration_batches": 2, "batch_size": 16, **options},
        device="cpu",
        threads=1,
        data=DataConfig("digits8", val_size=157),
        model=options_of("model", "wedge", layers=3),
        wandb=WandbConfig("disabled"),
        probes=probes_options(every=3, batch_size=16, samples=64, ics=True, update_every=3),
    )


def test_it_is_trained_and_recorded(wedge, tmp_path):
    c = config(tmp_path)
    summary = run(c)
    assert summary["outcome"] != "diverged" and 0 <= summary["test/accuracy"]["running-off"] <= 1
    assert c.run_name == f"bn-wedge3-digits8-lr0.1-{c.fingerprint}"
    environment = loads((c.run_dir / "environment.json").read_text())
    assert environment["model"] == {
        **{"label": "wedge of 3 layers", "units": True, "scales": {"cpu": {"model.layers": 9}}}
    }
    assert environment["precision"]["training"] == "float64"
    assert load_config(c.run_dir / "config.yaml") == c
    layers = loads((c.run_dir / "probes" / "shift" / "layers.json").read_text())
    assert {layer["layer"]: layer["channels"] for layer in layers} == {"fc1": 32, "fc2": 16, "fc3": 8, "out": 10}
    state = torch.load(c.run_dir / "checkpoint.pt", weights_only=True)["model"]
    assert state["fc1.transform.weight"].dtype == torch.float64


def test_its_identity_is_its_own_and_no_other_changes(wedge):
    c = replace(config(), data=DataConfig("digits8"))
    assert {k: v for k, v in c.identity().items() if k.startswith("model.")} == {
        **{"model.name": "wedge", "model.layers": 3}  # what has no default is always part
    }
    assert Config().fingerprint == "44136fa355"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"name": "wedge"}}, "model.layers has no value; give it one"),
        ({"model": {"name": "wedge", "layers": 0}}, "model.layers must be at least 1 (got 0)"),
        ({"model": {"name": "wedge", "layers": "x"}}, "'x' of type 'str' could not be converted to Integer"),
        (
            {"model": {"name": "wedge", "layers": 1, "shrnk": 1}},
            "unknown key 'model.shrnk'; did you mean 'model.shrink'?",
        ),
        ({"model": {"name": "wedge", "layers": 1, "width": 1}}, "'model.width' does not apply to the chosen model"),
        ({"model": {"name": "wegde"}}, "no model is called 'wegde'; did you mean wedge?"),
        (
            {"model": {"name": "wedge", "layers": 1}},
            "data digits does not fit model wedge, which takes grey images",
        ),
        (
            {"model": {"name": "wedge", "layers": 1}, "data": {"name": "mnist"}, "amp": True},
            "amp=true does nothing for model wedge, which is trained in float64; leave it out",
        ),
    ],
)
def test_what_does_not_fit_is_one_clear_line(wedge, values, message):
    with pytest.raises(IcsbenchError) as caught:
        resolve(OmegaConf.create(values))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FORMER)
def test_a_member_says_of_itself_what_is_said_of_records_without_it(name):
    options = options_of("model", name, **OF_MODELS.get(name, {}))
    settings = {f"model.{key}": value for key, value in vars(options).items()}
    model = MODELS[name]
    scales = {scale: {**said} for scale, said in model.scales.items()}
    if "batch_size" in scales.get("demo", {}):
        scales["demo"]["batch_size"] = 64  # of the demo then; 32 today
    assert legacy.model(settings) == {"label": model.label(options), "units": model.units, "scales": scales}


@pytest.mark.parametrize("name", MODELS)
def test_units_are_single(name):
    shape = (10,) if name == "dln" else (3, 32, 32)
    model = network(name, shape=shape, **OF_MODELS.get(name, {}))
    assert MODELS[name].units == all(isinstance(block.transform, nn.Linear) for _, block in model.layers())
    assert MODELS[name].residual == any(isinstance(module, Residual) for module in model.modules())

"""What a norm declares is what its modules do, and norms of other packages reach weights, places and protocols."""

import re
from dataclasses import dataclass, replace

import pytest
import torch
from networks import NORMS, network, register
from torch import nn
from torch.nn.utils import parametrize

from icsbench.config import Config, WandbConfig, options_of, probes_options
from icsbench.data import Split, normalize
from icsbench.errors import IcsbenchError
from icsbench.members import members
from icsbench.norms import Look, Norm, batch_norms, noise_modules
from icsbench.options import Options, in_range
from icsbench.record import legacy
from icsbench.record.strict_json import loads
from icsbench.training import run
from icsbench.training.evaluation import Protocol, accuracies, protocols_of

LOOK = Look("Standard + a dummy", 1.5, "#123456", (0, (1, 2)), "*")
EVERYTHING = {"every": 4, "batch_size": 16, "samples": 64, "ics": True, "landscape": True, "update_every": 4}


class Standardize(nn.Module):
    """Each output's weights with mean 0 and length ``gain``, which is trained."""

    def __init__(self, weight, gain):
        super().__init__()
        self.gain = nn.Parameter(torch.full((len(weight),), gain))

    def forward(self, weight):
        flat = weight.flatten(1)
        flat = flat - flat.mean(1, keepdim=True)
        return (self.gain[:, None] * flat / flat.norm(dim=1, keepdim=True)).view_as(weight)


@dataclass
class Gain(Options):
    gain: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        in_range("norm.gain", self.gain, 0, open_low=True)


def standardized(options, transform, place):
    parametrize.register_parametrization(transform, "weight", Standardize(transform.weight, options.gain))
    return transform, nn.Identity()


class Doubled(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return 2 * self.inside(x)


class Centred(nn.Module):
    """Takes the batch's mean off, and keeps running means: nothing of PyTorch's batch normalization."""

    def __init__(self, features):
        super().__init__()
        self.momentum = 0.1
        self.register_buffer("average", torch.zeros(features))
        self.register_buffer("batches", torch.tensor(0))

    def reset_running_stats(self):
        self.average.zero_()
        self.batches.zero_()

    def forward(self, x):
        axes = (0, *range(2, x.dim()))
        mean = self.average
        if self.training:
            mean = x.mean(axes)
            self.batches += 1
            share = 1 / self.batches if self.momentum is None else self.momentum
            self.average.lerp_(mean.detach(), share)
        return x - mean.view(1, -1, *[1] * (x.dim() - 2))


class Jitter(nn.Module):
    """Adds noise of a stream of its own."""

    def __init__(self):
        super().__init__()
        self.noise, self.generator = None, None

    def forward(self, x):
        on = self.training if self.noise is None else self.noise
        return x + 5 * torch.randn(x.shape, generator=self.generator) if on else x


STANDARDIZED = Norm("standardized", LOOK, standardized, Gain)
DOUBLED = Norm("doubled", LOOK, lambda o, transform, place: (Doubled(transform), nn.Identity()))
CENTRED = Norm("centred", LOOK, lambda o, t, place: (t, Centred(place.features)), keeps_statistics=True)
JITTER = Norm("jitter", LOOK, lambda o, transform, place: (transform, Jitter()), draws_noise=True)


@pytest.fixture
def dummies(monkeypatch):
    register(monkeypatch, "norms", STANDARDIZED, DOUBLED, CENTRED, JITTER)


def config(folder, norm, **options):
    small = {"steps": 9, "batch_size": 16, "log_every": 3, "eval_every": 4, "recalibration_batches": 2}
    return Config(
        results=str(folder),
        **{**small, "device": "cpu", "threads": 1, "wandb": WandbConfig("disabled"), **options},
        model=options_of("model", "vgg11", width=1 / 32, head="512-512", head_norm=True),
        norm=options_of("norm", norm),
        optim=options_of("optim", lr=1e-3),
    )


@pytest.mark.parametrize("name", NORMS)
def test_a_member_declares_what_its_modules_do(name):
    norm = members("norms", Norm)[name]
    of_units = {"depth": 2, "units": 6}
    model = network("vgg11", name) if norm.maps else network("residual_mlp", name, **of_units)
    assert (norm.keeps_statistics, norm.draws_noise) == (bool(batch_norms(model)), bool(noise_modules(model)))
    assert re.fullmatch("#[0-9A-F]{6}", norm.look.color)
    if name in legacy.LOOKS:  # records with and without a look share figures
        assert norm.look._asdict() == legacy.LOOKS[name]
    looks = [other.look for other in members("norms", Norm).values() if other is not norm]
    assert not {norm.look.order, norm.look.color} & {of for look in looks for of in look}
    lines = {(look.marker, look.linestyle) for look in looks}  # there are fewer markers than norms
    assert (norm.look.marker, norm.look.linestyle) not in lines


def test_the_places_are_told_in_order(monkeypatch):
    places = []

    def layer(options, transform, place):
        assert (place.dimensions == 2) == isinstance(transform, nn.Conv2d)
        assert transform.weight.shape[0] == place.features
        places.append(place)
        return transform, nn.Identity() if place.first or place.last else nn.LayerNorm(place.features)

    register(monkeypatch, "norms", Norm("placed", LOOK, layer))
    model = network("mlp", "placed", depth=4, units=5)
    assert [(p.index, p.count, p.features, p.dimensions) for p in places] == [(i, 4, 5, 1) for i in range(4)]
    assert [(p.first, p.last) for p in places] == [(True, False), (False, False), (False, False), (False, True)]
    kinds = [type(block.norm) for _, block in model.layers()]
    assert kinds == [nn.Identity, nn.LayerNorm, nn.LayerNorm, nn.Identity, nn.Identity]  # the last is the output's

    places.clear()
    monkeypatch.setattr(nn, "LayerNorm", lambda features: nn.Identity())
    network("vgg11", "placed", width=1 / 64, head="512-512", head_norm=True)
    assert [place.dimensions for place in places] == [2] * 8 + [1] * 2
    assert [place.index for place in places if place.last] == [9]


def test_a_place_tells_the_residual_branch_and_the_output(monkeypatch):
    places = []

    def layer(options, transform, place):
        places.append(place)
        return transform, nn.Identity()

    register(monkeypatch, "norms", Norm("hidden", LOOK, layer), Norm("everywhere", LOOK, layer, at_output=True))
    network("residual_mlp", "hidden", shape=(4,), depth=3, units=5)
    stem, *inside = places
    assert stem.branch is None and stem.first and not any(place.output for place in places)
    assert [place.branch for place in inside] == [(b, 3, layer, 2, (3,)) for b in range(3) for layer in range(2)]
    assert [place.branch.last for place in inside] == [False, True] * 3
    assert [(place.index, place.count) for place in places] == [(i, 7) for i in range(7)] and places[-1].last

    for model, options in (
        ("residual_mlp", {"depth": 3, "units": 5}),
        ("mlp", {"depth": 3, "units": 5}),
        ("vgg11", {}),
    ):
        places.clear()
        network(model, "everywhere", num_classes=9, **options)
        *hidden, output = places
        assert output[:6] == (len(hidden), len(hidden), 9, 1, None, True)
        assert type(output.activation) is nn.Identity
        assert hidden[-1].last and not output.last and not any(place.output for place in hidden)


@pytest.mark.parametrize("model", ["vgg11", "mlp", "dln", "resnet20", "residual_mlp"])
def test_a_wrapped_weight_keeps_the_draw_of_the_plain_one(dummies, model):
    options = {"width": 1 / 8} if model in ("vgg11", "resnet20") else {"depth": 3, "units": 10}
    plain = network(model, "none", shape=(10,), seed=3, **options)
    ours = {name: network(model, name, shape=(10,), seed=3, **options) for name in ("standardized", "doubled")}
    for wrapped in ours.values():
        assert [path for path, _ in wrapped.layers()] == [path for path, _ in plain.layers()]
    for (path, block), (_, parametrized), (_, doubled) in zip(
        plain.layers(), ours["standardized"].layers(), ours["doubled"].layers(), strict=True
    ):
        weight = block.transform.weight
        if path == plain.layers()[-1][0]:
            assert torch.equal(parametrized.transform.weight, weight)
            assert torch.equal(doubled.transform.weight, weight)
            continue
        assert torch.equal(parametrized.transform.parametrizations.weight.original, weight)
        assert torch.equal(doubled.transform.inside.weight, weight)
        expected = weight.flatten(1) - weight.flatten(1).mean(1, keepdim=True)
        expected = 0.5 * expected / expected.square().sum(1, keepdim=True).sqrt()
        torch.testing.assert_close(parametrized.transform.weight.flatten(1), expected)
        assert (parametrized.transform.parametrizations.weight[0].gain == 0.5).all()
    shared = dict(plain.named_parameters()).keys() & dict(ours["standardized"].named_parameters()).keys()
    assert all(torch.equal(plain.get_parameter(n), ours["standardized"].get_parameter(n)) for n in shared)
    assert any(name.endswith("bias") for name in shared) == (model != "dln")


def test_random_numbers_of_a_norm_are_a_function_of_the_seed(monkeypatch):
    def layer(options, transform, place):
        return transform, nn.Linear(place.features, place.features)

    register(monkeypatch, "norms", Norm("drawn", LOOK, layer))
    weights = []
    for seed in (0, 1, 0):
        torch.manual_seed(len(weights))
        model = network("mlp", "drawn", shape=(4,), depth=1, units=3, seed=seed)
        weights.append(model.get_submodule("fc1").norm.weight)
    assert torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize("norm", ["standardized", "doubled", "centred", "jitter"])
def test_a_norm_of_another_package_is_trained_measured_and_resumed(dummies, tmp_path, norm):
    plain = run(config(tmp_path / "off", norm, probes=probes_options(shift=False)))
    assert plain["diverged_at"] is None
    whole = config(tmp_path / "whole", norm, probes=probes_options(**EVERYTHING))
    assert {k: v for k, v in run(whole).items() if "/" in k} == {k: v for k, v in plain.items() if "/" in k}
    halves = replace(whole, results=str(tmp_path / "halves"), checkpoint_every=5)

    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step == 6:
            raise Killed

    with pytest.raises(Killed):
        run(halves, show=kill)
    run(halves)
    files = [path.relative_to(whole.run_dir) for path in sorted(whole.run_dir.rglob("*")) if path.is_file()]
    compared = [path for path in files if path.name == "metrics.jsonl" or "probes" in path.parts]
    assert len(compared) > 5
    for path in compared:
        assert (whole.run_dir / path).read_bytes() == (halves.run_dir / path).read_bytes(), path
    environment = loads((whole.run_dir / "environment.json").read_text())
    assert environment["regime"] == {
        **{"label": "Standard + a dummy", "order": 1.5, "color": "#123456"},
        **{"linestyle": [0, [1, 2]], "marker": "*"},
    }
    assert environment["model"]["label"] == "VGG11 at width 1/32"
    assert environment["model"]["scales"]["paper"]["steps"] == 15_000
    assert [*plain["test/accuracy"]] == [str(protocol) for protocol in protocols_of(norm)]


def test_the_protocols_follow_from_what_a_norm_declares(dummies):
    assert [*map(str, protocols_of("standardized"))] == ["running-off"]
    assert [*map(str, protocols_of("centred"))] == ["running-off", "recalibrated-off", "batch-off"]
    assert [*map(str, protocols_of("jitter"))] == ["running-off", "running-on"]


@pytest.mark.parametrize("statistics", ["running", "recalibrated", "batch"])
def test_statistics_of_another_package_are_evaluated_by_hand(dummies, statistics):
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(256, (120, 2, 2, 1), generator=stream).byte()
    mean, std = torch.tensor([0.4]), torch.tensor([0.3])
    recalibration = [normalize(images[start : start + 20], mean, std) + 0.7 for start in (0, 20, 40)]
    model = network("mlp", "centred", shape=(1, 2, 2), depth=1, units=6, init="gaussian", init_std=2.0)
    (norm,) = batch_norms(model)
    norm.average += torch.linspace(-4, 4, 6)

    inputs = normalize(images, mean, std)
    first, last = (model.get_submodule(name).transform for name in ("fc1", "fc2"))
    with torch.no_grad():
        units = first(inputs.flatten(1))
        centre = {
            "running": torch.linspace(-4, 4, 6).expand(120, 6),
            "recalibrated": torch.stack([first(x.flatten(1)).mean(0) for x in recalibration]).mean(0).expand(120, 6),
            "batch": torch.cat([units[start : start + 40].mean(0).expand(40, 6) for start in (0, 40, 80)]),
        }
        answers = {name: last(torch.sigmoid(units - value)).argmax(1) for name, value in centre.items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name, labels in answers.items():
        found = accuracies(
            model,
            {"": Split(images, labels)},
            Protocol(statistics, False),
            batch_size=40,
            mean=mean,
            std=std,
            seed=0,
            recalibration=iter(recalibration),
        )[""]
        assert (found == 1.0) == (name == statistics), (name, found)
    assert norm.momentum == 0.1 and norm.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_noise_of_another_package_is_switched_and_drawn_from_the_stream_of_evaluation(dummies):
    images = torch.randint(256, (60, 2, 2, 1), generator=torch.Generator().manual_seed(0)).byte()
    mean, std = torch.tensor([0.4]), torch.tensor([0.3])
    model = network("mlp", "jitter", shape=(1, 2, 2), depth=1, units=6, init="gaussian", init_std=2.0, seed=2)
    model.eval()
    labels = model(normalize(images, mean, std)).argmax(1)
    options = {"batch_size": 20, "mean": mean, "std": std, "seed": 0}
    splits = {"": Split(images, labels)}
    assert accuracies(model, splits, Protocol("running", False), **options) == {"": 1.0}
    torch.manual_seed(0)
    on = accuracies(model, splits, Protocol("running", True), **options)[""]
    torch.manual_seed(1)
    assert on < 1 and accuracies(model, splits, Protocol("running", True), **options)[""] == on


def test_options_are_those_of_the_norm(dummies):
    assert options_of("norm", "standardized").gain == 0.5
    with pytest.raises(ValueError, match=r"^norm\.gain must be greater than 0 \(got 0\)$"):
        options_of("norm", "standardized", gain=0)
    with pytest.raises(IcsbenchError, match=r"no norm is called 'standardised'; did you mean standardized\?"):
        options_of("norm", "standardised")


def test_a_norm_of_another_package_has_fingerprints_of_its_own_and_changes_no_other(dummies):
    one = Config(norm=options_of("norm", "standardized"))
    assert one.identity() == {"norm.name": "standardized"}
    assert replace(one, norm=options_of("norm", "standardized", gain=2.0)).identity() == {
        **{"norm.name": "standardized", "norm.gain": 2.0}
    }
    assert Config().fingerprint == "44136fa355"

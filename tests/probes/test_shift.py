import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from icsbench.config import Config, options_of
from icsbench.models import Block
from icsbench.norms import noise_modules
from icsbench.probes import Distribution, ShiftProbe, shift_between
from icsbench.probes.shift import is_scheduled
from icsbench.training import build_model


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def vgg(norm, name="vgg11", width=0.0625):
    model = build_model(Config(norm=options_of("norm", norm), model=options_of("model", name, width=width)), 10)
    stream = generator(3)
    for module in noise_modules(model):
        module.generator = stream
    return model


class Perceptron(nn.Module):
    """A second kind of network: vectors, sigmoid units."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.one = Block(nn.Linear(12, 7), nn.BatchNorm1d(7), nn.Sigmoid())
            self.two = Block(nn.Linear(7, 3), nn.Identity(), nn.Identity())

    def forward(self, x):
        return self.two(self.one(x.flatten(1)))

    def layers(self):
        return [("one", self.one), ("two", self.two)]


NETWORKS = {
    "vgg11-none": (lambda: vgg("none"), (16, 3, 32, 32)),
    "vgg11-bn": (lambda: vgg("bn"), (16, 3, 32, 32)),
    "vgg16-bn": (lambda: vgg("bn", "vgg16"), (16, 3, 32, 32)),
    "perceptron": (Perceptron, (40, 12)),
}


def values_by_hand(model, inputs):
    """What the probe should see, layer by layer, as (values, channels) arrays in float64, by a plain forward pass."""
    seen = {}
    modules = dict(model.named_modules())

    def forward(path, block, x):
        rows = x.movedim(1, -1).reshape(-1, x.shape[1])
        seen[f"{path}/input"] = rows.double().numpy().copy()
        pre = block.norm(block.transform(x))
        seen[f"{path}/preactivation"] = pre.movedim(1, -1).reshape(-1, pre.shape[1]).double().numpy().copy()
        return block.activation(pre)

    with torch.no_grad():
        x = inputs
        if isinstance(model, Perceptron):
            x = x.flatten(1)
            for path, block in model.layers():
                x = forward(path, block, x)
            return seen
        for name, module in modules["features"].named_children():
            x = forward(f"features.{name}", module, x) if isinstance(module, Block) else module(x)
        x = x.flatten(1)
        for name, module in modules["head"].named_children():
            x = forward(f"head.{name}", module, x)
    return seen


def move(model, seed):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator(seed))


@pytest.mark.parametrize("network", NETWORKS)
def test_every_quantity_equals_its_brute_force_twin(network):
    build, shape = NETWORKS[network]
    model = build()
    inputs = torch.randn(shape, generator=generator())
    probe = ShiftProbe(model, model.layers(), inputs, samples=10**9, seed=0)  # all positions: nothing is sampled
    seen, rows, arrays = [], [], []
    for step in (0, 1, 5):
        seen.append(values_by_hand(model, inputs))
        reading = probe.measure(step)
        rows.append(reading.row)
        arrays.append(reading.arrays)
        move(model, step)
    assert rows[0] is None
    assert rows[1]["shift/interval"] == 1
    assert rows[2]["shift/interval"] == 4

    for row, now, references in ((rows[1], seen[1], (seen[0], seen[0])), (rows[2], seen[2], (seen[1], seen[0]))):
        checked = {"shift/interval"}
        for suffix, reference in zip(("", "_from_start"), references, strict=True):
            for key, current in now.items():
                path, place = key.rsplit("/", 1)
                prefix = f"shift/{path}/" + ("input_" if place == "input" else "")
                old = reference[key]
                scale = np.sqrt(old.var(axis=0).mean())
                mean = np.abs(current.mean(axis=0) - old.mean(axis=0)).mean()
                variance = np.abs(current.var(axis=0) - old.var(axis=0)).mean()
                w1 = np.mean([stats.wasserstein_distance(old[:, c], current[:, c]) for c in range(current.shape[1])])
                expected = {
                    f"{prefix}mean{suffix}": mean / scale,
                    f"{prefix}variance{suffix}": variance / scale**2,
                    f"{prefix}w1{suffix}": w1 / scale,
                    f"{prefix}mean{suffix}_raw": mean,
                    f"{prefix}variance{suffix}_raw": variance,
                }
                for name, value in expected.items():
                    assert row[name] == pytest.approx(value, rel=1e-4, abs=2e-6), name
                checked |= expected.keys()
        assert checked == row.keys()

    for array, now in zip(arrays, seen, strict=True):
        for place in ("input", "preactivation"):
            here = [value for key, value in now.items() if key.endswith(place)]
            np.testing.assert_allclose(array[f"mean_{place}"], np.concatenate([v.mean(0) for v in here]), atol=2e-5)
            np.testing.assert_allclose(
                array[f"variance_{place}"], np.concatenate([v.var(0) for v in here]), rtol=1e-4, atol=1e-6
            )
            quantiles = np.concatenate([np.quantile(v, (0.15, 0.5, 0.85), axis=0) for v in here], axis=1)
            np.testing.assert_allclose(array[f"quantiles_{place}"], quantiles, rtol=1e-4, atol=2e-5)
            for layer, value in enumerate(here):
                edges, counts = array[f"histogram_edges_{place}"][layer], array[f"histogram_counts_{place}"][layer]
                assert counts.sum() == value.size
                expected, _ = np.histogram(value, bins=np.linspace(value.min(), value.max(), 65))
                assert np.abs(np.cumsum(counts - expected)).max() <= 2  # a value on an edge may fall to either side
                assert edges[0] == pytest.approx(value.min(), abs=1e-5)


def test_layers_are_described_in_the_order_of_the_arrays():
    model = vgg("bn")
    probe = ShiftProbe(model, model.layers(), torch.zeros(4, 3, 32, 32), samples=8, seed=0)
    first = probe.measure(0)
    arrays, layers = first.arrays, first.layers
    assert probe.measure(1).layers is None
    assert [layer["layer"] for layer in layers] == [path for path, _ in model.layers()]
    assert [layer["depth"] for layer in layers] == list(range(1, 10))
    assert [layer["input_channels"] for layer in layers] == [3, *[layer["channels"] for layer in layers[:-1]]]
    assert arrays["mean_preactivation"].shape == (sum(layer["channels"] for layer in layers),)
    assert arrays["histogram_edges_input"].shape == (9, 65)


def test_sampled_wasserstein_is_near_the_exact_one():
    model = vgg("bn", width=0.25)
    inputs = torch.randn(64, 3, 32, 32, generator=generator())
    exact = ShiftProbe(model, model.layers(), inputs, samples=10**9, seed=0)
    sampled = ShiftProbe(model, model.layers(), inputs, samples=1024, seed=0)
    exact.measure(0), sampled.measure(0)
    move(model, 1)
    a, b = exact.measure(1).row, sampled.measure(1).row
    for key in a:
        if key.endswith("w1"):  # in units of the distribution's standard deviation
            assert b[key] == pytest.approx(a[key], abs=0.03), key


def test_nothing_moved_is_no_shift_and_a_known_affine_change_has_its_closed_form():
    sample = torch.randn(5, 1001, generator=generator()).sort(1).values
    now = Distribution(sample.mean(1), sample.var(1, correction=0), sample)
    assert all(value == 0 for value in shift_between(now, now).values())
    moved = Distribution(now.mean + 3, now.variance, sample + 3)
    scale = now.variance.mean().sqrt().item()
    shift = {key: value.item() for key, value in shift_between(now, moved).items()}
    assert shift["mean_raw"] == pytest.approx(3)
    assert shift["w1"] == pytest.approx(3 / scale, rel=1e-5)  # W1 of a translation is its length
    assert shift["variance"] == 0
    wider = Distribution(now.mean * 2, now.variance * 4, sample * 2)
    shift = {key: value.item() for key, value in shift_between(now, wider).items()}
    assert shift["variance"] == pytest.approx(3, rel=1e-5)
    assert shift["w1"] == pytest.approx(sample.abs().mean().item() / scale, rel=1e-5)


def test_a_dead_layer_has_no_shift_until_it_moves():
    dead = Distribution(torch.zeros(3), torch.zeros(3), torch.zeros(3, 10))
    assert all(value == 0 for value in shift_between(dead, dead).values())
    alive = Distribution(torch.ones(3), torch.ones(3), torch.ones(3, 10))
    assert shift_between(dead, alive)["w1"] == float("inf")


def test_the_normalized_shift_does_not_depend_on_units():
    a, b = (torch.randn(4, 500, generator=generator(s)).sort(1).values for s in (1, 2))

    def distribution(x):
        return Distribution(x.mean(1), x.var(1, correction=0), x)

    plain, scaled = (shift_between(distribution(k * a), distribution(k * b)) for k in (1, 100))
    for key in ("mean", "variance", "w1"):
        assert scaled[key].item() == pytest.approx(plain[key].item(), rel=1e-5)


def test_the_preactivation_is_taken_after_the_noise_and_before_the_nonlinearity():
    model = vgg("noisy_bn")
    inputs = torch.randn(16, 3, 32, 32, generator=generator())
    found = ShiftProbe(model, model.layers(), inputs, samples=10**9, seed=0).distributions()
    first = found["features.conv1/preactivation"]
    assert first.sample.min() < 0  # not rectified, although the ReLU works in place
    state = noise_modules(model)[0].generator.get_state()
    with torch.no_grad():
        expected = model.features.conv1.norm(model.features.conv1.transform(inputs)).movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(first.mean, expected.mean(0))
    torch.testing.assert_close(first.sample, expected.t().sort(1).values)
    assert not torch.equal(noise_modules(model)[0].generator.get_state(), state)  # the twin drew, the probe did not


@pytest.mark.parametrize("norm", ["none", "bn", "noisy_bn", "noise"])
def test_state_goes_on_where_it_stopped(norm):
    model, inputs = vgg(norm), torch.randn(8, 3, 32, 32, generator=generator())
    whole = ShiftProbe(model, model.layers(), inputs, samples=64, seed=0)
    whole.measure(0)
    whole.measure(1)
    state = whole.state_dict()
    move(model, 1)
    again = ShiftProbe(model, model.layers(), inputs, samples=64, seed=0)
    again.load_state_dict(state)
    a, b = whole.measure(2), again.measure(2)
    assert a.row == b.row
    assert a.arrays.keys() == b.arrays.keys()
    assert all(np.array_equal(a.arrays[key], b.arrays[key]) for key in a.arrays)


def test_non_finite_activations_are_recorded_not_raised():
    model = vgg("none")
    probe = ShiftProbe(model, model.layers(), torch.randn(4, 3, 32, 32, generator=generator()), samples=64, seed=0)
    probe.measure(0)
    with torch.no_grad():
        model.features.conv3.transform.weight.fill_(float("nan"))
    reading = probe.measure(1)
    row, arrays = reading.row, reading.arrays
    assert row["shift/features.conv1/w1"] == 0
    assert np.isnan(row["shift/features.conv3/w1"])
    assert arrays["histogram_counts_preactivation"][2].sum() == 0


def test_schedule():
    steps = [step for step in range(2001) if is_scheduled(step, 100)]
    model = vgg("none")
    probe = ShiftProbe(model, model.layers(), torch.zeros(2, 3, 32, 32), samples=2, seed=0, every=100)
    assert steps == [step for step in range(2001) if probe.due(step)]
    assert steps[:8] == [0, 1, 2, 4, 8, 16, 32, 64]
    assert steps[8:12] == [99, 100, 199, 200]
    assert steps[-2:] == [1999, 2000]
    assert len(steps) == 48
    assert [s for s in range(12) if is_scheduled(s, 5)] == [0, 1, 2, 4, 5, 8, 9, 10]

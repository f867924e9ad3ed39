import math

import pytest
import torch
from networks import small_vgg
from torch.nn import functional as F

from icsbench.norms import noise_modules
from icsbench.probes import Update, UpdateProbe

ALPHAS = (0.5, 1.0, 2.0)


def problem(regime, momentum=0.0):
    model = small_vgg(regime, name="vgg11")
    stream = torch.Generator().manual_seed(5)
    for module in noise_modules(model):
        module.generator = stream
    data = torch.Generator().manual_seed(7)
    batches = [(torch.randn(12, 3, 32, 32, generator=data), torch.randint(10, (12,), generator=data)) for _ in range(4)]
    layers = [(path, f"{path}.transform") for path, _ in model.layers()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum, weight_decay=5e-4)
    return model, optimizer, batches, layers


def train(model, optimizer, batches, probe=None):
    """What the probe read, the gradients, and the loss of each update."""
    readings, gradients, losses = [], [], []
    for number, (inputs, targets) in enumerate(batches):
        update = Update(number, inputs, targets, 0.1)
        if probe is not None:
            probe.before(update)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
        if probe is not None:
            readings.append(probe.after(update))
    return readings, gradients, losses


def same(some, others):
    """Whether tensors by name are equal to the bit, one dictionary after another."""
    return all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(some, others, strict=True)
    )


@pytest.mark.parametrize("regime", ["none", "bn", "noisy_bn", "noise", "l1"])
def test_training_is_bit_identical_with_and_without(regime):
    model, optimizer, batches, _ = problem(regime, momentum=0.9)
    _, gradients, losses = train(model, optimizer, batches)
    twin, optimizer, batches, layers = problem(regime, momentum=0.9)
    torch.manual_seed(3)
    rng = torch.get_rng_state()
    readings, watched, watched_losses = train(
        twin, optimizer, batches, UpdateProbe(twin, F.cross_entropy, layers=layers, alphas=ALPHAS)
    )
    assert len(readings) == 4
    assert watched_losses == losses
    assert same(gradients, watched)
    assert same([model.state_dict()], [twin.state_dict()])
    assert torch.equal(rng, torch.get_rng_state())


@pytest.mark.parametrize("regime", ["none", "bn", "noisy_bn"])
def test_the_measurement_is_of_the_update_itself(regime):
    model, optimizer, batches, layers = problem(regime)
    probe = UpdateProbe(model, F.cross_entropy, layers=layers, alphas=ALPHAS)
    for reading, gradients, loss in zip(*train(model, optimizer, batches, probe), strict=True):
        row = reading.row
        whole = math.sqrt(sum(g.double().square().sum().item() for g in gradients.values()))
        assert row["landscape/gradient_norm"] == pytest.approx(whole, rel=1e-5)
        assert row["landscape/loss"] == pytest.approx(loss, rel=1e-6)
        assert row["landscape/alphas"] == pytest.approx([0.05, 0.1, 0.2])
        assert len(row["landscape/losses"]) == len(row["landscape/gradient_differences"]) == 3
        for name, path in layers:
            own = gradients[f"{path}.weight"].double().norm().item()
            assert row[f"ics/{name}/gradient_norm"] == pytest.approx(own, rel=1e-5)
        assert row[f"ics/{layers[0][0]}/l2"] == 0
        assert row[f"ics/{layers[-1][0]}/l2"] > 0


def test_a_gradient_that_is_not_finite_leaves_out_what_cannot_be_measured():
    model, optimizer, batches, layers = problem("none")
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    probe = UpdateProbe(model, F.cross_entropy, layers=layers, alphas=ALPHAS)
    [reading], _, _ = train(model, optimizer, batches[:1], probe)
    assert reading.row == {}


def test_the_new_weights_are_back_when_the_loss_raises():
    model, optimizer, batches, layers = problem("bn")
    probe = UpdateProbe(model, lambda *_: 1 / 0, layers=layers, alphas=ALPHAS)
    inputs, targets = batches[0]
    update = Update(0, inputs, targets, 0.1)
    probe.before(update)
    F.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    after = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ZeroDivisionError):
        probe.after(update)
    assert all(torch.equal(value, after[name]) for name, value in model.state_dict().items())


def test_layers_are_numbered_from_one_in_the_record():
    model, *_, layers = problem("bn")
    listed = UpdateProbe(model, F.cross_entropy, layers=layers, alphas=()).layers()
    assert listed[0] == {"layer": layers[0][0], "depth": 1}
    assert [entry["depth"] for entry in listed] == [*range(1, len(layers) + 1)]

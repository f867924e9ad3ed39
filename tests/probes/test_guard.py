import copy

import pytest
import torch
from networks import ANYWHERE, small_vgg

from icsbench.norms import noise_modules
from icsbench.probes import undisturbed

X = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def disturb(model):
    """Everything that a careless measurement could do."""
    model.train()
    model(X).sum().backward()
    model.eval()
    for module in model.modules():
        if hasattr(module, "momentum"):
            module.momentum = None
            module.reset_running_stats()
    for module in noise_modules(model):
        module.noise = True
        module.generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    torch.rand(3)


def state_of(model):
    return {
        "buffers": {name: buffer.clone() for name, buffer in model.named_buffers()},
        "grads": {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
        "requires": [p.requires_grad for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "momenta": [m.momentum for m in model.modules() if hasattr(m, "momentum")],
        "noise": [(m.noise, id(m.generator)) for m in noise_modules(model)],
        "streams": [m.generator.get_state() for m in noise_modules(model)],
        "global": torch.get_rng_state(),
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and a and isinstance(a[0], torch.Tensor):
        return all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.fixture(params=[*ANYWHERE])
def model(request):
    model = small_vgg(request.param, name="vgg11")
    stream = torch.Generator().manual_seed(1)
    for module in noise_modules(model):
        module.generator = stream
    model(X).square().sum().backward()
    model.features.eval()
    model.head.fc1.transform.weight.requires_grad_(False)
    return model


def test_the_disturbance_disturbs(model):
    before = state_of(model)
    disturb(model)
    assert not same(before, state_of(model))


def test_everything_is_put_back(model):
    before = state_of(model)
    grads = {name: p.grad for name, p in model.named_parameters()}
    with undisturbed(model):
        assert all(parameter.grad is None for parameter in model.parameters())
        disturb(model)
    assert same(before, state_of(model))
    assert all(p.grad is grads[name] for name, p in model.named_parameters())


def test_everything_is_put_back_when_the_measurement_fails(model):
    before = state_of(model)
    with pytest.raises(RuntimeError, match="half way"), undisturbed(model):
        disturb(model)
        raise RuntimeError("half way")
    assert same(before, state_of(model))


def test_weights_are_not_copied(model):
    weights = [p.data_ptr() for p in model.parameters()]
    with undisturbed(model):
        pass
    assert [p.data_ptr() for p in model.parameters()] == weights
    assert copy.deepcopy([p.requires_grad for p in model.parameters()])[-2] is False

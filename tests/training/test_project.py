"""The wrapper that keeps weights at their first length: by hand, with BN and without, and what it refuses."""

import copy
from dataclasses import replace

import pytest
import torch
from networks import network
from omegaconf import OmegaConf
from test_loop import config, same_weights, weights
from torch import nn
from torch.nn import functional as F

from icsbench import training
from icsbench.app.compose import composed
from icsbench.config import options_of, probes_options, resolve
from icsbench.errors import IcsbenchError
from icsbench.training.optimizers import build_optimizer
from icsbench.training.optimizers.project import ProjectOptions


def projecting(parameters, tensors="hidden", **options):
    return build_optimizer(parameters, options_of("optim", wrap={"project": ProjectOptions(tensors)}, **options))


def small(regime, name="vgg11"):
    """A network in float64, where what is exact is so to 1e-10, and a batch."""
    options = {"width": 1 / 16} if name == "vgg11" else {"depth": 2, "units": 12}
    shape = (3, 32, 32) if name == "vgg11" else (1, 8, 8)
    model = network(name, regime, shape=shape, seed=104, **options).double()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = 1e-12
    x = torch.randn(16, *shape, generator=torch.Generator().manual_seed(5)).double()
    return model, x, torch.arange(16) % 10


def update(model, optimizer, x, y):
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def test_a_matrix_is_scaled_back_and_a_vector_is_not():
    matrix, vector = nn.Parameter(torch.tensor([[3.0, 4.0]])), nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = projecting([matrix, vector], "all", lr=1.0)
    matrix.grad, vector.grad = torch.tensor([[-3.0, 4.0]]), torch.tensor([-3.0, 4.0])
    optimizer.step()
    torch.testing.assert_close(matrix.detach(), torch.tensor([[5.0, 0.0]]))
    torch.testing.assert_close(vector.detach(), torch.tensor([6.0, 0.0]))
    assert optimizer.state_dict()["state"]["project"] == {"lengths": [5.0]}


@pytest.mark.parametrize("name", ["vgg11", "mlp"])
@pytest.mark.parametrize("tensors", ["hidden", "all"])
def test_lengths_stay_and_those_of_other_parameters_do_not(name, tensors):
    model, x, y = small("bn", name)
    before = {key: p.detach().norm().item() for key, p in model.named_parameters()}
    optimizer = projecting(model.parameters(), tensors, lr=0.5, momentum=0.9)
    for _ in range(3):
        update(model, optimizer, x, y)
    after = {key: p.detach().norm().item() for key, p in model.named_parameters()}
    output = f"{model.layers()[-1][0]}.transform.weight"
    for key, p in model.named_parameters():
        kept = p.dim() > 1 and (tensors == "all" or key != output)
        assert (abs(after[key] - before[key]) < 1e-12 * (1 + before[key])) == kept or key.endswith("transform.bias")


@pytest.mark.parametrize("name", ["vgg11", "mlp"])
def test_with_bn_the_network_is_that_without_projection_and_without_bn_it_is_not(name):
    """After one update: BN makes outputs independent of the length, and a step goes to the same direction."""
    for regime, equal in (("bn", True), ("none", False)):
        model, x, y = small(regime, name)
        twin = copy.deepcopy(model)
        for (_, block), (_, other) in zip(model.layers(), twin.layers(), strict=True):
            for p, q in zip(block.transform.parameters(), other.transform.parameters(), strict=True):
                if hasattr(p, "ahead_of_norm"):
                    q.ahead_of_norm = True  # a copy of a parameter has no attributes
        update(model, projecting(model.parameters(), lr=0.3), x, y)
        update(twin, torch.optim.SGD(twin.parameters(), 0.3), x, y)
        assert torch.allclose(model(x), twin(x), rtol=0, atol=1e-7) == equal
        lengths = [[p.norm().item() for p in m.parameters() if p.dim() > 1][:-1] for m in (model, twin)]
        assert lengths[0] != pytest.approx(lengths[1], rel=1e-6)


def test_a_resumed_run_is_bit_identical(tmp_path):
    optim = options_of("optim", momentum=0.9, wrap={"project": ProjectOptions()})
    c = config(tmp_path / "whole", optim=optim, probes=probes_options(shift=False), steps=10)
    halves = replace(c, results=str(tmp_path / "halves"), checkpoint_every=4)

    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step == 5:
            raise Killed

    training.run(c)
    with pytest.raises(Killed):
        training.run(halves, show=kill)
    training.run(halves)
    assert same_weights(weights(c), weights(halves))
    first = dict(training.build_model(c, 10).named_parameters())
    for key, value in weights(c).items():
        if key in first and value.dim() > 1 and not key.startswith("head"):
            assert value.norm().item() == pytest.approx(first[key].norm().item(), rel=1e-6)


def test_a_weight_of_zero_and_no_weight_at_all_are_refused_in_one_line(tmp_path):
    zero, one = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.ones(2))
    for parameter in (zero, one):
        parameter.grad = torch.ones_like(parameter)
    with pytest.raises(IcsbenchError, match=r"a weight of shape \(2, 3\) starts at zero") as said:
        projecting([zero], "all").step()
    assert "\n" not in str(said.value)
    for parameters, tensors in (([one], "all"), ([zero], "hidden")):
        with pytest.raises(IcsbenchError, match=f"no weight of optim.wrap.project.tensors={tensors} is trained"):
            projecting(parameters, tensors).step()
    with pytest.raises(IcsbenchError, match=r"optim\.wrap\.project\.tensors must be one of hidden, all"):
        resolve(OmegaConf.create({"optim": {"wrap": {"project": {"tensors": "some"}}}}))


def test_it_is_put_around_from_the_command_line():
    c = composed(["+optim.wrap.project.tensors=all"])
    assert c.optim.wrap == {"project": ProjectOptions("all")}

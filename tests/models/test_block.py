"""What the networks share: initial weights, and the same layers in every regime."""

import hashlib

import pytest
import torch
from networks import ANYWHERE, OF_MAPS, network
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from icsbench.models import Block

NETWORKS = {
    "vgg": {"name": "vgg11", "shape": (3, 32, 32), "width": 1 / 8},
    "mlp": {"name": "mlp", "shape": (1, 8, 8), "depth": 3, "units": 100, "init": "gaussian"},
    "resnet": {"name": "resnet20", "shape": (3, 32, 32), "width": 1 / 8, "bias": True},
    "residual_mlp": {"name": "residual_mlp", "shape": (1, 8, 8), "depth": 3, "units": 40},
    "dln": {"name": "dln", "shape": (10,), "num_classes": None, "depth": 25, "units": 10},
}
SIMD = torch.backends.cpu.get_cpu_capability()


def make(kind, norm="none", **options):
    return network(regime=norm, **{**NETWORKS[kind], **options}), NETWORKS[kind]["shape"]


@pytest.mark.skipif(SIMD not in ("AVX2", "AVX512"), reason=f"other processors round otherwise ({SIMD})")
@pytest.mark.parametrize(
    ("init", "checksum", "logits"),
    [
        ("glorot", "08bf75adf9221c1c8c0e4cbda62ea5087fe631dab04d798ff9d1535e54ff67b9", -0.0456011),
        ("he", "e8b7493112a730aa672e87963df78cd4be3da41e4faad1d39c144117845fd94f", 21.7731387),
        ("torch", "aab2d5ad0cd5f33bd1a8d1c37941848be55279f86c3f000a448ee7d68c6c6ea5", -0.2992303),
    ],
)
def test_initial_weights_are_those_of_the_first_release(init, checksum, logits):
    model = network("vgg16", width=1 / 8, init=init, seed=3)
    found = hashlib.sha256()
    for name, parameter in model.named_parameters():
        found.update(name.encode() + parameter.detach().numpy().tobytes())
    assert found.hexdigest() == checksum
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert model(x).sum().item() == pytest.approx(logits, rel=1e-4)


@pytest.mark.parametrize("kind", NETWORKS)
class TestEveryNetwork:
    def test_the_regimes_have_the_same_layers_and_shared_weights_start_equal(self, kind):
        of_maps = "width" in NETWORKS[kind]
        regimes = {norm: make(kind, norm)[0] for norm in ANYWHERE if of_maps or norm not in OF_MAPS}
        layers = [path for path, _ in regimes["none"].layers()]
        reference = dict(regimes["none"].named_parameters())
        normalized = dict(regimes["bn"].named_parameters())
        assert len(normalized) > len(reference)
        for norm, model in regimes.items():
            assert [path for path, _ in model.layers()] == layers
            if any(is_parametrized(block.transform) for _, block in model.layers()):
                continue  # a norm of weights has them under other names; see the tests of any norm
            parameters = dict(model.named_parameters())
            if norm in ("none", "noise", "bn", "noisy_bn", "l1", "l2", "linf"):
                assert parameters.keys() == (reference if norm in ("none", "noise") else normalized).keys()
            for name, value in reference.items():
                of_layer = name.removesuffix(".weight")  # its direction, where the weights are parametrized
                other = parameters.get(f"{of_layer}.parametrizations.weight.original1")
                assert torch.equal(parameters[name] if other is None else other, value)
            if norm not in ("none", "bn_first", "bn_last"):
                assert not any(isinstance(block.norm, nn.Identity) for _, block in model.layers()[:-1])
            assert type(model.layers()[-1][1].norm) is nn.Identity

    def test_another_seed_is_another_network_and_every_layer_differs_from_the_others(self, kind):
        one, two = make(kind, init="torch", seed=0)[0], make(kind, init="torch", seed=1)[0]
        assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        firsts = [parameter.flatten()[0].item() for parameter in one.parameters()]
        assert len(set(firsts)) == len(firsts)

    def test_layers_are_called_in_order_and_hold_all_weights(self, kind):
        model, shape = make(kind, "bn")
        called = []
        for path, block in model.layers():
            assert isinstance(block, Block)
            block.register_forward_hook(lambda *_, path=path: called.append(path))
        model(torch.randn(4, *shape))
        assert called == [path for path, _ in model.layers()]
        held = {parameter for _, block in model.layers() for parameter in block.parameters()}
        assert held == set(model.parameters())

    def test_gaussian_init(self, kind):
        model, _ = make(kind, init="gaussian", init_std=0.03, seed=1)
        weights = torch.cat([block.transform.weight.detach().flatten() for _, block in model.layers()])
        n = weights.numel()
        assert weights.std().item() == pytest.approx(0.03, rel=5 / (2 * n) ** 0.5)
        assert abs(weights.mean().item()) < 5 * 0.03 / n**0.5
        assert (weights / 0.03).pow(4).mean().item() == pytest.approx(3, abs=5 * (96 / n) ** 0.5)
        assert all((p == 0).all() for name, p in model.named_parameters() if name.endswith("bias"))
        twice, _ = make(kind, init="gaussian", init_std=0.06, seed=1)
        for a, b in zip(model.parameters(), twice.parameters(), strict=True):
            torch.testing.assert_close(2 * a, b)

    def test_unknown_init_is_one_clear_line(self, kind):
        with pytest.raises(
            ValueError, match=r"^model\.init must be one of glorot, he, torch, gaussian .got 'xavier'.$"
        ):
            make(kind, init="xavier")

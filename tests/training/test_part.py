"""Training of part of the parameters: which, how many, what stays, resuming, probes, and what is refused."""

from dataclasses import replace

import pytest
import torch
from networks import network
from test_loop import EVERYTHING, config, record_bytes, rows, same_weights, weights

from icsbench import training
from icsbench.config import options_of, probes_options
from icsbench.errors import IcsbenchError
from icsbench.members import member
from icsbench.models import Model
from icsbench.norms import Norm
from icsbench.training.optimizers.project import ProjectOptions
from icsbench.training.part import trained_part


def count(parameters):
    return sum(int(p.trained_entries.sum()) if hasattr(p, "trained_entries") else p.numel() for p in parameters)


def part(train, seed=0, name="vgg16", regime="bn", output=False, **options):
    model = network(name, regime, **options)
    return model, trained_part(model, options_of("optim", train=train, train_output=output), seed)


@pytest.mark.parametrize("train", ["affine", "random"])
@pytest.mark.parametrize(("width", "affine", "head"), [(1, 8448, 5130), (1 / 4, 2112, 1290)])
def test_counts_of_vgg16(train, width, affine, head):
    """Reference sheet 2, E.7: 8,448 of BN and 5,130 of the output layer; a quarter of the width: 2,112 and 1,290."""
    assert count(part(train, width=width)[1]) == affine
    assert count(part(train, width=width, output=True)[1]) == affine + head


@pytest.mark.parametrize(("name", "whole", "without"), [("resnet20", 269_722, 268_346), ("resnet56", 853_018, 848_954)])
def test_counts_of_residual_networks_with_bn_and_without(name, whole, without):
    """Reference sheet 2, E.7."""
    affine = count(part("affine", name=name)[1])
    assert affine == whole - without
    assert count(part("all", name=name)[1]) == whole


def test_random_weights_are_as_many_in_every_layer_and_of_the_seed():
    model, chosen = part("random", width=1 / 16)
    for path, block in model.layers()[:-1]:
        mask = block.transform.weight.trained_entries
        assert mask.shape == block.transform.weight.shape
        assert int(mask.sum()) == sum(p.numel() for p in block.norm.parameters()), path
    masks = [p.trained_entries for p in chosen]
    for seed, same in ((0, True), (1, False)):
        others = [p.trained_entries for p in part("random", seed, width=1 / 16)[1]]
        assert all(torch.equal(a, b) for a, b in zip(masks, others, strict=True)) == same


@pytest.mark.parametrize("train", ["affine", "random"])
def test_an_output_layer_that_has_a_norm_is_trained_whole_where_asked(train):
    norm = member("norms", Norm, "bn_last").bound(options_of("norm", "bn_last", at="output"))
    for output in (False, True):
        build, options = member("models", Model, "mlp").build, options_of("model", "mlp", depth=2, units=8)
        model = build(options, norm, shape=(1, 8, 8), num_classes=10, seed=0)
        chosen = trained_part(model, options_of("optim", train=train, train_output=output), 0)
        _, last = model.layers()[-1]
        assert count(chosen) == (sum(p.numel() for p in last.parameters()) if output else 20)
        assert len({id(p) for p in chosen}) == len(chosen)


def run_of(tmp_path, train, output=False, **changes):
    optim = options_of(
        "optim", momentum=0.9, weight_decay=0.01, train=train, train_output=output, **changes.pop("optim", {})
    )
    c = config(tmp_path, optim=optim, **{"probes": probes_options(shift=False), "steps": 10, **changes})
    return c, training.run(c)


def changed(c):
    first = training.build_model(c, 10).state_dict()
    return {key: (value != first[key]) for key, value in weights(c).items() if "running" not in key}


@pytest.mark.parametrize("output", [False, True])
def test_what_is_not_trained_stays_bit_for_bit(tmp_path, output):
    affine, _ = run_of(tmp_path / "affine", "affine", output)
    random, _ = run_of(tmp_path / "random", "random", output)
    for key, where in changed(affine).items():
        if "num_batches" not in key:
            assert where.any() == (".norm." in key or (output and key.startswith("head"))), key
    moved = changed(random)
    model = training.build_model(random, 10)
    trained_part(model, random.optim, random.seed)
    for key, parameter in model.named_parameters():
        mask = getattr(parameter, "trained_entries", torch.zeros_like(parameter, dtype=torch.bool))
        if output and key.startswith("head"):
            assert moved[key].any()
        else:
            assert not (moved[key] & ~mask).any(), key
            assert not mask.any() or (moved[key] & mask).sum() > 0.5 * mask.sum()


def test_projection_of_a_weight_does_not_move_what_is_not_trained(tmp_path):
    c, _ = run_of(tmp_path, "random", optim={"wrap": {"project": ProjectOptions()}}, steps=3)
    model = training.build_model(c, 10)
    trained_part(model, c.optim, c.seed)
    moved = changed(c)
    for key, parameter in model.named_parameters():
        if hasattr(parameter, "trained_entries"):
            assert moved[key].any() and not (moved[key] & ~parameter.trained_entries).any()


@pytest.mark.parametrize("train", ["affine", "random"])
def test_a_resumed_run_is_bit_identical(tmp_path, train):
    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step == 5:
            raise Killed

    whole, _ = run_of(tmp_path / "whole", train)
    halves = replace(whole, results=str(tmp_path / "halves"), checkpoint_every=4)
    with pytest.raises(Killed):
        training.run(halves, show=kill)
    training.run(halves)
    assert record_bytes(whole).keys() == record_bytes(halves).keys()
    assert rows(whole) == rows(halves)
    assert same_weights(weights(whole), weights(halves))


@pytest.mark.parametrize("train", ["affine", "random"])
def test_every_probe_measures_the_whole_network_and_does_not_disturb(tmp_path, train):
    off, summary = run_of(tmp_path / "off", train, steps=6)
    on = replace(off, results=str(tmp_path / "on"), probes=EVERYTHING)
    assert training.run(on) == summary
    assert same_weights(weights(on), weights(off))
    layers = [path for path, _ in training.build_model(on, 10).layers()]
    measured = {key for row in rows(on) for key in row}
    assert "landscape/beta" in measured and all(f"ics/{path}/l2" in measured for path in layers)


@pytest.mark.parametrize("train", ["affine", "random"])
def test_a_network_without_parameters_of_norms_is_refused(train):
    with pytest.raises(IcsbenchError, match=f"optim.train={train} is about the parameters of norms") as said:
        part(train, regime="none", width=1 / 16)
    assert "\n" not in str(said.value) and "choose norm=bn" in str(said.value)


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"optim\.train must be one of all, affine, random"):
        options_of("optim", train="gamma")
    with pytest.raises(ValueError, match=r"optim\.train_output=true does nothing"):
        options_of("optim", train_output=True)
    assert options_of("optim").train == "all"

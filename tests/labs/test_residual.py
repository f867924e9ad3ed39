"""Labs residual and shattered: against single networks in float64, against theory, and what they refuse."""

import numpy as np
import pytest
import torch
from helpers import invoke

from icsbench.labs.residual import LAB, ResidualOptions, recorded
from icsbench.labs.residual.networks import profile
from icsbench.labs.residual.tensors import draw, run_block
from icsbench.labs.shattered import LAB as SHATTERED
from icsbench.labs.shattered import ShatteredOptions
from icsbench.labs.shattered.correlation import by_depth, looks_linear_by_depth, mean_correlation
from icsbench.random_networks import stream
from icsbench.theory.residual import Block, blocks

DEPTH, WIDTH, BATCH = 6, 10, 5
KINDS = blocks(DEPTH, gain=0.3)


def drawn(networks=2, depth=DEPTH, width=WIDTH, batch=BATCH, seed=7):
    generator = torch.Generator().manual_seed(seed)
    x = 1.3 * torch.randn(networks, batch, width, generator=generator, dtype=torch.float64) + 0.2
    weights = torch.randn(depth, networks, width, width, generator=generator, dtype=torch.float64) * (2 / width) ** 0.5
    return x, weights, torch.randn(networks, batch, width, generator=generator, dtype=torch.float64)


def alone(x, weights, block, top):
    """One network in numpy: signals, branches and gradients by the chain rule, one sample and feature at a time."""
    states, branches, gates, norms = [], [], [], []
    for w in weights:
        mean, deviation = (x.mean(0), x.std(0)) if block.norm else (0.0, 1.0)
        z = (x - mean) / deviation
        hidden = np.maximum(z, 0)
        branch = np.array([block.gain * w @ row for row in hidden])
        states.append(x)
        branches.append(branch)
        gates.append(z > 0)
        norms.append((z, deviation))
        x = block.scale * (block.skip * x + branch)
    gradients, g = [], top
    for w, gate, (z, deviation) in zip(weights[::-1], gates[::-1], norms[::-1], strict=True):
        back = gate * np.array([block.gain * w.T @ row for row in g])
        if block.norm:
            back = (back - back.mean(0) - z * (back * z).mean(0)) / deviation
        g = block.scale * (block.skip * g + back)
        gradients.append(g)
    return states, branches, gradients[::-1]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "residual_fixup"])
def test_batched_networks_are_those_of_a_loop_with_the_chain_rule_written_out(kind):
    x, weights, top = drawn()
    found = profile(x, weights, KINDS[kind], top)
    for network in range(2):
        one = [tensor.numpy() for tensor in (x[network], weights[:, network], top[network])]
        states, branches, gradients = alone(one[0], one[1], KINDS[kind], one[2])
        expected = [
            [np.log(np.square(state).mean()) for state in states],
            [np.log(state.var(0).mean()) for state in states],
            [np.log(branch.var(0).mean()) for branch in branches],
            [np.log(np.square(g).sum() / np.square(one[2]).sum()) for g in gradients],
        ]
        for measured, said in zip(found, expected, strict=True):
            assert measured[:, network].numpy() == pytest.approx(np.array(said), abs=1e-10)


@pytest.mark.parametrize("kind", ["plain", "residual", "residual_bn", "residual_depth"])
def test_gradients_are_those_of_autograd_through_the_whole_network(kind):
    x, weights, top = drawn(seed=8)
    first = x.requires_grad_()
    out = first
    for weight in weights:
        out, _ = run_block(out, weight, KINDS[kind])
    [gradient] = torch.autograd.grad((out * top).sum(), first)
    expected = (gradient.square().sum((1, 2)) / top.square().sum((1, 2))).log()
    assert profile(x, weights, KINDS[kind], top).gradient[0].numpy() == pytest.approx(expected.numpy(), abs=1e-10)


def test_fixup_is_the_identity_with_a_branch_of_two_layers():
    x, weights, top = drawn()
    found = profile(x, weights, KINDS["residual_fixup"], top)
    assert found.gradient.abs().max() < 1e-12 and torch.isinf(found.branch_batch_variance).all()
    assert torch.allclose(found.second_moment, x.square().mean((1, 2)).log().expand(DEPTH, 2))


def test_nothing_overflows_in_single_precision():
    x, weights, top = (tensor.float() for tensor in drawn(depth=200, width=16))
    found = profile(x, weights, Block(), top)
    assert found.second_moment[-1].min() > 80 and found.gradient[0].min() > 80


def test_a_network_is_the_same_whatever_is_drawn_beside_it():
    few = [next(draw(3, "residual", n, 2, 8, 4)) for n in (1, 3)]
    for one, other in zip(few[0][1:3], few[1][1:3], strict=True):
        assert torch.equal(one, other[:1] if one.ndim == 3 else other[:, :1])


def test_only_some_blocks_have_rows():
    assert recorded(23) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20]
    x, weights, top = drawn()
    whole, some = (profile(x, weights, KINDS["residual_bn"], top, at) for at in (None, [0, 4]))
    assert all(torch.equal(one[[0, 4]], other) for one, other in zip(whole, some, strict=True))


@pytest.fixture(scope="module")
def rows():
    return list(LAB.rows(ResidualOptions("residual", depth=30, width=128, batch=64, networks=6), 100))


def means(rows, kind, step):
    at = [row for row in rows if row["kind"] == kind and row["step"] == step]
    assert len(at) == 6
    keys = [key for key in at[0] if f"theory_{key}" in at[0]]
    return {key: (np.mean([row[key] for row in at]), at[0][f"theory_{key}"]) for key in keys}


@pytest.mark.parametrize("step", [1, 2, 10, 30])
def test_measured_is_what_theory_says(rows, step):
    for kind in ("residual_bn", "residual_skipinit", "residual_fixup", "residual_depth", "plain_bn"):
        for key, (measured, said) in means(rows, kind, step).items():
            close = {"rel": 0.08, "abs": 0.3 if key == "log_gradient" else 1e-3}
            assert measured == pytest.approx(said, **close), (kind, key)
    for kind in ("residual", "residual_half", "plain"):  # lengths of samples wander without a norm
        measured, said = means(rows, kind, step)["log_gradient"]
        assert measured == pytest.approx(said, abs=1.0), kind
    assert not any("branch_ratio" in row for row in rows if row["kind"].startswith("plain"))


def naive_correlation(gradients):
    """The definition, pair by pair."""
    batch = len(gradients)
    pairs = [gradients[i] @ gradients[j] for i in range(batch) for j in range(batch) if i != j]
    return np.mean(pairs) / np.mean([g @ g for g in gradients])


def test_the_correlation_is_the_mean_over_pairs():
    gradients, _, _ = drawn(networks=3)
    expected = [naive_correlation(one.numpy()) for one in gradients]
    assert mean_correlation(gradients).numpy() == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize("kind", ["plain", "residual", "residual_bn"])
def test_correlations_are_those_of_a_loop(kind):
    x, weights, _ = drawn(seed=9)
    held = kind == "residual_bn"
    found = by_depth(x, weights, KINDS[kind], [2, 5], [stream(1, "top", number) for number in range(2)], held=held)
    streams = [stream(1, "top", number) for number in range(2)]
    for row, depth in enumerate((2, 5)):
        for network in range(2):
            top = torch.randn(1, WIDTH, generator=streams[network], dtype=torch.float64).expand(BATCH, WIDTH).numpy()
            one = x[network].detach().numpy(), weights[:depth, network].numpy()
            states, _, _ = alone(*one, KINDS[kind], top)
            g = top
            for w, state in zip(one[1][::-1], states[::-1], strict=True):
                mean, deviation = (state.mean(0), state.std(0)) if held else (0.0, 1.0)
                g = KINDS[kind].skip * g + (state > mean) * (g @ w) / deviation
            assert found[row, network].item() == pytest.approx(naive_correlation(g), abs=1e-12)


def test_through_the_statistics_the_sum_is_removed_at_any_depth():
    x, weights, _ = drawn()
    streams = [stream(1, "top", number) for number in range(2)]
    found = by_depth(x, weights, KINDS["plain_bn"], [1, 6], streams, held=False)
    assert found.numpy() == pytest.approx(-1 / (BATCH - 1), abs=1e-10)
    assert looks_linear_by_depth(x, [1, 6], streams).numpy() == pytest.approx(1, abs=1e-10)


@pytest.fixture(scope="module")
def shattered():
    options = ShatteredOptions("shattered", width=256, batch=32, networks=24, depths=[1, 2, 3, 5, 10])
    return list(SHATTERED.rows(options, 100))


@pytest.mark.parametrize(
    "condition", ["plain", "plain_bn_held", "residual", "residual_bn_held", "plain_bn", "residual_bn"]
)
def test_curves_are_those_of_theory(shattered, condition):
    for step in (1, 2, 3, 5, 10):
        at = [row for row in shattered if row["condition"] == condition and row["step"] == step]
        values = [row["correlation"] for row in at]
        error = np.std(values, ddof=1) / len(values) ** 0.5
        # 4 standard errors, and a tenth of what is lost for the finite width
        assert abs(np.mean(values) - at[0]["theory_correlation"]) < 4 * error + 0.012


@pytest.mark.parametrize(
    ("lab", "override", "said"),
    [
        ("residual", "lab.depth=0", "lab.depth must be at least 1 and at most 1000 (got 0)"),
        ("residual", "lab.batch=3", "lab.batch must be at least 4 (got 3)"),
        ("residual", "lab.gain=2", "lab.gain must be at least 0 and at most 1 (got 2.0)"),
        ("residual", "lab.width=1", "lab.width must be at least 2 (got 1)"),
        ("shattered", "lab.batch=2", "lab.batch must be at least 4 (got 2)"),
        ("shattered", "lab.networks=0", "lab.networks must be at least 1 (got 0)"),
        ("shattered", "lab.depths=[3,2]", "lab.depths must be numbers from 1 up, each larger than the last"),
        ("shattered", "lab.depths=[0,2]", "lab.depths must be numbers from 1 up, each larger than the last"),
        ("shattered", "lab.depths=[]", "lab.depths must be numbers from 1 up, each larger than the last"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(lab, override, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke("lab", lab, override)
    assert done.code != 0 and said in done.err and done.err.count("\n") == 1


def test_a_lab_through_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["lab.networks=1", "lab.width=8", "lab.batch=8"]
    done = invoke("lab", "residual", "lab.depth=10", *small)
    assert done.code == 0, done.err
    assert "What comes into block 10" in done.out and "residual_fixup" in done.out
    assert invoke("lab", "shattered", "lab.depths=[1,3]", *small).code == 0

"""What holds on a GPU: the same science as on a CPU, bit-identical where it is promised, and no update that waits."""

import warnings
from dataclasses import replace

import pytest
import torch
from test_loop import EVERYTHING
from test_precision import DATA

from icsbench.config import Config, DataConfig, WandbConfig, options_of, probes_options
from icsbench.norms import ActivationNoise
from icsbench.training import run
from icsbench.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

NORMS = ["none", "bn", "noisy_bn"]


def config(folder, norm, **changes):
    base = Config(
        results=str(folder),
        steps=12,
        batch_size=32,
        log_every=5,
        eval_every=5,
        checkpoint_every=100,
        recalibration_batches=2,
        device="cuda",
        deterministic=True,
        data=DataConfig("digits", val_size=157),
        model=options_of("model", "vgg11", width=0.125),
        norm=options_of("norm", norm),
        optim=options_of("optim", lr=0.05),
        probes=probes_options(shift=False),
        wandb=WandbConfig("disabled"),
    )
    return replace(base, **changes)


def trained(c):
    run(c)
    return torch.load(c.run_dir / "checkpoint.pt", weights_only=True)["model"]


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


@pytest.fixture
def strict():
    """A call after which an operation that waits for the GPU is an error."""

    def begin():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the mode is a prototype
            torch.cuda.set_sync_debug_mode("error")

    yield begin
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_no_update_waits_for_the_gpu(strict, tmp_path, norm, amp):
    trainer = Trainer(config(tmp_path, norm, amp=amp, log_every=100), DATA, torch.device("cuda"))
    for number in range(3):
        trainer.step(number)
    strict()
    with pytest.raises(RuntimeError, match="synchronizing"):
        torch.ones(1, device="cuda").item()
    for number in range(3, 60):  # more than an epoch
        trainer.step(number)


def values(model):
    return torch.cat([parameter.detach().reshape(-1).cpu() for parameter in model.parameters()])


@pytest.mark.parametrize("norm", ["none", "bn"])
def test_an_update_is_that_of_the_cpu(tmp_path, norm):
    changes = []
    for device in ("cpu", "cuda"):
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            trainer = Trainer(config(tmp_path, norm), DATA, torch.device(device))
            before = values(trainer.model)
            trainer.step(0)
            changes.append(values(trainer.model) - before)
    assert (changes[1] - changes[0]).norm() < 1e-3 * changes[0].norm()


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_a_run_repeats_itself_resumed_or_watched(tmp_path, norm, amp):
    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step == 10:
            raise Killed

    whole = trained(config(tmp_path / "whole", norm, amp=amp))
    halves = config(tmp_path / "halves", norm, amp=amp, checkpoint_every=7)
    with pytest.raises(Killed):
        run(halves, show=kill)
    assert_same(whole, trained(halves))
    assert_same(whole, trained(config(tmp_path / "watched", norm, amp=amp, probes=EVERYTHING)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of the compiler
@pytest.mark.parametrize("norm", NORMS)
def test_a_compiled_network_is_trained_to_the_same_weights(tmp_path, norm):
    networks = []
    for compiled in (False, True):
        trainer = Trainer(config(tmp_path, norm, compile=compiled), DATA, torch.device("cuda"))
        for number in range(3):
            trainer.step(number)
        networks.append(trainer.model.state_dict())
    for name, value in networks[0].items():
        torch.testing.assert_close(networks[1][name], value, rtol=2e-2, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noise_has_the_distribution_of_algorithm_1(dtype):
    """Of a' = s a + m with a = 0, then a = 1: per unit, m is uniform around mu, and s is normal around sigma."""
    stream = torch.Generator("cuda").manual_seed(3)
    layer = ActivationNoise(n_mu=0.5, n_sigma=1.25, r_mu=0.1, r_sigma=0.1, generator=stream)
    state = stream.get_state()
    m = layer(torch.zeros(20_000, 8, dtype=dtype, device="cuda")).double()
    stream.set_state(state)
    s = layer(torch.ones(20_000, 8, dtype=dtype, device="cuda")).double() - m
    assert (m.mean(0).abs() < 0.5 + 0.01).all()
    assert (m.amax(0) - m.amin(0)).cpu().numpy() == pytest.approx(0.2, abs=0.01)
    assert m.std(0).cpu().numpy() == pytest.approx(0.1 / 3**0.5, rel=0.03)
    assert ((s.mean(0) > 1 - 0.01) & (s.mean(0) < 1.25 + 0.01)).all()
    assert s.std(0).cpu().numpy() == pytest.approx(0.1, rel=0.05)
    assert m.mean(0).std() > 0.1

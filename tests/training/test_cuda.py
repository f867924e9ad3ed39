"""What holds on a GPU: the same science as on a CPU, bit-identical where it is promised, and no update that waits."""

import warnings

import pytest
import test_loop
import torch
from test_loop import EVERYTHING, Killed, kill_at, same_weights, weights
from test_precision import DATA

from icsbench.config import probes_options
from icsbench.norms import ActivationNoise
from icsbench.training import run
from icsbench.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

DEVICE = "cuda"
NORMS = ["none", "bn", "noisy_bn"]


def config(folder, norm, **changes):
    settings = {"device": DEVICE, "deterministic": True, "probes": probes_options(shift=False)}
    return test_loop.config(folder, norm, **settings | changes)


@pytest.fixture(autouse=True)
def _as_it_was():
    """A run sets what holds for the whole process."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
    torch.use_deterministic_algorithms(False)


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
    trainer = Trainer(config(tmp_path, norm, amp=amp, log_every=100), DATA, torch.device(DEVICE))
    for number in range(3):
        trainer.step(number)
    strict()
    with pytest.raises(RuntimeError, match="synchronizing"):
        torch.ones(1, device=DEVICE).item()
    for number in range(3, 60):  # more than an epoch
        trainer.step(number)


def first_update(c, device=DEVICE):
    """The change of all weights by the first update."""
    trainer = Trainer(c, DATA, torch.device(device))
    before = values(trainer.model)
    trainer.step(0)
    return values(trainer.model) - before


def values(model):
    return torch.cat([parameter.detach().reshape(-1).cpu() for parameter in model.parameters()])


@pytest.mark.parametrize("norm", ["none", "bn"])
def test_an_update_is_that_of_the_cpu(tmp_path, norm):
    c = config(tmp_path, norm)
    expected = first_update(c, "cpu")
    assert (first_update(c) - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of the compiler
@pytest.mark.parametrize("norm", NORMS)
def test_an_update_of_a_compiled_network_is_that_of_the_plain_one(tmp_path, norm):
    expected = first_update(config(tmp_path, norm))
    # rounding makes up to 0.003 of a difference; with other draws of the noise it is larger than the update
    assert (first_update(config(tmp_path, norm, compile=True)) - expected).norm() < 1e-2 * expected.norm()


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_a_run_repeats_itself_resumed_or_watched(tmp_path, norm, amp):
    whole, halves, watched = (config(tmp_path / name, norm, amp=amp) for name in ("whole", "halves", "watched"))
    watched.probes = EVERYTHING
    run(whole)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(11, patch)
        run(halves)
    for c in (halves, watched):
        run(c)
        assert same_weights(weights(c), weights(whole))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noise_has_the_distribution_of_algorithm_1(dtype):
    """Of a' = s a + m with a = 0, then a = 1: per unit, m is uniform around mu, and s is normal around sigma."""
    stream = torch.Generator(DEVICE).manual_seed(3)
    layer = ActivationNoise(n_mu=0.5, n_sigma=1.25, r_mu=0.1, r_sigma=0.1, generator=stream)
    state = stream.get_state()
    m = layer(torch.zeros(20_000, 8, dtype=dtype, device=DEVICE)).double()
    stream.set_state(state)
    s = layer(torch.ones(20_000, 8, dtype=dtype, device=DEVICE)).double() - m
    assert (m.mean(0).abs() < 0.5 + 0.01).all()
    assert (m.amax(0) - m.amin(0)).cpu().numpy() == pytest.approx(0.2, abs=0.01)
    assert m.std(0).cpu().numpy() == pytest.approx(0.1 / 3**0.5, rel=0.03)
    assert ((s.mean(0) > 1 - 0.01) & (s.mean(0) < 1.25 + 0.01)).all()
    assert s.std(0).cpu().numpy() == pytest.approx(0.1, rel=0.05)
    assert m.mean(0).std() > 0.1

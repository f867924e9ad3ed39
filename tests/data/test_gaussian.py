import itertools
import math
import operator

import pytest
import torch
from torch import Tensor

from icsbench.data import FullBatch, gaussian_problem, load_dataset
from icsbench.data.batches import generator
from icsbench.errors import IcsbenchError


def matrix_of(inputs: Tensor, targets: Tensor) -> Tensor:
    """The matrix A of targets = A x."""
    return torch.linalg.lstsq(inputs, targets).solution.T


def assert_standard_normal(values: Tensor) -> None:
    """The first four moments and the share within one standard deviation, within five standard errors."""
    count = values.numel()
    within = math.erf(math.sqrt(0.5))
    for found, expected, variance in (
        (values.mean(), 0, 1),
        (values.square().mean(), 1, 2),
        ((values**3).mean(), 0, 15),
        ((values**4).mean(), 3, 96),
        ((values.abs() < 1).double().mean(), within, within * (1 - within)),
    ):
        assert abs(found.item() - expected) < 5 * math.sqrt(variance / count)


@pytest.mark.parametrize(("samples", "features"), [(1000, 10), (7, 3)])
def test_targets_are_one_matrix_times_each_input(samples: int, features: int):
    inputs, targets = gaussian_problem(3, samples, features)
    assert inputs.shape == targets.shape == (samples, features)
    assert inputs.dtype == targets.dtype == torch.float64
    matrix = torch.randn(features, features, dtype=torch.float64, generator=generator(3, "gaussian", "matrix"))
    for x, y in zip(inputs[:7].tolist(), targets[:7].tolist(), strict=True):
        assert y == pytest.approx([math.fsum(map(operator.mul, row, x)) for row in matrix.tolist()], abs=1e-12)
    assert torch.allclose(matrix_of(inputs, targets), matrix, rtol=0, atol=1e-12)


def test_the_default_is_the_papers_size():
    assert gaussian_problem(0)[0].shape == (1000, 10)
    assert torch.equal(gaussian_problem(0)[1], gaussian_problem(0, 1000, 10)[1])


def test_inputs_and_matrix_are_independent_standard_normals():
    problems = [gaussian_problem(seed, 40) for seed in range(300)]
    inputs = torch.stack([x for x, _ in problems])
    matrices = torch.stack([matrix_of(x, y) for x, y in problems])
    assert_standard_normal(inputs)
    assert_standard_normal(matrices)
    # Products of independent standard normals have mean 0 and variance 1: of neighbouring features, samples and
    # seeds, and of the matrix with the inputs that have its shape.
    for left, right in (
        (inputs[..., 1:], inputs[..., :-1]),
        (inputs[:, 1:], inputs[:, :-1]),
        (inputs[1:], inputs[:-1]),
        (matrices[1:], matrices[:-1]),
        (matrices, inputs[:, :10]),
        (matrices.mT, inputs[:, :10]),
    ):
        assert abs((left * right).mean().item()) < 5 / math.sqrt(left.numel())


def test_targets_have_the_moments_of_sums_of_products():
    # y = sum_j A_j x_j over 10 products of independent normals: variance 10, fourth moment 10 * 9 + 3 * 10 * 9 = 360.
    # Targets that share a matrix or an input are dependent, so the standard error is that over the seeds.
    targets = torch.stack([gaussian_problem(seed, 100)[1] for seed in range(400)])
    for power, expected in ((1, 0), (2, 10), (4, 360)):
        of_seeds = (targets**power).mean((1, 2))
        error = of_seeds.std().item() / math.sqrt(len(of_seeds))
        assert abs(of_seeds.mean().item() - expected) < 5 * error
    second = (targets**2).mean((1, 2))
    # Given A, E y^2 = |row|^2: the mean over ten rows of ten squares has variance 2 * 100 / 100.
    assert 2 < second.var().item() < 3


def test_the_problem_depends_on_the_seed_alone():
    torch.manual_seed(1)
    first = gaussian_problem(5)
    torch.manual_seed(2)
    torch.randn(100, generator=generator(5, "noise"))  # what another regime draws
    state = torch.get_rng_state()
    second = gaussian_problem(5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    problems = [gaussian_problem(seed) for seed in range(4)]
    for one, two in itertools.combinations(problems, 2):
        assert not torch.equal(one[0], two[0])
        assert not torch.allclose(matrix_of(*one), matrix_of(*two), atol=0.1)


def test_the_matrix_does_not_depend_on_the_number_of_samples():
    assert torch.allclose(matrix_of(*gaussian_problem(1)), matrix_of(*gaussian_problem(1, 20)), rtol=0, atol=1e-12)


def test_the_data_set_is_the_problem_of_the_seed():
    first, second = load_dataset("gaussian", None, 0, seed=0), load_dataset("gaussian", "anywhere", 0, seed=1)
    for seed, dataset in enumerate((first, second)):
        inputs, targets = gaussian_problem(seed)
        assert torch.equal(dataset.train.images, inputs)
        assert torch.equal(dataset.train.labels, targets)
        assert (dataset.name, dataset.num_classes) == ("gaussian", None)
        assert dataset.label == "Gaussian, 1,000 x 10, redrawn for each seed"
        for split in (dataset.val, dataset.test):
            assert len(split) == 0
            assert split.images.shape == split.labels.shape == (0, 10)
    assert first.fingerprint == second.fingerprint
    assert len(bytes.fromhex(first.fingerprint)) == 8


@pytest.mark.parametrize(
    ("val_size", "binary", "message"),
    [(5, False, "data.val_size=5 .* must be 0"), (0, True, "data.binary=true .* must be false")],
)
def test_what_does_not_fit_is_refused(val_size: int, binary: bool, message: str):
    with pytest.raises(IcsbenchError, match=f"^{message}$"):
        load_dataset("gaussian", None, val_size, binary=binary)


def test_the_full_batch_is_all_of_it_in_every_step():
    inputs, targets = gaussian_problem(0, 12, 4)
    batches = FullBatch(inputs, targets, "cpu")
    for step in (0, 1, 9999):
        found = batches(step)
        assert torch.equal(found[0], inputs)
        assert torch.equal(found[1], targets)
        assert found[0].dtype == found[1].dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_full_batch_lies_on_the_device():
    inputs, targets = gaussian_problem(0)
    found = FullBatch(inputs, targets, "cuda")(0)
    assert all(tensor.is_cuda for tensor in found)
    assert torch.equal(found[0].cpu(), inputs)
    assert torch.equal(found[1].cpu(), targets)

import pytest
import torch

from icsbench import random_networks as rn

F64 = torch.float64


def test_batch_norm_is_torchs_for_each_network():
    x = rn.gaussian(rn.stream(3, "x"), 4, 7, 5, dtype=F64)
    found = rn.batch_norm(x, gamma=1.5, beta=0.25, eps=1e-3)
    for network in range(4):
        expected = torch.nn.functional.batch_norm(
            x[network], None, None, torch.full((5,), 1.5, dtype=F64), torch.full((5,), 0.25, dtype=F64), True, eps=1e-3
        )
        torch.testing.assert_close(found[network], expected, rtol=1e-12, atol=1e-13)


def test_parts_of_batch_norm():
    x = rn.gaussian(rn.stream(0, "x"), 2, 6, 3, dtype=F64) + 2
    torch.testing.assert_close(rn.batch_norm(x, rescale=False).mean(1), torch.zeros(2, 3, dtype=F64))
    torch.testing.assert_close(rn.batch_norm(x, centre=False).square().mean(1), torch.ones(2, 3, dtype=F64))
    assert rn.batch_norm(x, centre=False).mean() > 0.5


@pytest.mark.parametrize("width", [3, 16])
def test_orthogonal_matrices_are_orthogonal_and_of_the_haar_measure(width):
    q = rn.orthogonal(rn.stream(1, "q"), 400, width, dtype=F64)
    torch.testing.assert_close(q @ q.mT, torch.eye(width, dtype=F64).expand_as(q), rtol=0, atol=1e-12)
    assert abs(q[:, 0, 0].mean()) < 4 / (400 * width) ** 0.5  # without the signs of R it would be far from 0


def test_weights_have_the_stated_size():
    w = rn.square_weights("gaussian", rn.stream(1, "w"), 20, 64, gain=2**0.5, dtype=F64)
    assert (w.square().sum(2).mean() / 2).item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(
        rn.square_weights("orthogonal", rn.stream(1, "w"), 2, 8, gain=2, dtype=F64).square().sum(2),
        torch.full((2, 8), 4.0, dtype=F64),
    )


def test_streams_are_a_function_of_seed_and_name():
    one = rn.gaussian(rn.stream(1, "w", 3), 5)
    assert torch.equal(one, rn.gaussian(rn.stream(1, "w", 3), 5))
    assert not torch.equal(one, rn.gaussian(rn.stream(2, "w", 3), 5))


def test_networks_come_in_parts_that_fit_and_one_at_least():
    assert [[*part] for part in rn.parts(5, 10, 29)] == [[0, 1], [2, 3], [4]]
    assert [[*part] for part in rn.parts(2, 10, 1)] == [[0], [1]]


def test_weights_of_an_unknown_kind_are_refused():
    with pytest.raises(ValueError, match=r"gaussian or orthogonal .got 'sparse'"):
        rn.square_weights("sparse", rn.stream(1, "w"), 1, 4)

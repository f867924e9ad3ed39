"""SGD on many random linear problems at once, in float64, with their batches in one of three orders."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Row
from icsbench.labs.rungs import rungs
from icsbench.labs.shuffling import NORMS, ORDERS, ShufflingOptions
from icsbench.labs.shuffling.optima import every_batch, features, optimum
from icsbench.random_networks import gaussian, stream

_FIRST_WEIGHTS = 0.1


def problems(options: ShufflingOptions, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs ``(problems, n, d)``, targets ``(problems, n)`` and first weights ``(problems, d)``, in float64."""
    draw = stream(seed, "shuffling", "problems")
    n, d, many = options.samples, options.inputs, options.networks
    x = gaussian(draw, many, n, d, dtype=torch.float64)
    start = gaussian(draw, many, d, std=_FIRST_WEIGHTS, dtype=torch.float64)
    if options.task == "regression":
        rule = F.normalize(gaussian(draw, many, d, dtype=torch.float64), dim=1)
        noise = gaussian(draw, many, n, std=options.noise, dtype=torch.float64)
        return x, (x @ rule[..., None])[..., 0] + noise, start
    halves = torch.rand(many, n, generator=draw).argsort(1) % 2
    return x, 2.0 * halves.double() - 1, start


def losses(f: Tensor, y: Tensor, task: str) -> Tensor:
    """The loss of each sample."""
    return (f - y).square() / 2 if task == "regression" else F.softplus(-y * f)


def slopes(f: Tensor, y: Tensor, task: str) -> Tensor:
    """The derivative of each sample's loss by f."""
    return f - y if task == "regression" else -y * torch.sigmoid(-y * f)


def along(
    options: ShufflingOptions, seed: int, x: Tensor, y: Tensor, start: Tensor, norm: str, order: str
) -> Iterator[tuple[int, Tensor]]:
    """``M = w Gamma``, ``(problems, d)``, after each of the recorded numbers of epochs.

    A step is ``w -= lr g Gamma``, ``Gamma -= lr g w`` with ``g = mean over the batch of (dl/df) n(x)``. Problem i of a
    seed has the same permutations with BN and without it, and that of ``shuffle_once`` is the first of ``reshuffle``.
    """
    w, scale = start.clone(), torch.ones_like(start)
    recorded = {*rungs(options.epochs)}
    batches = _batches(options, seed, order)
    for epoch in range(options.epochs):
        chosen = next(batches)
        z = features(x, chosen, norm)
        targets = y.gather(1, chosen.flatten(1)).view(chosen.shape)
        lr = options.lr / (1 + epoch / options.decay)
        for part, target in zip(z.unbind(1), targets.unbind(1), strict=True):
            f = (part @ (w * scale)[..., None])[..., 0]
            g = (slopes(f, target, options.task)[:, None] @ part)[:, 0] / options.batch
            w, scale = w - lr * g * scale, scale - lr * g * w
        if epoch + 1 in recorded:
            yield epoch + 1, w * scale


def _batches(options: ShufflingOptions, seed: int, order: str) -> Iterator[Tensor]:
    """The batches of each epoch, numbers of samples ``(problems, m, B)``."""
    draw, between = stream(seed, "shuffling", "order"), stream(seed, "shuffling", "batches")
    many, n = options.networks, options.samples
    first = torch.rand(many, n, generator=draw).argsort(1).view(many, -1, options.batch)
    rows = torch.arange(many)[:, None]
    yield first
    while True:
        if order == "reshuffle":
            yield torch.rand(many, n, generator=draw).argsort(1).view(first.shape)
        elif order == "fixed_batches":
            yield first[rows, torch.rand(first.shape[:2], generator=between).argsort(1)]
        else:
            yield first


def rows(options: ShufflingOptions, seed: int) -> Iterator[Row]:
    """A row for each recorded epoch, norm, order and problem.

    ``loss``: the risk of the full batch. Of a regression, in lengths of the full batch's M*: ``from_full``, how far M
    is from that; ``from_own``, from M* of its own order; ``from_reshuffled``, from M of ``reshuffle`` at the same
    epoch; and ``angle``, in degrees, between M and the full batch's M*. ``theory_...``: the same, of its M*.

    :raises IcsbenchError: SGD diverged.
    """
    x, y, start = problems(options, seed)
    whole = torch.arange(options.samples).expand(options.networks, 1, -1)
    first = next(_batches(options, seed, "shuffle_once"))
    for norm in NORMS:
        z = features(x, whole, norm)[:, 0]
        best: dict[str, Tensor] = {}
        if options.task == "regression":
            every = every_batch(options.samples, options.batch).expand(options.networks, -1, -1)
            drawn = {"reshuffle": every, "shuffle_once": first, "fixed_batches": first, "full": whole}
            best = {order: optimum(x, y, batches, norm) for order, batches in drawn.items()}
        reshuffled: dict[int, Tensor] = {}
        for order in ORDERS:
            for epoch, m in along(options, seed, x, y, start, norm, order):
                if not m.isfinite().all():
                    raise IcsbenchError(f"{norm}, {order}, epoch {epoch}: SGD diverged; choose a smaller lab.lr")
                reference = reshuffled.setdefault(epoch, m)
                found = {"loss": losses((z @ m[..., None])[..., 0], y, options.task).mean(1)}
                if best:
                    found |= _distances(m, best, order, reference)
                columns = {name: values.tolist() for name, values in found.items()}
                for network in range(options.networks):
                    about: Row = {"step": epoch, "norm": norm, "order": order, "network": network}
                    yield about | {name: values[network] for name, values in columns.items()}


def _distances(m: Tensor, best: dict[str, Tensor], order: str, reshuffled: Tensor) -> dict[str, Tensor]:
    full, own = best["full"], best[order]
    unit = full.norm(dim=1)

    def angle(one: Tensor) -> Tensor:
        # Of two vectors of length 1 the half angle has the sine |a - b| / 2 and the cosine |a + b| / 2.
        a, b = F.normalize(one, dim=1), F.normalize(full, dim=1)
        return torch.rad2deg(2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1)))

    return {
        "from_full": (m - full).norm(dim=1) / unit,
        "theory_from_full": (own - full).norm(dim=1) / unit,
        "from_own": (m - own).norm(dim=1) / unit,
        "from_reshuffled": (m - reshuffled).norm(dim=1) / unit,
        "theory_from_reshuffled": (own - best["reshuffle"]).norm(dim=1) / unit,
        "angle": angle(m),
        "theory_angle": angle(own),
    }

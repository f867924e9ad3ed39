"""The theorems of Santurkar et al. (2018), section 4 and appendix C, evaluated on a network and a batch in float64.

For one unit j (channel) of a layer, with m values over batch and positions: ``y`` is the input of batch normalization,
``yhat = (y - mu) / sigma``, ``z = gamma yhat + beta`` its output, ``g = dL/dz``, ``dy = dLhat/dy`` (Lhat is the loss
through the normalization, L the loss from z on; gamma and beta are constants), ``H = d2L/dz_j dz_j`` and
``Hhat = d2Lhat/dy_j dy_j`` of the network that is there. ``mu_g = <1, g> / m``; ``<g, yhat>`` is ``dL/dgamma``;
``kappa = <g, yhat> ||dy||^2 / (m gamma)``; ``'`` is the transpose. For eps = 0, and only then, exactly:

=================  ====================================================================================================
Fact C.1           ``dy = gamma / (m sigma) (m g - 1 <1, g> - yhat <g, yhat>)``
Theorem 4.1        ``||dy||^2 = gamma^2 / sigma^2 (||g||^2 - <1, g>^2 / m - <g, yhat>^2 / m)``
Theorem 4.2        ``dy' Hhat dy = gamma^2 / sigma^2 (dy' H dy - kappa)``, its first form
Theorem 4.4        ``max ||X' dy||^2 = gamma^2 / sigma^2 lambda^2 (||g||^2 - m mu_g^2 - <g, yhat>^2 / m)`` over all
                   (m, d) matrices ``||X|| <= lambda``, attained by ``X = lambda dy e_1' / ||dy||``
Theorem C.1        ``(X' dy)' (X' Hhat X) (X' dy) = lambda^4 gamma^2 / sigma^2 (dy' H dy - kappa)`` at the same X
Scale invariance   ``L(a W) = L(W)`` and ``grad L(a W) = grad L(W) / a`` for a > 0
Orthogonality      ``<dLhat/dw_j, w_j> = 0``
Lemma 4.5          ``||W0 - k W*||^2 = ||W0 - W*||^2 - (||W*||^2 - <W*, W0>)^2 / ||W*||^2``, where
                   ``k = <W*, W0> / ||W*||^2 > 0``
=================  ====================================================================================================

Where this differs from the printed text (arXiv:1805.11604v3), which has inequalities throughout:

- Theorem 4.1 is printed with ``<g, yhat>^2 / sqrt(m)``. The projection on yhat, of length sqrt(m), gives 1/m, and
  equality; with 1/sqrt(m) the printed "<=" fails wherever ``<g, yhat>`` is not zero.
- Theorem 4.4 is printed as ``ghat <= gamma^2 / sigma^2 (g^2 - m mu_g^2 - lambda^2 <g, yhat>^2)`` with the maxima
  ``g = lambda^2 ||dL/dz||^2`` and ghat of *squared* norms. Squaring g again, dropping lambda^2 from the second term and
  1/m from the third makes the terms differ in dimension. y, and with it dy, is held while X varies.
- Theorem C.1 is printed as ``max betahat < gamma^2 / sigma^2 (max beta - lambda^4 kappa)`` with ``beta`` formed of the
  gradient g. Its proof takes ``X = lambda v e_1' / ||v||``, so the bracket compares ``dy' Hhat dy`` with ``g' H g``; in
  another unit of y (y -> c y) the left side becomes ``c^-4`` and ``gamma^2 / sigma^2 g' H g`` only ``c^-2`` times what
  it was. Theorem 4.2 gives ``dy' H dy`` in its place, and equality. Nor does that X attain the maximum, which is
  ``lambda^4 max (p' dy)^2 p' Hhat p`` over unit vectors p (where positive): p = dy / ||dy|| is not even stationary, as
  Lhat does not change with the scale of y, so that ``<yhat, Hhat dy> = -||dy||^2 / sigma`` is not zero while yhat is
  orthogonal to dy.

A network of ReLU and max-pooling is piecewise linear: its H is that of the linear region that the batch is in.

The options and rows of the lab are here, and nothing that needs torch: ``check`` evaluates, ``printing`` shows.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from icsbench.errors import IcsbenchError
from icsbench.labs.contract import Lab, Row
from icsbench.labs.network import Network
from icsbench.options import Options, in_range

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from icsbench.config import Config


@dataclass
class TheoremsOptions(Options):
    """``units``: channels per layer on which the statements with second derivatives are evaluated."""

    units: int = 4

    def __post_init__(self) -> None:
        in_range("lab.units", self.units, 1)


def _rows(options: TheoremsOptions, seed: int, network: Network) -> Iterator[Row]:
    """One row per batch normalization, of the untrained network and then of the trained one."""
    from icsbench.labs.theorems.network import BATCH_NORMS

    untrained = network.untrained()
    if not any(isinstance(module, BATCH_NORMS) for module in untrained.modules()):
        raise IcsbenchError(
            f"norm={network.config.norm.name} has no batch normalization, which the theorems are about; "
            "choose norm=bn or norm=noisy_bn"
        )
    yield from _of(untrained, "untrained", 0, options, seed, network)
    trained, steps = network.trained()
    yield from _of(trained, "trained", steps, options, seed, network)


def _of(model: "nn.Module", name: str, step: int, options: TheoremsOptions, seed: int, network: Network) -> list[Row]:
    from icsbench.labs.theorems.check import check_theorems
    from icsbench.labs.theorems.reports import rows

    inputs, targets = network.task.batches(0)
    reports = check_theorems(
        model, network.task.loss, inputs, targets, initial=network.initial, units=options.units, seed=seed
    )
    about = {"data": network.dataset.label, "network": name, "step": step}
    return [about | row for row in rows(reports)]


def _show(console: "Console", config: "Config", rows: Sequence[Row]) -> None:
    """Print one report on the untrained network, and one on the trained."""
    from icsbench.labs.theorems.printing import print_report
    from icsbench.labs.theorems.reports import report_of

    for number, ((name, step), found) in enumerate(itertools.groupby(rows, lambda row: (row["network"], row["step"]))):
        layers = list(found)
        if number:
            console.print()
        title = f"{config.run_name}, seed {config.seed}, {layers[0]['data']}: {name} (step {step})"
        print_report(console, f"{title}, batch of {config.batch_size}", [report_of(row) for row in layers])


LAB = Lab(
    name="theorems",
    label="Theorems of Santurkar et al. on a network, untrained and trained",
    rows=_rows,
    options=TheoremsOptions,
    network=True,
    show=_show,
    help="Every batch normalization, on the first training batch, in float64 and with eps = 0: the residuals of the "
    "identities, how often the printed forms fail, and what reduces the gradient, by theory and as measured. The "
    "trained network is that of icsbench train with the same overrides, and is trained only if that run is not there "
    "yet; the default takes a few minutes. norm must be bn or noisy_bn.",
)

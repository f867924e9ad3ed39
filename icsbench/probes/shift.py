"""Distributional covariate shift: how far the distribution of every layer's input and pre-activation has moved."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from icsbench.options import in_range
from icsbench.probes.contract import NetworkWatcher, Probe, Reading, Task
from icsbench.probes.guard import undisturbed
from icsbench.record import schema
from icsbench.streams import stream_seed

PLACES = ("input", "preactivation")
QUANTILES = (0.15, 0.5, 0.85)
BINS = 64
_DENSE_UNTIL = 64


@dataclass
class ShiftOptions:
    """Keys below ``probes``."""

    shift: bool = True
    """Whether the shift is measured."""
    every: int = 100
    """Steps between regular measurements; see :func:`is_scheduled`."""
    batch_size: int = 128
    """Images in the probe batch."""
    samples: int = 1024
    """Positions per channel behind quantiles, histograms and Wasserstein-1."""

    def __post_init__(self) -> None:
        in_range("probes.every", self.every, 2)
        in_range("probes.batch_size", self.batch_size, 2)
        in_range("probes.samples", self.samples, 2)


def is_scheduled(step: int, every: int) -> bool:
    """Whether the probe runs after ``step`` updates.

    Dense early: 0, 1, 2, 4, ..., 64; then regular: ``every``, ``2 every``, ... Each regular probe is a pair of
    ``t - 1`` and ``t``, so that the shift of one single step is known there.
    """
    early = step <= _DENSE_UNTIL and step & (step - 1) == 0
    return early or (step >= every - 1 and step % every in (0, every - 1))


class Distribution(NamedTuple):
    """What is known of the values of one layer at one place; C channels, S sampled positions."""

    mean: Tensor
    """Mean over batch and positions, ``(C,)``."""
    variance: Tensor
    """Biased variance over batch and positions, ``(C,)``."""
    sample: Tensor
    """Values at S fixed positions, sorted, ``(C, S)``."""


def shift_between(reference: Distribution, current: Distribution) -> dict[str, Tensor]:
    """How far ``current`` is from ``reference``, averaged over the C channels; scalars.

    ==============  ============================================================================================
    mean            ``mean_c |mu_c - mu'_c| / s``
    variance        ``mean_c |var_c - var'_c| / s^2``
    w1              ``mean_c W1(c) / s``, W1 the Wasserstein-1 distance ``integral |F^-1(u) - F'^-1(u)| du``, exact
                    for the two sorted samples of equal size: ``mean_i |x_(i) - x'_(i)|``
    mean_raw        ``mean_c |mu_c - mu'_c|`` (Santurkar et al. 2018, Fig. 8)
    variance_raw    ``mean_c |var_c - var'_c|`` (the same figure)
    ==============  ============================================================================================

    ``s = sqrt(mean_c var_c)`` is the scale of the reference distribution. Where it is zero (a dead layer) a ratio is 0
    if nothing moved and infinite otherwise.
    """
    scale = reference.variance.mean().sqrt()
    mean = (current.mean - reference.mean).abs().mean()
    variance = (current.variance - reference.variance).abs().mean()
    w1 = (current.sample - reference.sample).abs().mean()
    return {
        "mean": _ratio(mean, scale),
        "variance": _ratio(variance, scale.square()),
        "w1": _ratio(w1, scale),
        "mean_raw": mean,
        "variance_raw": variance,
    }


def _ratio(value: Tensor, scale: Tensor) -> Tensor:
    return torch.where((scale == 0) & (value == 0), torch.zeros_like(value), value / scale)


class ShiftProbe(NetworkWatcher):
    """Moments, quantiles, histogram and shift of every layer's input and pre-activation on a fixed probe batch.

    The network is measured as it is trained: BN by the statistics of the probe batch, noise on, and drawn from the
    state that the noise stream is in, so what is seen is the distribution that the coming step will see. All of it
    runs inside :func:`icsbench.probes.undisturbed`.

    :param model: the network.
    :param layers: ``(path, block)`` in forward order; a block has a ``norm`` whose output is the pre-activation.
    :param inputs: the probe batch, as the network takes it.
    :param samples: positions per channel, drawn once, behind quantiles, histograms and Wasserstein-1 (all positions
        of a layer that has fewer). Means and variances are over all positions.
    :param seed: seed of the run, for the "probe" stream that draws the positions.
    :param every: steps between regular measurements.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[tuple[str, Any]],
        inputs: Tensor,
        *,
        samples: int,
        seed: int,
        every: int = ShiftOptions.every,
    ) -> None:
        self._model = model
        self._layers = layers
        self._inputs = inputs
        self._samples = samples
        self._seed = seed
        self._every = every
        self._positions: dict[tuple[str, str], Tensor] = {}
        self._first: dict[str, Distribution] = {}
        self._last: dict[str, Distribution] = {}
        self._last_step = 0

    def layers(self) -> list[dict[str, Any]]:
        """Path, depth and channel counts of the layers, in the order of the arrays (after the first measurement)."""
        return [
            {
                "layer": path,
                "depth": depth,
                "input_channels": len(self._first[f"{path}/input"].mean),
                "channels": len(self._first[f"{path}/preactivation"].mean),
            }
            for depth, (path, _) in enumerate(self._layers, start=1)
        ]

    def due(self, step: int) -> bool:
        """See :func:`is_scheduled`."""
        return is_scheduled(step, self._every)

    def distributions(self) -> dict[str, Distribution]:
        """Distributions now, as ``{"<layer path>/<place>": Distribution}`` in forward order."""
        found: dict[str, Distribution] = {}
        with undisturbed(self._model), torch.no_grad(), self._watch(found):
            self._model.train()
            self._model(self._inputs)
        return {f"{path}/{place}": found[f"{path}/{place}"] for path, _ in self._layers for place in PLACES}

    def measure(self, step: int) -> Reading:
        """Measure after ``step`` updates.

        :returns: the row (``shift/<layer>/...``, see :func:`shift_between`; the keys of the layer input begin with
            ``input_``, those against the first measurement end in ``_from_start``), which the first measurement does
            not have; and the arrays: per place ``mean``, ``variance`` (channels of all layers), ``quantiles`` (15, 50
            and 85 %, by linear interpolation), ``histogram_counts`` and ``histogram_edges`` (layers, 64 and 65).
        """
        now = self.distributions()
        row: dict[str, float] | None = None
        layers = None
        if self._first:
            row = {schema.SHIFT_INTERVAL: float(step - self._last_step), **self._shift(now)}
        else:
            self._first = now
            layers = self.layers()
        self._last, self._last_step = now, step
        arrays = _arrays(now)
        counts, edges = arrays["histogram_counts_preactivation"], arrays["histogram_edges_preactivation"]
        histograms = {
            f"activations/{path}": (counts[index], edges[index]) for index, (path, _) in enumerate(self._layers)
        }
        return Reading(row, arrays, layers, histograms)

    def _shift(self, now: dict[str, Distribution]) -> dict[str, float]:
        row: dict[str, Tensor] = {}
        for key, distribution in now.items():
            path, place = key.rsplit("/", 1)
            prefix = "input_" if place == "input" else ""
            for name, value in shift_between(self._last[key], distribution).items():
                row[schema.shift(path, prefix + name)] = value
            for name, value in shift_between(self._first[key], distribution).items():
                quantity, _, raw = name.partition("_")
                row[schema.shift(path, f"{prefix}{quantity}_from_start" + (f"_{raw}" if raw else ""))] = value
        return dict(zip(row, torch.stack(list(row.values())).tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What the next measurement needs of the earlier ones."""
        return {
            "step": self._last_step,
            "first": {key: tuple(value) for key, value in self._first.items()},
            "last": {key: tuple(value) for key, value in self._last.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self._last_step = state["step"]
        self._first = {key: Distribution(*value) for key, value in state["first"].items()}
        self._last = {key: Distribution(*value) for key, value in state["last"].items()}

    @contextmanager
    def _watch(self, found: dict[str, Distribution]) -> Iterator[None]:
        handles = []

        def watch(path: str, block: Any) -> None:
            def before(_: nn.Module, args: tuple[Tensor, ...]) -> None:
                found[f"{path}/input"] = self._describe(path, "input", args[0])

            def after(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
                found[f"{path}/preactivation"] = self._describe(path, "preactivation", output)

            handles.append(block.register_forward_pre_hook(before))
            handles.append(block.norm.register_forward_hook(after))

        try:
            for path, block in self._layers:
                watch(path, block)
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _describe(self, path: str, place: str, values: Tensor) -> Distribution:
        # Taken at once, as copies: a nonlinearity that works in place changes `values` right after.
        rows = values.movedim(1, -1).reshape(-1, values.shape[1]).float()
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        key = (path, place)
        if key not in self._positions:
            generator = torch.Generator().manual_seed(stream_seed(self._seed, "probe", path, place))
            chosen = torch.randperm(len(rows), generator=generator)[: self._samples].sort().values
            self._positions[key] = chosen.to(rows.device)
        sample = rows[self._positions[key]].t().contiguous().sort(dim=1).values
        return Distribution(mean, variance, sample)


def _arrays(distributions: dict[str, Distribution]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for place in PLACES:
        here = [value for key, value in distributions.items() if key.endswith("/" + place)]
        histograms = [_histogram(value.sample) for value in here]
        arrays[f"mean_{place}"] = torch.cat([value.mean for value in here]).cpu().numpy()
        arrays[f"variance_{place}"] = torch.cat([value.variance for value in here]).cpu().numpy()
        arrays[f"quantiles_{place}"] = torch.cat([_quantiles(value.sample) for value in here], dim=1).cpu().numpy()
        arrays[f"histogram_counts_{place}"] = np.stack([counts for counts, _ in histograms])
        arrays[f"histogram_edges_{place}"] = np.stack([edges for _, edges in histograms])
    return arrays


def _quantiles(sample: Tensor) -> Tensor:
    rows = []
    for q in QUANTILES:
        position = q * (sample.shape[1] - 1)
        below = int(position)
        above = min(below + 1, sample.shape[1] - 1)
        rows.append(torch.lerp(sample[:, below], sample[:, above], position - below))
    return torch.stack(rows)


def _histogram(sample: Tensor) -> tuple[np.ndarray, np.ndarray]:
    sample = sample.cpu()  # on a GPU there is no deterministic histogram
    low, high = sample[:, 0].min().item(), sample[:, -1].max().item()
    if not np.isfinite([low, high]).all():
        return np.zeros(BINS, np.int64), np.full(BINS + 1, np.nan, np.float32)
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = torch.histc(sample, bins=BINS, min=low, max=high)
    return counts.numpy().astype(np.int64), np.linspace(low, high, BINS + 1, dtype=np.float32)


def _start(config: Any, model: Any, task: Task) -> ShiftProbe | None:
    options: ShiftOptions = config.probes
    if not options.shift:
        return None
    inputs = task.probe_inputs(options.batch_size)
    return ShiftProbe(model, model.layers(), inputs, samples=options.samples, seed=config.seed, every=options.every)


SHIFT = Probe("shift", ShiftOptions, _start)

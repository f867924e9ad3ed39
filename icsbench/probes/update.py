"""What one update of a training run does to the gradients around it: its ICS and its loss landscape."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from icsbench.options import in_range
from icsbench.probes.contract import Probe, Reading, Task, Update, UpdateWatcher
from icsbench.probes.gradients import LossFn, NotFinite
from icsbench.probes.guard import State
from icsbench.probes.ics import shift_of_update
from icsbench.probes.landscape import landscape_along_gradient
from icsbench.probes.passes import Passes
from icsbench.record import schema


@dataclass
class UpdateOptions:
    """Keys below ``probes``."""

    ics: bool = False
    """Whether the ICS of updates is measured."""
    landscape: bool = False
    """Whether the loss landscape at updates is measured."""
    update_every: int = 25
    """Updates from one measured update to the next; update 0 is the first."""
    alpha_low: float = 0.5
    """The landscape's first step size, in learning rates."""
    alpha_high: float = 4.0
    """Its last step size, in learning rates."""
    alpha_points: int = 6
    """Number of step sizes, from the first to the last in a geometric sequence."""

    def __post_init__(self) -> None:
        in_range("probes.update_every", self.update_every, 1)
        in_range("probes.alpha_low", self.alpha_low, 0, open_low=True)
        in_range("probes.alpha_high", self.alpha_high, self.alpha_low)
        in_range("probes.alpha_points", self.alpha_points, 2)


class UpdateProbe(UpdateWatcher):
    """ICS and loss landscape of single updates, on the batch and with the noise draw of the update itself.

    The weights, which are the new ones after the update, are put back to the old for the measurement and to the new
    after it, bit for bit, and the random streams likewise; ``G`` is thus the very gradient of the update (without
    weight decay).

    :param loss_fn: the loss that is trained on.
    :param layers: ``(name, module path)`` of the layers whose ICS is measured; none for no ICS.
    :param alphas: points of the landscape in learning rates; none for no landscape.
    :param every: updates from one measured update to the next.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        *,
        layers: Sequence[tuple[str, str]],
        alphas: Sequence[float],
        every: int = UpdateOptions.update_every,
    ) -> None:
        self._model = model
        self._loss_fn = loss_fn
        self._layers = layers
        self._alphas = alphas
        self._every = every

    def due(self, step: int) -> bool:
        """Every ``every`` updates, the first one among them."""
        return step % self._every == 0

    def layers(self) -> list[dict[str, Any]]:
        """Name and depth of the layers, for the record."""
        return [{"layer": name, "depth": depth} for depth, (name, _) in enumerate(self._layers, start=1)]

    def before(self, update: Update) -> None:
        """Remember the weights, and all that the forward pass of the update may change."""
        self._before = State(self._model)

    def after(self, update: Update) -> Reading:
        """Measure the update that has been made.

        :returns: the row ``ics/<layer>/l2``, ``relative``, ``cosine``, ``gradient_norm`` and ``weight_norm`` (see
            :class:`icsbench.probes.ICS`); ``landscape/loss``, ``gradient_norm``, ``beta``, and as lists ``alphas``,
            ``losses`` and ``gradient_differences`` (:class:`icsbench.probes.Landscape`). What cannot be measured
            because a gradient is not finite is left out.
        """
        new = {name: parameter.detach().clone() for name, parameter in self._model.named_parameters()}
        now = State(self._model)
        row: dict[str, Any] = {}
        self._before.restore()
        try:
            with Passes(
                self._model, self._loss_fn, update.inputs, update.targets, matrices=bool(self._layers)
            ) as passes:
                if self._layers:
                    paths = {path: name for name, path in self._layers}
                    with contextlib.suppress(NotFinite):
                        for path, ics in shift_of_update(passes, new, list(paths)).items():
                            row |= {schema.ics(paths[path], key): value for key, value in ics._asdict().items()}
                if self._alphas:
                    with contextlib.suppress(NotFinite):
                        landscape = landscape_along_gradient(passes, [update.lr * alpha for alpha in self._alphas])
                        row |= {schema.landscape(key): value for key, value in vars(landscape).items()}
        finally:
            now.restore()
        return Reading(row, layers=self.layers() or None if update.number == 0 else None)


def _start(config: Any, model: Any, task: Task) -> UpdateProbe | None:
    options: UpdateOptions = config.probes
    layers = [(path, f"{path}.transform") for path, _ in model.layers()] if options.ics else []
    ratio = (options.alpha_high / options.alpha_low) ** (1 / (options.alpha_points - 1))
    alphas = [options.alpha_low * ratio**k for k in range(options.alpha_points)] if options.landscape else []
    if not layers and not alphas:
        return None
    return UpdateProbe(model, task.loss, layers=layers, alphas=alphas, every=options.update_every)


UPDATE = Probe("ics", UpdateOptions, _start)
"""ICS and landscape, one probe because they share their passes. The layers that it stores are those of ICS."""

"""What one update of a training run does to the gradients around it: its ICS and its loss landscape."""

import contextlib
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from icsbench.probes.gradients import LossFn, NotFinite
from icsbench.probes.guard import State
from icsbench.probes.ics import shift_of_update
from icsbench.probes.landscape import landscape_along_gradient
from icsbench.probes.passes import Passes


class UpdateProbe:
    """ICS and loss landscape of single updates, on the batch and with the noise draw of the update itself.

    ``before()`` is called ahead of the forward pass of the update, ``after(...)`` behind it. The weights, which are by
    then the new ones, are put back to the old for the measurement and to the new after it, bit for bit, and the random
    streams likewise; ``G`` is thus the very gradient of the update (without weight decay).

    :param loss_fn: the loss that is trained on.
    :param layers: ``(name, module path)`` of the layers whose ICS is measured; none for no ICS.
    :param alphas: points of the landscape in learning rates; none for no landscape.
    """

    def __init__(
        self, model: nn.Module, loss_fn: LossFn, *, layers: Sequence[tuple[str, str]], alphas: Sequence[float]
    ) -> None:
        self._model = model
        self._loss_fn = loss_fn
        self._layers = layers
        self._alphas = alphas

    def layers(self) -> list[dict[str, Any]]:
        """Name and depth of the layers, for the record."""
        return [{"layer": name, "depth": depth} for depth, (name, _) in enumerate(self._layers, start=1)]

    def before(self) -> None:
        """Remember the weights, and all that the forward pass of the update may change."""
        self._before = State(self._model)

    def after(self, inputs: Tensor, targets: Any, lr: float) -> dict[str, Any]:
        """Measure the update that has been made on this batch at this learning rate.

        :returns: the row for ``metrics.jsonl``: ``ics/<layer>/l2``, ``relative``, ``cosine``, ``gradient_norm`` and
            ``weight_norm`` (see :class:`icsbench.probes.ICS`); ``landscape/loss``, ``gradient_norm``, ``beta``, and as
            lists ``alphas``, ``losses`` and ``gradient_differences`` (:class:`icsbench.probes.Landscape`). What cannot
            be measured because a gradient is not finite is left out.
        """
        new = {name: parameter.detach().clone() for name, parameter in self._model.named_parameters()}
        now = State(self._model)
        row: dict[str, Any] = {}
        self._before.restore()
        try:
            with Passes(self._model, self._loss_fn, inputs, targets, matrices=bool(self._layers)) as passes:
                if self._layers:
                    paths = {path: name for name, path in self._layers}
                    with contextlib.suppress(NotFinite):
                        for path, ics in shift_of_update(passes, new, list(paths)).items():
                            row |= {f"ics/{paths[path]}/{key}": value for key, value in ics._asdict().items()}
                if self._alphas:
                    with contextlib.suppress(NotFinite):
                        landscape = landscape_along_gradient(passes, [lr * alpha for alpha in self._alphas])
                        row |= {f"landscape/{key}": value for key, value in vars(landscape).items()}
            return row
        finally:
            now.restore()

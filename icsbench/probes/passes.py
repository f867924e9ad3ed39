"""Passes through a network as it is trained, each from the same state: what a measurement of an update is made of."""

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from icsbench.errors import IcsbenchError
from icsbench.norms import batch_norms
from icsbench.probes.gradients import LossFn, forward_loss, gradients_of, tensors_in
from icsbench.probes.guard import State, undisturbed


class Passes:
    """Training passes of ``model`` on one batch, as a context manager; afterwards all is as it was before.

    Inside, the network is in training mode with gradients on; BN normalizes by the batch. Each pass begins with
    :meth:`begin`, which puts weights, buffers, attributes and random streams back to where they stood at first: all see
    the same draw of noise and dropout, the one that the next training pass would make. Under ``torch.autocast`` and
    ``torch.nn.utils.parametrize.cached`` nothing made from a weight is kept from one pass to the next, and what
    ``torch.compile`` has made is run as it was written.

    :param inputs: a tensor, or a list, tuple or dictionary of inputs, nested or not. They are given to the network as
        its one argument; where it cannot take them so, a list or tuple as its positional and a dictionary as its
        keyword arguments.
    :param matrices: have all weights of two or more dimensions followed, also frozen ones.
    :raises IcsbenchError: a network without parameters, or with some whose values cannot be moved in place.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFn, inputs: Any, targets: Any, *, matrices: bool = False) -> None:
        _refuse_unmeasurable(model)
        self.model = model
        self.trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        """The parameters that require a gradient, apart from ``matrices``."""
        self.inputs = inputs
        self._loss_fn = loss_fn
        self._targets = targets
        self._matrices = matrices
        self._repeatable = False
        self._here: tuple[Tensor, dict[nn.Parameter, Tensor | None]] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            self.inputs, self._targets = _outside_inference(self.inputs), _outside_inference(self._targets)
            held = (self.inputs, self._targets, *([self._loss_fn] if isinstance(self._loss_fn, nn.Module) else []))
            stack.enter_context(undisturbed(self.model, *held))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(_no_cast_is_kept())
            if "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            self.model.train()
            if self._matrices:
                for parameter in self.model.parameters():
                    parameter.requires_grad_(parameter.requires_grad or is_matrix(parameter))
            self._state = State(self.model, *held)
            self._call = self._how_to_call()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def begin(self) -> None:
        """Put everything back to where the first pass begins, the weights too."""
        with torch.no_grad():
            self._state.restore()
        _forget_weights()

    def forward(self, inputs: Any) -> Any:
        """The network's own outputs."""
        try:
            return self._call(inputs)
        except ValueError as error:
            if "value per channel" not in str(error) or not batch_norms(self.model):
                raise
            count = len(tensors_in(inputs)[0])
            name = type(self.model).__name__
            raise IcsbenchError(
                f"{name} has batch normalization: inputs must hold at least 2 samples (got {count})"
            ) from error

    def loss(self, forward: Callable[[Any], Any] | None = None, inputs: Any = None) -> Tensor:
        """The loss of one pass through the network, or of ``forward`` on ``inputs`` in its place."""
        if forward is None:
            return forward_loss(self.forward, self._loss_fn, self.inputs, self._targets)
        return forward_loss(forward, self._loss_fn, inputs, self._targets)

    def here(self, loss: Tensor | None = None) -> tuple[Tensor, dict[nn.Parameter, Tensor | None]]:
        """Loss and gradients at the current weights; None for a parameter that the loss does not depend on.

        Computed once: from ``loss``, that of a pass that has just been made, or from a pass of its own.
        """
        if self._here is None:
            if loss is None:
                self.begin()
                loss = self.loss()
            followed = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            self._here = loss.detach(), dict(zip(followed, gradients_of(loss, followed), strict=True))
        return self._here

    @property
    def of_foreign_code(self) -> bool:
        """Whether modules of the network are neither of torch or torchvision nor of this package."""
        known = ("torch", "torchvision", "icsbench")
        return any(type(module).__module__.partition(".")[0] not in known for module in self.model.modules())

    def streams(self) -> Callable[[], None]:
        """Note where the random streams stand; a call of the result goes back there."""
        return self._state.streams()

    def changes_only(self, buffers: list[Tensor]) -> bool:
        """Whether what has been run since :meth:`begin` changed nothing but these buffers and the random streams."""
        return self._state.kept_but_for(buffers)

    def refuse_unrepeatable(self, other: Tensor | None = None) -> None:
        """Refuse a network whose loss is not the same again when a pass is repeated from the same state.

        ``other``: the loss of such a pass, if there has been one, that may have been computed in another order.

        :raises IcsbenchError: the loss is another.
        """
        loss, _ = self.here()
        if self._repeatable or (other is not None and _close(loss, other, 0)):
            self._repeatable = True
            return
        self.begin()
        again = self.loss().detach()
        if not _close(loss, again, 0 if again.device.type == "cpu" else 1e-3):
            raise IcsbenchError(
                f"two passes from the same state have different losses ({loss.item():.6g} and {again.item():.6g}): "
                f"{type(self.model).__name__} changes something outside its modules, such as a global variable, so it "
                "cannot be measured; keep it in an attribute or a buffer"
            )
        self._repeatable = True

    def _how_to_call(self) -> Callable[[Any], Any]:
        ways: list[Callable[[Any], Any]] = [self.model]
        if isinstance(self.inputs, (tuple, list)):
            ways.append(lambda inputs: self.model(*inputs))
        elif isinstance(self.inputs, Mapping) and all(isinstance(key, str) for key in self.inputs):
            ways.append(lambda inputs: self.model(**inputs))
        failed: list[Exception] = []
        for way in ways if len(ways) > 1 else []:
            try:
                way(self.inputs)
                return way
            except Exception as error:
                failed.append(error)
            finally:
                self.begin()
        if failed:  # an argument that does not fit is a TypeError; whatever else there is says more
            raise next((error for error in failed if not isinstance(error, TypeError)), failed[0])
        return self.model


def _close(loss: Tensor, other: Tensor, tolerance: float) -> bool:
    return torch.allclose(loss.double(), other.double(), rtol=tolerance, atol=0, equal_nan=True)


def is_matrix(parameter: Tensor) -> bool:
    """Whether it is a weight of two or more dimensions that has a gradient."""
    return parameter.dim() > 1 and (parameter.is_floating_point() or parameter.is_complex())


def _refuse_unmeasurable(model: nn.Module) -> None:
    if not any(True for _ in model.parameters()):
        raise IcsbenchError(f"{type(model).__name__} has no parameters, so there is no gradient to measure")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        kind = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
        if nn.parameter.is_lazy(tensor):
            raise IcsbenchError(f"{kind} {name!r} has no shape yet; run one batch through the network first")
        if tensor.is_meta:
            raise IcsbenchError(f"{kind} {name!r} is on the device meta and has no values; load the weights first")
        if tensor.is_inference():
            raise IcsbenchError(
                f"{kind} {name!r} was made under torch.inference_mode and cannot be trained; build the network outside"
            )
        if kind == "parameter" and tensor.layout != torch.strided:
            raise IcsbenchError(f"parameter {name!r} is sparse ({tensor.layout}); measure a network with a dense copy")
        if kind == "parameter" and any(s == 0 and n > 1 for s, n in zip(tensor.stride(), tensor.shape, strict=True)):
            raise IcsbenchError(f"parameter {name!r} is an expanded view, whose entries share memory; make it a copy")


def _outside_inference(values: Any) -> Any:
    """The same values with normal tensors in the place of those made under ``torch.inference_mode``."""
    if isinstance(values, Tensor):
        return values.clone() if values.is_inference() else values
    if not any(tensor.is_inference() for tensor in tensors_in(values)):
        return values
    if isinstance(values, Mapping):
        return {key: _outside_inference(value) for key, value in values.items()}
    parts = [_outside_inference(value) for value in values]
    return type(values)(*parts) if hasattr(values, "_fields") else type(values)(parts)


@contextmanager
def _no_cast_is_kept():
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)
        _forget_weights()


def _forget_weights() -> None:
    """Drop what ``torch.autocast`` and ``parametrize.cached`` have computed from weights at other values."""
    torch.clear_autocast_cache()
    getattr(parametrize, "_cache", {}).clear()

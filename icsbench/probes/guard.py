"""The one guard inside which everything is measured, and the state that every pass of a measurement starts from."""

import logging
import random
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from icsbench.errors import IcsbenchError

_ATOMS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
_NOT_WALKED = (type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, logging.Logger)
_LIBRARIES = {*sys.stdlib_module_names, "torch", "torchvision", "numpy", "hydra", "omegaconf", "wandb"}


class _Stream(NamedTuple):
    where: Callable[[], Any]
    go_to: Callable[[Any], Any]


class State:
    """What a forward pass can change, as it is when this is made; :meth:`restore` puts it back bit for bit.

    That is, of ``roots`` (modules, tensors, and lists, tuples and dictionaries of them): the bytes, shape and place in
    memory of every tensor (also of one that cannot be written to in place), ``.grad`` and ``requires_grad``;
    attributes, parameters, buffers, hooks and submodules of every module and what they are bound to, train or eval
    mode; the content of lists, dictionaries, sets, arrays and plain objects that the modules hold, however deep; plain
    values that their classes hold. Beside them the random streams: torch's default ones on every device, those of numpy
    and of Python's ``random``, and every generator that a module holds.

    What a pass keeps elsewhere, such as in a global variable or in a closure, is not seen.

    :raises IcsbenchError: the memory of a tensor cannot be copied.
    """

    def __init__(self, *roots: Any) -> None:
        self._seen: dict[int, Any] = {}
        self._dicts: list[tuple[dict, dict]] = []
        self._lists: list[tuple[Any, list]] = []
        self._slots: list[tuple[Any, str, Any]] = []
        self._modes: list[tuple[nn.Module, bool]] = []
        self._tensors: list[tuple[Tensor, Tensor]] = []
        self._leaves: list[tuple[Tensor, Tensor | None, bool]] = []
        self._memory: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}
        self._arrays: list[tuple[np.ndarray, np.ndarray]] = []
        self._streams = [(stream, stream.where()) for stream in _default_streams()]
        self._walk(list(roots))

    def restore(self) -> None:
        """Put everything back."""
        for content, saved in self._dicts:
            if (content or saved) and _differ(content, saved):
                content.clear()
                content.update(saved)
        for content, saved in self._lists:
            if [*map(id, content)] != [*map(id, saved)]:
                content.clear()
                (content.update if isinstance(content, set) else content.extend)(saved)
        for holder, name, value in self._slots:
            if getattr(holder, name, None) is not value:
                (type.__setattr__ if isinstance(holder, type) else object.__setattr__)(holder, name, value)
        for module, training in self._modes:
            if module.training != training:
                module.training = training
        for tensor, alias in self._tensors:
            if _moved(tensor, alias):
                tensor.data = alias
        for live, saved in self._memory.values():
            storage = live.untyped_storage()
            if storage.nbytes() != saved.nbytes:
                storage.resize_(saved.nbytes)
            # Memory that did not change may be read-only; on other devices a copy is cheaper than a comparison.
            if live.device.type != "cpu" or not torch.equal(live, saved):
                live.copy_(saved)
        for tensor, grad, requires_grad in self._leaves:
            if tensor.grad is not grad:
                tensor.grad = grad
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
        for array, saved in self._arrays:
            if array.flags.writeable:
                np.copyto(array, saved)
        for stream, state in self._streams:
            stream.go_to(state)

    def streams(self) -> Callable[[], None]:
        """Note where the random streams stand now; a call of the result goes back there."""
        states = [(stream, stream.where()) for stream, _ in self._streams]

        def go_back() -> None:
            for stream, state in states:
                stream.go_to(state)

        return go_back

    def kept_but_for(self, tensors: Iterable[Tensor]) -> bool:
        """Whether all is still as it was, except the random streams and the content of these tensors."""
        excepted = {_address(tensor.untyped_storage()) for tensor in tensors}
        return not (
            any((content or saved) and _differ(content, saved) for content, saved in self._dicts)
            or any([*map(id, content)] != [*map(id, saved)] for content, saved in self._lists)
            or any(getattr(holder, name, None) is not value for holder, name, value in self._slots)
            or any(_moved(tensor, alias) for tensor, alias in self._tensors)
            or any(
                not torch.equal(live, saved) for place, (live, saved) in self._memory.items() if place not in excepted
            )
            or any(array.tobytes() != saved.tobytes() for array, saved in self._arrays)
        )

    def _walk(self, waiting: list[Any]) -> None:
        while waiting:
            value = waiting.pop()
            if isinstance(value, _ATOMS) or id(value) in self._seen or isinstance(value, _NOT_WALKED):
                continue
            self._seen[id(value)] = value
            if isinstance(value, dict):
                self._dicts.append((value, dict(value)))
                waiting += value.values()
                if type(value) not in (dict, OrderedDict):
                    waiting += self._attributes(value)
            elif isinstance(value, Tensor):
                waiting += self._tensor(value)
            elif isinstance(value, nn.Module):
                self._modes.append((value, value.training))
                waiting += [*value.parameters(recurse=False), *value.buffers(recurse=False), *self._attributes(value)]
                for holder in type(value).__mro__:
                    if _is_users(holder):
                        waiting += self._of_class(holder)
            elif isinstance(value, (list, deque, set, bytearray)):
                self._lists.append((value, [*value]))
                waiting += [*value, *self._attributes(value)]
            elif isinstance(value, (tuple, frozenset)):
                waiting += value
            elif isinstance(value, np.ndarray):
                if value.dtype != object:
                    self._arrays.append((value, value.copy()))
            elif stream := _stream(value):
                self._streams.append((stream, stream.where()))
            elif isinstance(value, types.SimpleNamespace) or _is_users(type(value)):
                waiting += self._attributes(value)

    def _attributes(self, holder: Any) -> list[Any]:
        attributes = getattr(holder, "__dict__", None)
        found = []
        if isinstance(attributes, dict):
            self._dicts.append((attributes, dict(attributes)))
            found += attributes.values()
        for owner in type(holder).__mro__ if _is_users(type(holder)) else ():
            names = owner.__dict__.get("__slots__", ())
            for name in (names,) if isinstance(names, str) else names:
                if name not in ("__dict__", "__weakref__") and hasattr(holder, name):
                    self._slots.append((holder, name, getattr(holder, name)))
                    found.append(getattr(holder, name))
        return found

    def _of_class(self, holder: type) -> list[Any]:
        if id(holder) in self._seen:
            return []
        self._seen[id(holder)] = holder
        plain = (*_ATOMS, Tensor, np.ndarray, list, dict, set, deque, bytearray)
        values = {k: v for k, v in vars(holder).items() if not k.startswith("__") and isinstance(v, plain)}
        self._slots += [(holder, name, value) for name, value in values.items()]
        return [*values.values()]

    def _tensor(self, tensor: Tensor) -> list[Any]:
        if tensor.is_leaf:
            self._leaves.append((tensor, tensor.grad, tensor.requires_grad))
        if is_traceable_wrapper_subclass(tensor):
            return [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]  # pyright: ignore
        if tensor.layout == torch.sparse_coo:
            return [tensor._indices(), tensor._values()]
        if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
            return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
        try:
            alias = tensor.detach()
            storage = tensor.untyped_storage()
            place = _address(storage)
            if storage.nbytes() and tensor.device.type != "meta" and place not in self._memory:
                words = torch.uint8 if storage.nbytes() % 8 else torch.int64  # eight times as fast to compare
                live = torch.empty(0, dtype=words, device=tensor.device).set_(storage)  # pyright: ignore
                self._memory[place] = live, live.clone()
        except (RuntimeError, NotImplementedError, ValueError) as error:
            kind = f"{type(tensor).__name__} with layout {tensor.layout}"
            raise IcsbenchError(f"the network holds a {kind}, whose content cannot be copied and put back") from error
        self._tensors.append((tensor, alias))
        return []


@contextmanager
def undisturbed(model: nn.Module, *others: Any) -> Iterator[None]:
    """Put back, whatever happens inside, everything that a measurement on ``model`` could move: see :class:`State`.

    Gradients are set aside, so ``.grad`` of every parameter is None inside. ``others`` are put back with the model:
    inputs, targets, a loss that is a module.
    """
    state = State(model, *others)
    for parameter in model.parameters():
        parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            state.restore()


def _default_streams() -> Iterator[_Stream]:
    yield _Stream(torch.get_rng_state, torch.set_rng_state)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        yield _Stream(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all)
    if torch.backends.mps.is_available():
        yield _Stream(torch.mps.get_rng_state, torch.mps.set_rng_state)
    yield _Stream(random.getstate, random.setstate)
    yield _Stream(np.random.get_state, np.random.set_state)


def _stream(value: Any) -> _Stream | None:
    if isinstance(value, (torch.Generator, np.random.RandomState)):
        return _Stream(value.get_state, value.set_state)
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return _Stream(value.getstate, value.setstate)
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator
        return _Stream(lambda: bits.state, lambda state: setattr(bits, "state", state))
    return None


def _is_users(kind: type) -> bool:
    return kind.__module__.partition(".")[0] not in _LIBRARIES or kind.__module__ == "__main__"


def _differ(content: dict, saved: dict) -> bool:
    return [*map(id, content.values())] != [*map(id, saved.values())] or [*map(id, content)] != [*map(id, saved)]


def _address(storage: torch.UntypedStorage) -> tuple[torch.device, int]:
    return storage.device, storage.data_ptr()


def _moved(tensor: Tensor, alias: Tensor) -> bool:
    """Whether a tensor is at another place in memory than its alias, which keeps the old one from being used again."""
    return tensor.data_ptr() != alias.data_ptr() or tensor.shape != alias.shape or tensor.stride() != alias.stride()

"""What a network really does in one call: where each parameter is used, and whether its modules form a chain."""

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from icsbench.probes.gradients import tensors_in

# What tells the shape or kind of a tensor and nothing of its values.
_LOOKS = {
    *(Tensor.shape.__get__, Tensor.ndim.__get__, Tensor.dtype.__get__, Tensor.device.__get__),  # pyright: ignore
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor._version.__get__, Tensor.is_inference),  # pyright: ignore
}


class Step(NamedTuple):
    """One operation of a chain: a module by its path, or a function between two modules."""

    path: str | None
    call: Callable[[Any], Any]


class Recording:
    """What one call of a network did, recorded inside :meth:`of`."""

    def __init__(self, model: nn.Module) -> None:
        self.places: dict[nn.Parameter, int] = {}
        """When each parameter first entered a computation: numbers that grow along the call. Those that one operation
        takes together, such as the weights of an LSTM, have the same. Views of a parameter are not yet a use of it."""
        self.chain: list[Step] | None = None
        """The call as operations each of which takes only the result of the one before; None where it is no such chain.

        The modules in it have no children, occur once, and use no parameters but their own, which no other module has.
        """
        self._model = model

    @contextmanager
    def of(self, inputs: Any) -> Iterator[None]:
        """Record what is done inside: a call on these inputs, what it :meth:`returned`, and the loss of that."""
        watch = self._watch = _Watch(self._model, inputs)
        handles = [
            handle
            for module in self._model.modules()
            if not isinstance(module, torch.jit.ScriptModule)
            for handle in (
                module.register_forward_pre_hook(watch.enter, prepend=True, with_kwargs=True),
                module.register_forward_hook(watch.leave, with_kwargs=True),
            )
        ]
        try:
            with _Uses(self.places, self._model, watch), watch:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def returned(self, output: Any) -> None:
        """Note what the network returned: that ends the chain, if it is what the last operation gave."""
        self.chain = self._watch.steps if output is self._watch.value else None
        self._watch.steps = None


class _Watch(TorchFunctionMode):
    """Follows one tensor from module to module, by identity; ``steps`` is None from where it is lost."""

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        super().__init__()
        self.steps: list[Step] | None = [] if isinstance(inputs, Tensor) else None
        self.value = inputs if isinstance(inputs, Tensor) else None
        self.version = self.value._version if self.value is not None else 0
        self.time = 0
        self.together = False
        """Whether an operation is under way whose parameters are used at one time."""
        self._inside: nn.Module | None = None
        self._paths = {module: path for path, module in model.named_modules(remove_duplicate=False)}
        self._owner = {parameter: module for module in model.modules() for parameter in module.parameters(False)}
        names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        containers = [module for module in model.modules() if any(True for _ in module.children())]
        if len(names) > len(self._owner) or _has_any_global_hook() or any(map(_has_hooks, containers)):
            self.steps = None

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A module is called."""
        if self.steps is None:
            return
        if self._inside is not None:
            self.steps = None
        elif not any(True for _ in module.children()):
            self._inside = module
            path = self._paths[module]
            if len(args) != 1 or kwargs or not self._is_current(args[0]) or any(s.path == path for s in self.steps):
                self.steps = None

    def leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """A module returns."""
        if self._inside is module:
            self._inside = None
            self._advance(Step(self._paths[module], module), output)

    def __torch_function__(self, func: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        """A function of torch is called."""
        kwargs = kwargs or {}
        self.time += 1
        self.together = not isinstance(func, types.FunctionType)
        try:
            result = func(*args, **kwargs)
        finally:
            self.together = False
            self.time += 1
        if self.steps is None or func in _LOOKS:
            return result
        given = tensors_in([args, kwargs])
        if self._inside is not None:
            own = (parameter for parameter in given if isinstance(parameter, nn.Parameter))
            if any(self._owner.get(parameter, self._inside) is not self._inside for parameter in own):
                self.steps = None
        elif len(given) == 1 and self._was_current(given[0], result):
            self._advance(Step(None, _with_value(func, args, kwargs, given[0])), result)
        else:
            self.steps = None
        return result

    def _is_current(self, value: Any) -> bool:
        return value is self.value and value._version == self.version

    def _was_current(self, value: Tensor, result: Any) -> bool:
        return value is self.value and (result is value or value._version == self.version)

    def _advance(self, step: Step, result: Any) -> None:
        if self.steps is None or not isinstance(result, Tensor) or result.is_inference():
            self.steps = None
            return
        self.steps.append(step)
        self.value, self.version = result, result._version


class _Uses(TorchDispatchMode):
    """Notes when memory of a parameter enters a computation, whatever calls it."""

    def __init__(self, places: dict[nn.Parameter, int], model: nn.Module, watch: _Watch) -> None:
        super().__init__()
        self._places = places
        self._watch = watch
        self._owners: dict[int, list[nn.Parameter]] = {}
        for parameter in model.parameters():
            self._owners.setdefault(_memory(parameter), []).append(parameter)

    def __torch_dispatch__(self, func: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        """An operation is run."""
        if not self._watch.together:
            self._watch.time += 1
        result = func(*args, **(kwargs or {}))
        made = {_memory(tensor) for tensor in tensors_in([result])}
        for tensor in tensors_in([args, kwargs or {}]):
            memory = _memory(tensor)
            if memory and (memory not in made or func._schema.is_mutable):
                for parameter in self._owners.get(memory, ()):
                    if _overlap(parameter, tensor):
                        self._places.setdefault(parameter, self._watch.time)
        return result


def _memory(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # a layout without one
        return 0


def _overlap(parameter: Tensor, tensor: Tensor) -> bool:
    (first, last), (start, end) = _range(parameter), _range(tensor)
    return first < end and start < last


def _range(tensor: Tensor) -> tuple[int, int]:
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (reach + 1) * tensor.element_size()


def _has_hooks(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)


def _with_value(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], value: Tensor) -> Callable[[Any], Any]:
    def step(other: Any) -> Any:
        return func(
            *(other if arg is value else arg for arg in args),
            **{name: other if arg is value else arg for name, arg in kwargs.items()},
        )

    return step

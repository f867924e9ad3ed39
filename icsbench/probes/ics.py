"""Internal covariate shift as optimisation meets it (Santurkar et al. 2018, Definition 2.1)."""

import contextlib
import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from icsbench.errors import IcsbenchError
from icsbench.probes.gradients import LossFn, NotFinite, Overwritten, forward_loss, norm, refuse_unmeasurable
from icsbench.probes.guard import rewinder, undisturbed


class ICS(NamedTuple):
    """How an update of the layers before layer i changes the gradient of layer i: ``G`` against ``G'``."""

    l2: float
    """``||G - G'||_2``, the paper's ICS."""
    relative: float
    """``||G - G'|| / ||G||``; 0 where nothing changed, infinite where ``G`` alone is zero."""
    cosine: float
    """``<G, G'> / (||G|| ||G'||)``; NaN where one of them is zero."""
    gradient_norm: float
    """``||G||_2``."""
    weight_norm: float
    """``||W_i||_2``."""

    @property
    def scale_free(self) -> float:
        """``||G - G'|| ||W_i||``: does not change when a weight that BN follows is rescaled."""
        return self.l2 * self.weight_norm


def internal_covariate_shift(
    model: nn.Module,
    loss_fn: LossFn,
    inputs: Tensor,
    targets: Any,
    new_params: Mapping[str, Tensor],
    layers: Sequence[str] | None = None,
) -> dict[str, ICS]:
    """ICS of every layer for one update of the parameters, from those that ``model`` holds to ``new_params``.

    For layer i with weight ``W_i``, on one batch::

        G  = grad_{W_i} L(W_1, ..., W_k)
        G' = grad_{W_i} L(W'_1, ..., W'_{i-1}, W_i, W_{i+1}, ..., W_k),    W' = new_params

    Everything that comes before layer i in forward order, BN parameters and biases included, is at its new value;
    layer i and all after it at the old. ``W_i`` stands for the parameters of two or more dimensions that the module
    owns (a container that owns none: that are inside it). The network is in training mode, with BN by the statistics
    of the batch under the mixed weights; all passes see the same draw of every random stream (noise, dropout): the one
    that the next training pass would make. :func:`icsbench.probes.undisturbed` surrounds it, and the weights are put
    back bit for bit.

    Where the network is a chain of modules, each called once (VGG, an MLP), the updated part before layer i is run
    once for all layers, and the backward pass stops at layer i; any other network takes a whole forward pass and as
    much of a backward pass as it needs for each layer. The results agree to float accuracy.

    ::

        model = torchvision.models.resnet18(num_classes=10)
        old = copy.deepcopy(model.state_dict())
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        new = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        model.load_state_dict(old)
        internal_covariate_shift(model, F.cross_entropy, images, labels, new)["layer1.0.conv1"].cosine

    :param loss_fn: ``(outputs, targets) -> scalar``.
    :param inputs: the batch that the update was made from, as the network takes it; ``targets`` as the loss does.
    :param new_params: a tensor for every name of ``model.named_parameters()``: the weights after the update.
    :param layers: module paths; default every module that itself owns a parameter of two or more dimensions and is
        called. The result is in forward order. A parameter has its place where its module (failing that, the nearest
        module around it) is first called.
    :raises IcsbenchError: a layer that does not exist, owns no such weight or has no part in the loss, ``new_params``
        with a missing or unknown name or a wrong shape, a loss that is not scalar, a network without parameters or one
        with BN and a batch of one; :class:`NotFinite`, a kind of it, for a gradient that is not finite.
    """
    refuse_unmeasurable(model, inputs)
    named = _weights_by_layer(model, layers)
    mixed = _Mixed(model, new_params)
    with undisturbed(model), torch.enable_grad(), mixed:
        model.train()
        rewind = rewinder(model)
        chain = _chain(model, named)
        if chain is not None:
            with contextlib.suppress(Overwritten):  # a layer inside that works in place: the general path can do it
                return _along_chain(model, chain, named, mixed, loss_fn, inputs, targets)
            mixed.move(set())
            rewind()
        return _layer_by_layer(model, named, layers is None, mixed, loss_fn, inputs, targets)


_Layers = dict[str, list[nn.Parameter]]


def _weights_by_layer(model: nn.Module, layers: Sequence[str] | None) -> _Layers:
    modules = dict(model.named_modules())
    for path in layers or ():
        if path not in modules:
            close = difflib.get_close_matches(path, modules, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "model.named_modules() lists the paths"
            raise IcsbenchError(f"layers: {type(model).__name__} has no module {path!r}; {hint}")
        if not any(parameter.dim() > 1 for parameter in modules[path].parameters()):
            raise IcsbenchError(f"layers: {path!r} holds no weight of two or more dimensions; choose a layer that does")
    named: _Layers = {}
    for path in modules if layers is None else layers:
        own = [parameter for parameter in modules[path].parameters(recurse=False) if parameter.dim() > 1]
        if own or layers is not None:
            named[path] = own or [parameter for parameter in modules[path].parameters() if parameter.dim() > 1]
    if not named:
        raise IcsbenchError(f"{type(model).__name__} has no weight of two or more dimensions: no layer to measure")
    return named


class _Mixed:
    """The parameters of a model, some of them moved to their new values; all old again at the end."""

    def __init__(self, model: nn.Module, new: Mapping[str, Tensor]) -> None:
        self._parameters = dict(model.named_parameters())
        self._new = new
        for name, parameter in self._parameters.items():
            if name not in new:
                raise IcsbenchError(f"new_params has no {name!r}; it needs every name of model.named_parameters()")
            if new[name].shape != parameter.shape:
                shapes = f"{tuple(new[name].shape)}, not {tuple(parameter.shape)}"
                raise IcsbenchError(f"new_params[{name!r}] has the wrong shape: {shapes}")
            if new[name].data_ptr() == parameter.data_ptr() and parameter.numel():
                raise IcsbenchError(
                    f"new_params[{name!r}] is the model's own parameter: the model must hold the weights before the "
                    "update, and new_params copies of those after it"
                )
        if unknown := new.keys() - self._parameters.keys():
            raise IcsbenchError(f"new_params has {min(unknown)!r}, which is no parameter of the model")

    def __enter__(self) -> None:
        self._old = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._moved: set[str] = set()

    def __exit__(self, *_: object) -> None:
        self.move(set())

    def move(self, names: set[str]) -> None:
        """Have exactly the parameters of these names at their new values."""
        with torch.no_grad():
            for name in names - self._moved:
                self._parameters[name].copy_(self._new[name])
            for name in self._moved - names:
                self._parameters[name].copy_(self._old[name])
        self._moved = set(names)


def _follow_only(model: nn.Module, weights: Iterable[nn.Parameter]) -> None:
    """Have the backward pass go as far as these weights and to no other parameter."""
    followed = set(weights)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in followed)


def _gradients(loss: Tensor, named: _Layers) -> dict[str, Tensor | None]:
    """The gradient of each layer's weights as one vector, None where the loss does not depend on them."""
    parts = iter(torch.autograd.grad(loss, [w for weights in named.values() for w in weights], allow_unused=True))
    gradients: dict[str, Tensor | None] = {}
    for path, weights in named.items():
        own = [(weight, next(parts)) for weight in weights]
        used = any(part is not None for _, part in own)
        vectors = [(torch.zeros_like(weight) if part is None else part).reshape(-1) for weight, part in own]
        gradients[path] = torch.cat(vectors) if used else None
    return gradients


def _layer_by_layer(
    model: nn.Module,
    named: _Layers,
    default: bool,
    mixed: _Mixed,
    loss_fn: LossFn,
    inputs: Tensor,
    targets: Any,
) -> dict[str, ICS]:
    rewind = rewinder(model)
    _follow_only(model, [weight for weights in named.values() for weight in weights])
    with _order_of_calls(model) as calls:
        loss = forward_loss(model, loss_fn, inputs, targets)
    gradients = _gradients(loss, named)
    unused = [path for path, gradient in gradients.items() if gradient is None]
    if unused and not default:
        raise IcsbenchError(f"layers: {unused[0]!r} has no part in the loss")
    places: dict[str, int] = {}
    of_parameter: dict[nn.Parameter, int] = {}
    for path, module in model.named_modules():
        own = calls.get(module)
        places[path] = places[path.rpartition(".")[0]] if own is None else own
        for parameter in module.parameters(recurse=False):
            of_parameter[parameter] = min(places[path], of_parameter.get(parameter, places[path]))
    comparison = _Comparison()
    for path in sorted(named.keys() - set(unused), key=lambda path: (places[path], [*named].index(path))):
        before = {
            name
            for name, parameter in model.named_parameters()
            if of_parameter[parameter] < places[path] and not any(parameter is weight for weight in named[path])
        }
        gradient = after = gradients[path]
        if before:
            mixed.move(before)
            rewind()
            _follow_only(model, named[path])
            loss = forward_loss(model, loss_fn, inputs, targets)
            after = _gradients(loss, {path: named[path]})[path]
        comparison.add(path, named[path], gradient, after)
    mixed.move(set())
    return comparison.results()


@contextlib.contextmanager
def _order_of_calls(model: nn.Module) -> Iterator[dict[nn.Module, int]]:
    calls: dict[nn.Module, int] = {}

    def note(module: nn.Module, _: object) -> None:
        calls.setdefault(module, len(calls))

    handles = [module.register_forward_pre_hook(note) for module in model.modules()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


class _Step(NamedTuple):
    """One operation of a chain: a module by its path, or a function between two modules."""

    path: str | None
    call: Callable[[Any], Any]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Take a module without children as one operation, whatever its forward does."""
        return super().is_leaf_module(m, module_qualified_name) or not any(True for _ in m.children())


def _chain(model: nn.Module, named: _Layers) -> list[_Step] | None:
    """The network as operations each of which takes only the result of the one before; None where it is no such chain.

    Each module occurs once, parameters are used by one module alone, and every layer is one of the modules.
    """
    try:
        nodes = list(_Tracer().trace(model).nodes)
    except Exception:  # whatever a forward does with the stand-in for its input: it is no chain that can be followed
        return None
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    if len(names) > len(list(model.parameters())) or nodes[0].op != "placeholder":
        return None
    steps: list[_Step] = []
    last = nodes[0]
    for node in nodes[1:]:
        if node.op == "placeholder" and not node.users:
            continue
        if node.all_input_nodes != [last]:
            return None
        if node.op == "output":
            if node.args != (last,):
                return None
        elif node.op == "call_module":
            steps.append(_Step(str(node.target), _with_first(model.get_submodule(str(node.target)), node)))
        elif node.op == "call_method":
            steps.append(_Step(None, _with_first(getattr(Tensor, str(node.target)), node)))
        elif node.op == "call_function" and callable(node.target):
            steps.append(_Step(None, _with_first(node.target, node)))
        else:
            return None
        last = node
    modules = [model.get_submodule(step.path) for step in steps if step.path]
    if len(set(modules)) < len(modules) or not named.keys() <= {step.path for step in steps}:
        return None
    around = [module for module in model.modules() if module not in {inner for m in modules for inner in m.modules()}]
    if any(module._forward_hooks or module._forward_pre_hooks for module in around):
        return None
    return steps


def _with_first(call: Callable[..., Any], node: fx.Node) -> Callable[[Any], Any]:
    def step(value: Any) -> Any:
        return call(*fx.map_arg(node.args, lambda _: value), **fx.map_arg(node.kwargs, lambda _: value))

    return step


def _along_chain(
    model: nn.Module, chain: list[_Step], named: _Layers, mixed: _Mixed, loss_fn: LossFn, inputs: Tensor, targets: Any
) -> dict[str, ICS]:
    def run(first: int, last: int | None = None) -> Callable[[Any], Any]:
        def forward(value: Any) -> Any:
            for place, step in enumerate(chain[first:last], start=first):
                if step.path in named and place not in streams:
                    streams[place] = rewinder(model)
                value = step.call(value)
            return value

        return forward

    streams: dict[int, Callable[[], None]] = {0: rewinder(model)}
    _follow_only(model, [weight for weights in named.values() for weight in weights])
    gradients = _gradients(forward_loss(run(0), loss_fn, inputs, targets), named)
    places = {step.path: place for place, step in enumerate(chain) if step.path in named}
    comparison = _Comparison()
    before: set[str] = set()
    value, reached = inputs, 0
    for path, place in places.items():
        passed = [step.path for step in chain[reached:place] if step.path]
        before |= {f"{p}.{name}" for p in passed for name, _ in model.get_submodule(p).named_parameters()}
        mixed.move(before)
        streams[reached]()
        with torch.no_grad():
            value, reached = run(reached, place)(value), place
        gradient = after = gradients[path]
        if before:
            streams[place]()
            _follow_only(model, named[path])
            after = _gradients(forward_loss(run(place), loss_fn, value, targets), {path: named[path]})[path]
        comparison.add(path, named[path], gradient, after)
    return comparison.results()


class _Comparison:
    """Gathers ``G`` and ``G'`` layer by layer, and reads the numbers from the device once."""

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._numbers: list[Tensor] = []

    def add(self, path: str, weights: list[nn.Parameter], gradient: Tensor | None, after: Tensor | None) -> None:
        if gradient is None or after is None:
            raise IcsbenchError(f"layers: {path!r} has no part in the loss")
        dot = (gradient * after).sum(dtype=torch.float64)
        weight = norm(torch.stack([norm(weight.detach()) for weight in weights]))
        self._paths.append(path)
        self._numbers.append(torch.stack([norm(gradient), norm(after), norm(gradient - after), dot, weight]))

    def results(self) -> dict[str, ICS]:
        found: dict[str, ICS] = {}
        for path, numbers in zip(self._paths, torch.stack(self._numbers).tolist(), strict=True):
            before, after, l2, dot, weight = numbers
            for at, size in (("the current weights", before), ("the updated weights of the layers before it", after)):
                if not math.isfinite(size):
                    raise NotFinite(f"the gradient of layer {path!r} is not finite at {at}")
            relative = l2 / before if before else (math.inf if l2 else 0.0)
            found[path] = ICS(l2, relative, dot / (before * after) if before * after else math.nan, before, weight)
        return found

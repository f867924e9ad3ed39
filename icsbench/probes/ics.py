"""Internal covariate shift as optimisation meets it (Santurkar et al. 2018, Definition 2.1)."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from icsbench.errors import IcsbenchError
from icsbench.norms import batch_norms
from icsbench.probes.gradients import LossFn, NotFinite, Overwritten, as_vector, gradients_of, norm
from icsbench.probes.passes import Passes, is_matrix
from icsbench.probes.recording import Recording, Step


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
    inputs: Any,
    targets: Any,
    new_params: Mapping[str, Tensor],
    layers: Iterable[str] | None = None,
) -> dict[str, ICS]:
    """ICS of every layer for one update of the parameters, from those that ``model`` holds to ``new_params``.

    For layer i with weight ``W_i``, on one batch::

        G  = grad_{W_i} L(W_1, ..., W_k)
        G' = grad_{W_i} L(W'_1, ..., W'_{i-1}, W_i, W_{i+1}, ..., W_k),    W' = new_params

    Everything that comes before layer i in forward order, BN parameters and biases included, is at its new value;
    layer i and all after it at the old. ``W_i`` stands for the parameters of two or more dimensions that the module
    owns (a container that owns none: that are inside it), and a parameter comes where the network first computes with
    it, whatever calls it there. If a module uses its weights at different places, each is a layer of its own, named
    ``<module>.<parameter>``.

    The network is in training mode, with BN by the statistics of the batch under the mixed weights. Every pass starts
    from the same state (see :class:`icsbench.probes.State`) and so sees the same draw of every random stream (noise,
    dropout): the one that the next training pass would make. At the end all of it is put back bit for bit.

    Where the network is a chain of modules, each called once (VGG, an MLP), and running the modules one by one is seen
    to give its own output bit for bit, the updated part before layer i is run once for all layers, and the backward
    pass stops at layer i; any other network takes a whole forward pass and as much of a backward pass as it needs for
    each layer. The results agree to float accuracy.

    ::

        model = torchvision.models.resnet18(num_classes=10)
        old = copy.deepcopy(model.state_dict())
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        new = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        model.load_state_dict(old)
        internal_covariate_shift(model, F.cross_entropy, images, labels, new)["layer1.0.conv1"].cosine

    :param loss_fn: ``(outputs, targets) -> scalar``.
    :param inputs: the batch that the update was made from, as the network takes it (see
        :class:`icsbench.probes.passes.Passes`); ``targets`` as the loss does.
    :param new_params: the weights after the update, by the names of ``model.named_parameters()`` or as a copy of
        ``model.state_dict()``, whose buffers are left aside.
    :param layers: paths of modules or of weights; default every module that itself owns a parameter of two or more
        dimensions on which the loss depends. The result is in forward order.
    :raises IcsbenchError: a layer does not exist, owns no such weight, has no part in the loss, or has no place in the
        forward order. ``new_params`` has a missing or unknown name, a wrong shape, or two values for one weight. The
        loss is not scalar. The network cannot be measured (docs/probes.md has the list), or has BN while the batch is
        of one.
    :raises NotFinite: a gradient is not finite. It is a kind of IcsbenchError.
    """
    with Passes(model, loss_fn, inputs, targets, matrices=True) as passes:
        return shift_of_update(passes, new_params, layers)


def shift_of_update(passes: Passes, new_params: Mapping[str, Tensor], layers: Iterable[str] | None) -> dict[str, ICS]:
    """The work of :func:`internal_covariate_shift`, on ``passes`` (with ``matrices``) that others may share."""
    model = passes.model
    chosen = _checked(model, layers)
    new = _changed(model, new_params)
    recording = Recording(model)
    outputs: list[Any] = []

    def recorded(inputs: Any) -> Any:
        output = passes.forward(inputs)
        recording.returned(output)
        outputs.append(output.detach().clone() if isinstance(output, Tensor) else None)
        return output

    passes.begin()
    with recording.of(passes.inputs):
        loss = passes.loss(recorded, passes.inputs)
    found = _layers(model, chosen, recording.places)
    chain = _chain(passes, recording)
    if chain is not None:
        try:
            shift = _along_chain(passes, chain, loss, outputs[0], recording.places, found, new)
        except Overwritten:  # a layer inside that works in place: the general path can do it
            shift = None
        if shift is not None:
            return shift
    loss = loss.detach()  # its graph is not needed any more
    passes.refuse_unrepeatable(loss)
    return _layer_by_layer(passes, recording.places, found, new)


class _Layer(NamedTuple):
    name: str
    weights: list[nn.Parameter]
    """``W_i``."""
    own: set[nn.Parameter]
    """What stays at its old value, wherever it is used: all parameters of the module."""
    place: float
    """When the first of the weights is used; infinite if none is."""
    chosen: bool
    """Whether it was asked for by its name."""


def _checked(model: nn.Module, layers: Iterable[str] | None) -> list[str] | None:
    """The names of the layers asked for, each a module or parameter that is there and has a weight."""
    if layers is None:
        return None
    wanted = "give a list of module paths, as in model.named_modules()"
    if isinstance(layers, (str, nn.Module, Mapping)) or not isinstance(layers, Iterable):
        got = repr(layers) if isinstance(layers, str) else f"a {type(layers).__name__}"
        raise IcsbenchError(f"layers: {wanted} (got {got})")
    chosen: list[Any] = [*layers]
    if not chosen:
        raise IcsbenchError(f"layers is empty: {wanted}, or leave it out for all layers")
    modules, parameters = dict(model.named_modules(remove_duplicate=False)), _parameters(model)
    for path in chosen:
        if not isinstance(path, str):
            raise IcsbenchError(f"layers: {wanted} (it holds a {type(path).__name__})")
        if path not in modules and path not in parameters:
            close = difflib.get_close_matches(path, modules, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "model.named_modules() lists the paths"
            raise IcsbenchError(f"layers: {type(model).__name__} has no module {path!r}; {hint}")
        inside = modules[path].parameters() if path in modules else [parameters[path]]
        if not any(map(is_matrix, inside)):
            raise IcsbenchError(f"layers: {path!r} holds no weight of two or more dimensions; choose a layer that does")
    return [*dict.fromkeys(chosen)]


def _layers(model: nn.Module, chosen: list[str] | None, places: dict[nn.Parameter, int]) -> list[_Layer]:
    """The layers in forward order."""
    modules = dict(model.named_modules(remove_duplicate=chosen is None))
    found: list[_Layer] = []
    for name in modules if chosen is None else chosen:
        if name not in modules:
            weight = _parameters(model)[name]
            found.append(_Layer(name, [weight], {weight}, places.get(weight, math.inf), True))
            continue
        own = {key: weight for key, weight in modules[name].named_parameters(recurse=False) if is_matrix(weight)}
        inside = set(modules[name].parameters(recurse=not own))
        weights = [*own.values()] or [weight for weight in modules[name].parameters() if is_matrix(weight)]
        apart = {f"{name}.{key}".lstrip("."): weight for key, weight in own.items() if weight in places}
        if len({places[weight] for weight in apart.values()}) < 2:
            place = min((places[weight] for weight in weights if weight in places), default=math.inf)
            if own or chosen is not None:
                found.append(_Layer(name, weights, inside, place, chosen is not None))
        elif chosen is None:
            found += [_Layer(key, [weight], {weight}, places[weight], False) for key, weight in apart.items()]
        else:
            raise IcsbenchError(
                f"layers: {name!r} uses its weights at different places; choose among {', '.join(map(repr, apart))}"
            )
    if not found:
        raise IcsbenchError(f"{type(model).__name__} has no weight of two or more dimensions: no layer to measure")
    return sorted(found, key=lambda layer: layer.place)


def _with_gradient(
    model: nn.Module, layers: list[_Layer], gradients: Mapping[nn.Parameter, Tensor | None]
) -> list[_Layer]:
    """The layers that the loss depends on.

    :raises IcsbenchError: the loss does not depend on a layer that was asked for, or the place of one is unknown.
    """
    kept = []
    for layer in layers:
        if all(gradients.get(weight) is None for weight in layer.weights):
            if layer.chosen:
                raise IcsbenchError(f"layers: {layer.name!r} has no part in the loss")
        elif layer.place == math.inf:
            raise IcsbenchError(
                f"the place of layer {layer.name!r} in the forward pass cannot be seen, so it is not known which "
                f"layers come before it; use its weights in operations of torch within {type(model).__name__}.forward"
            )
        else:
            kept.append(layer)
    return kept


def _parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters(remove_duplicate=False))


def _changed(model: nn.Module, new_params: Mapping[str, Tensor]) -> dict[nn.Parameter, Tensor]:
    """The parameters that the update changes, with their new values."""
    if not isinstance(new_params, Mapping):
        raise IcsbenchError(
            "new_params: give the new weights by name, as {name: tensor} for every name of model.named_parameters() "
            f"(got a {type(new_params).__name__})"
        )
    named = _parameters(model)
    held = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    for name in new_params:
        if name not in named and name not in held and not str(name).endswith("_extra_state"):
            raise IcsbenchError(f"new_params has {name!r}, which is no parameter of the model")
    values: dict[nn.Parameter, tuple[str, Tensor]] = {}
    for name, parameter in named.items():
        if name not in new_params:
            continue
        value = new_params[name]
        if not isinstance(value, Tensor):
            raise IcsbenchError(f"new_params[{name!r}] must be a tensor (got a {type(value).__name__})")
        if value.shape != parameter.shape:
            shapes = f"{tuple(value.shape)}, not {tuple(parameter.shape)}"
            raise IcsbenchError(f"new_params[{name!r}] has the wrong shape: {shapes}")
        value = value.detach().to_dense() if value.layout != torch.strided else value.detach()
        if value.data_ptr() == parameter.data_ptr() and parameter.numel():
            raise IcsbenchError(
                f"new_params[{name!r}] is the model's own parameter: the model must hold the weights before the "
                "update, and new_params copies of those after it"
            )
        first, same = values.setdefault(parameter, (name, value))
        if not _same(same, value):
            raise IcsbenchError(f"new_params has different values for {first!r} and {name!r}, which are one parameter")
    for name, parameter in model.named_parameters():
        if parameter not in values:
            raise IcsbenchError(f"new_params has no {name!r}; it needs every name of model.named_parameters()")
    return {parameter: value for parameter, (_, value) in values.items() if not _same(value.to(parameter), parameter)}


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(torch.isclose(a, b.to(a), rtol=0, atol=0, equal_nan=True).all())


def _move(new: Mapping[nn.Parameter, Tensor], parameters: Iterable[nn.Parameter]) -> None:
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(new[parameter])


def _layer_by_layer(
    passes: Passes, places: dict[nn.Parameter, int], layers: list[_Layer], new: dict[nn.Parameter, Tensor]
) -> dict[str, ICS]:
    _, gradients = passes.here()
    comparison = _Comparison()
    for layer in _with_gradient(passes.model, layers, gradients):
        before = _before(layer, places, new)
        gradient = after = [gradients[weight] for weight in layer.weights]
        if before:
            before |= _newly_before(passes, layer, before, {p: new[p] for p in new if p not in places}, new)
            passes.begin()
            _move(new, before)
            after = gradients_of(passes.loss(), layer.weights)
        comparison.add(layer, gradient, after)
    return comparison.results()


def _before(layer: _Layer, places: Mapping[nn.Parameter, int], new: Iterable[nn.Parameter]) -> set[nn.Parameter]:
    """The parameters that change and come before the layer."""
    return {p for p in new if places.get(p, math.inf) < layer.place and p not in layer.own}


def _newly_before(
    passes: Passes,
    layer: _Layer,
    before: set[nn.Parameter],
    unplaced: Mapping[nn.Parameter, Tensor],
    new: Mapping[nn.Parameter, Tensor],
) -> set[nn.Parameter]:
    """Parameters that no pass at the old weights uses, but the pass with ``before`` moved does, ahead of the layer."""
    found: set[nn.Parameter] = set()
    while unplaced:
        passes.begin()
        _move(new, before | found)
        recording = Recording(passes.model)
        with recording.of(passes.inputs):
            passes.loss()
        place = min((recording.places.get(weight, math.inf) for weight in layer.weights), default=math.inf)
        more = {p for p in unplaced if recording.places.get(p, math.inf) < place} - found - layer.own
        if not more:
            break
        found |= more
    return found


def _chain(passes: Passes, recording: Recording) -> list[Step] | None:
    """The recorded call as a chain, where running its modules one by one can stand for it; None otherwise.

    Nothing but the averages of batch normalization may have been changed by the call.
    """
    return recording.chain if recording.chain is not None and passes.changes_only(_averages(passes.model)) else None


def _averages(model: nn.Module) -> list[Tensor]:
    return [buffer for module in batch_norms(model) for buffer in module.buffers(recurse=False)]


def _along_chain(
    passes: Passes,
    chain: list[Step],
    loss: Tensor,
    output: Tensor,
    places: dict[nn.Parameter, int],
    layers: list[_Layer],
    new: dict[nn.Parameter, Tensor],
) -> dict[str, ICS] | None:
    """None where the chain does not give the network's own ``output``, or changes what the network does not.

    ``loss`` is that of the pass that gave the output.
    """
    model = passes.model
    place_of = {
        parameter: place
        for place, step in enumerate(chain)
        if step.path is not None
        for parameter in model.get_submodule(step.path).parameters()
    }
    for layer in layers:
        begins = {place_of.get(weight, 0) for weight in layer.weights}
        if len(begins) > 1 or any(place_of.get(p, 0) >= min(begins) for p in _before(layer, places, new)):
            return None  # a container as one layer, or two layers in one module
    starts = {0, *(place_of.get(layer.weights[0], 0) for layer in layers)}
    streams: dict[int, Callable[[], None]] = {}

    def run(first: int, last: int | None = None) -> Callable[[Any], Any]:
        def forward(value: Any) -> Any:
            for place, step in enumerate(chain[first:last], start=first):
                if place in starts and place not in streams:
                    streams[place] = passes.streams()
                value = step.call(value)
            return value

        return forward

    passes.begin()
    with torch.no_grad():
        if not torch.equal(run(0)(passes.inputs), output):
            return None
    _, gradients = passes.here(loss)
    passes.begin()
    comparison = _Comparison()
    value, reached = passes.inputs, 0
    before: set[nn.Parameter] = set()
    for layer in _with_gradient(model, layers, gradients):
        place = place_of[layer.weights[0]]
        passed = {parameter for parameter, at in place_of.items() if reached <= at < place and parameter in new}
        _move(new, passed)
        before |= passed
        streams[reached]()
        with torch.no_grad():
            value, reached = run(reached, place)(value), place
        gradient = after = [gradients[weight] for weight in layer.weights]
        if before:
            streams[place]()
            after = gradients_of(passes.loss(run(place), value), layer.weights)
        comparison.add(layer, gradient, after)
    return comparison.results() if passes.changes_only([*_averages(model), *new]) else None


class _Comparison:
    """Gathers ``G`` and ``G'`` layer by layer, and reads the numbers from the device once."""

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._numbers: list[Tensor] = []

    def add(self, layer: _Layer, gradients: list[Tensor | None], moved: list[Tensor | None]) -> None:
        """None as the gradient by a weight, on which the loss does not depend, is zero."""
        gradient, after = _vector(layer, gradients), _vector(layer, moved)
        dot = (gradient * after).sum(dtype=torch.float64)
        weight = norm(torch.stack([norm(weight.detach()) for weight in layer.weights]))
        self._paths.append(layer.name)
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


def _vector(layer: _Layer, gradients: list[Tensor | None]) -> Tensor:
    parts = [torch.zeros_like(w) if g is None else g for w, g in zip(layer.weights, gradients, strict=True)]
    vector = torch.cat([as_vector(part) for part in parts])
    return vector.to(torch.promote_types(vector.dtype, torch.float32))

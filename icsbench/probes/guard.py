"""The one guard inside which everything is measured."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from icsbench.norms import batch_norms, noise_modules


def rewinder(model: nn.Module) -> Callable[[], None]:
    """Note where the random streams stand that a pass through ``model`` draws from; a call of the result goes back.

    They are PyTorch's global generators on every device and those of the modules that inject noise.
    """
    generators = {module.generator for module in noise_modules(model) if module.generator is not None}
    states = [(generator, generator.get_state()) for generator in generators]
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None

    def rewind() -> None:
        for generator, state in states:
            generator.set_state(state)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)

    return rewind


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put back, whatever happens inside, everything that a measurement on ``model`` could move.

    That is: buffers (BN's running statistics), train or eval mode and BN momentum of every module, ``.grad`` and
    ``requires_grad`` of every parameter, how noise is switched and what it draws from, the state of those generators,
    and PyTorch's global generators on every device. Gradients are set aside, so ``.grad`` is None inside.
    """
    modules = list(model.modules())
    modes = [(module, module.training) for module in modules]
    momenta = [(module, module.momentum) for module in batch_norms(model)]
    noise = [(module, module.noise, module.generator) for module in noise_modules(model)]
    rewind = rewinder(model)
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    parameters = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _, _ in parameters:
        parameter.grad = None
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, momentum in momenta:
            module.momentum = momentum
        for module, switch, generator in noise:
            module.noise, module.generator = switch, generator
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for parameter, grad, requires_grad in parameters:
            parameter.grad = grad
            parameter.requires_grad_(requires_grad)
        rewind()

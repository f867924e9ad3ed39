"""The one guard inside which everything is measured."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from icsbench.norms import noise_modules


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put back, whatever happens inside, everything that a measurement on ``model`` could move.

    That is: buffers (BN's running statistics), train or eval mode and BN momentum of every module, ``.grad`` and
    ``requires_grad`` of every parameter, how noise is switched and what it draws from, the state of those generators,
    and PyTorch's global generators on every device. Gradients are set aside, so ``.grad`` is None inside.
    """
    modules = list(model.modules())
    modes = [(module, module.training) for module in modules]
    momenta = [(module, module.momentum) for module in modules if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    noise = [(module, module.noise, module.generator) for module in noise_modules(model)]
    generators = {id(generator): generator for _, _, generator in noise if generator is not None}
    states = [(generator, generator.get_state()) for generator in generators.values()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    parameters = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
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
        for generator, state in states:
            generator.set_state(state)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for parameter, grad, requires_grad in parameters:
            parameter.grad = grad
            parameter.requires_grad_(requires_grad)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)

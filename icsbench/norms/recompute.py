"""Random streams that give the same numbers again where activation checkpointing runs a forward pass again.

``torch.utils.checkpoint`` restores torch's default generators before it computes a segment again, but not others. A
module that draws from a generator of its own asks :func:`stream_of` for it, and so draws the same numbers again.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.utils.checkpoint as checkpointing
from torch import Tensor

from icsbench.errors import IcsbenchError


class _Draws:
    """The draws in one checkpoint's forward pass, in order, and how many of them each recomputation has repeated."""

    def __init__(self) -> None:
        self.taken: list[tuple[object, Tensor]] = []
        self._repeated: Counter[Hashable] = Counter()

    def repeat(self, drawer: object, recomputation: Hashable) -> Tensor:
        position = self._repeated[recomputation]
        self._repeated[recomputation] += 1
        if position >= len(self.taken) or self.taken[position][0] is not drawer:
            raise IcsbenchError(
                "activation checkpointing: the recomputation draws noise in another order than the forward pass did; "
                "leave the modules and their noise as they are between forward and backward"
            )
        return self.taken[position][1]


_draws: WeakKeyDictionary[Any, _Draws] = WeakKeyDictionary()


def _running_checkpoints() -> Iterator[tuple[Any, Hashable | None]]:
    """The checkpoints inside whose function the caller runs, innermost first: each with its recomputation, or None.

    A checkpoint is the object that lives from its forward to its backward pass: the context of the reentrant kind,
    the frame of holders of the other. Both are found in the local variables of the functions that run them.
    """
    forward, backward = checkpointing.CheckpointFunction.forward, checkpointing.CheckpointFunction.backward
    caller = sys._getframe(1)
    while caller is not None:
        if caller.f_globals is vars(checkpointing):
            local = caller.f_locals
            if caller.f_code is forward.__code__:
                yield local["ctx"], None
            elif caller.f_code is backward.__code__:
                yield local["ctx"], torch._C._current_graph_task_id()
            elif caller.f_code.co_name == "unpack_hook" and "frame" in local and "gid" in local:
                yield local["frame"], local["gid"]
            elif (suspended := getattr(local.get("gen"), "gi_frame", None)) is not None:
                yield suspended.f_locals["new_frame"], None
        caller = caller.f_back


def _is_default(generator: torch.Generator) -> bool:
    return generator is torch.default_generator or any(generator is one for one in torch.cuda.default_generators)


def stream_of(drawer: object, generator: torch.Generator | None) -> torch.Generator | None:
    """Return what ``drawer`` is to draw from now: ``generator``, or a copy of it where this repeats a forward pass.

    The copy stands where the generator stood at the same draw of the forward pass; the generator itself stays where it
    is. None and torch's default generators are returned as they are, as torch takes care of them.

    :raises IcsbenchError: inside a backward pass it is not known what to repeat, so the gradient would be wrong.
    """
    if generator is None or _is_default(generator):
        return generator
    recording: list[_Draws] = []
    for checkpoint, recomputation in _running_checkpoints():
        draws = _draws.setdefault(checkpoint, _Draws())
        if recomputation is not None:
            state = draws.repeat(drawer, recomputation)
            generator = torch.Generator(generator.device)
            generator.set_state(state)
            break
        recording.append(draws)
    else:
        if torch._C._current_graph_task_id() != -1:
            raise IcsbenchError(
                "noise with a generator of its own is drawn inside a backward pass, and not by torch.utils.checkpoint: "
                "a recomputation would draw other noise; use torch.utils.checkpoint.checkpoint, or generator=None"
            )
        if not recording:
            return generator
        state = generator.get_state()
    for draws in recording:
        draws.taken.append((drawer, state))
    return generator

"""Refuse a conversion of PyTorch's that would silently turn one of our layers into another."""

from __future__ import annotations

import sys
from typing import NoReturn

from torch import nn

from icsbench.errors import IcsbenchError


class NotForSyncBatchNorm:
    """An attribute that a layer lacks, and whose absence ``SyncBatchNorm.convert_sync_batchnorm`` is told in full.

    The conversion takes every subclass of PyTorch's batch normalization for batch normalization itself, and asks it
    for ``qconfig`` and ``running_var``. It is answered with an IcsbenchError that ends in ``consequence``; everyone
    else with the usual AttributeError. The attribute can be set as any other.
    """

    def __init__(self, consequence: str) -> None:
        self._consequence = consequence

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, layer: nn.Module | None, owner: type) -> NoReturn:
        if sys._getframe(1).f_code is nn.SyncBatchNorm.convert_sync_batchnorm.__code__:
            raise IcsbenchError(f"{owner.__name__} cannot become a torch.nn.SyncBatchNorm, which {self._consequence}")
        raise AttributeError(f"{owner.__name__} has no attribute {self._name!r}", name=self._name, obj=layer)

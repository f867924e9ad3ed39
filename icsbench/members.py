"""The members of a kind (norms, models, optimizers, probes, labs, claims, figures): one module each, found by itself.

A member is an instance of its kind's contract at the top level of a module: of one in the package ``icsbench.<room>``,
or of one that an installed package names in the entry-point group ``icsbench.<room>``, or, of a room inside another, by
the last word alone: ``icsbench.claims`` for ``icsbench.analysis.claims``. No list names them.
"""

import difflib
import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import TypeVar

from icsbench.errors import IcsbenchError

T = TypeVar("T")


def members(room: str, kind: type[T]) -> dict[str, T]:
    """Every member of ``kind`` in ``room``, by its ``name``: the project's own by module, then those of other packages.

    :param room: a package of icsbench with dots, ``norms`` or ``training.optimizers``.
    :raises IcsbenchError: two members have one name, or a module of another package cannot be imported.
    """
    found: dict[str, T] = {}
    where: dict[str, str] = {}
    for module in _modules(room):
        for member in vars(module).values():
            if not isinstance(member, kind):
                continue
            name = str(getattr(member, "name"))  # noqa: B009
            if found.setdefault(name, member) is not member:
                raise IcsbenchError(f"{module.__name__} and {where[name]} both call a member of {room} {name!r}")
            where.setdefault(name, module.__name__)
    return found


def member(room: str, kind: type[T], name: str) -> T:
    """The member of that name.

    :raises IcsbenchError: there is none; the line says which are there.
    """
    found = members(room, kind)
    if name in found:
        return found[name]
    close = difflib.get_close_matches(name, found, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise IcsbenchError(f"no {kind.__name__.lower()} is called {name!r}; {hint}there are {', '.join(found) or 'none'}")


@cache
def _modules(room: str) -> tuple[ModuleType, ...]:
    package = importlib.import_module(f"icsbench.{room}")
    own = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    theirs = []
    groups = dict.fromkeys((f"icsbench.{room}", f"icsbench.{room.rpartition('.')[2]}"))
    for point in (point for group in groups for point in entry_points(group=group)):
        try:
            theirs.append(importlib.import_module(point.module))
        except Exception as error:
            raise IcsbenchError(
                f"entry point {point.name} = {point.value} of {point.group} cannot be imported ({error}); "
                "mend or uninstall that package"
            ) from error
    return (*own, *theirs)

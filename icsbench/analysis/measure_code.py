"""The code that a measure is made of: its functions by name, and the modules that they reach.

Covered is the source of the module of each function (with what is bound in a partial or closure), and of the modules of
``icsbench.analysis``, ``icsbench.record`` and the measure's own package that those import, at any depth.
"""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from types import FunctionType
from typing import Any

_ROOMS = ("icsbench.analysis", "icsbench.record")


def described(value: Any, modules: set[str], seen: tuple[Any, ...] = ()) -> str:
    """A value by the names of the functions that it is made of and what is bound in them; notes their modules."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if any(value is one for one in seen):
        return "..."
    inner = partial(described, modules=modules, seen=(*seen, value))
    if isinstance(value, partial):
        bound = [*map(inner, value.args), *(f"{key}={inner(of)}" for key, of in sorted(value.keywords.items()))]
        return f"{inner(value.func)} of ({', '.join(bound)})"
    if isinstance(value, FunctionType):
        modules.add(value.__module__)
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        bound = [f"{name}={inner(cell.cell_contents)}" for name, cell in cells]
        bound += [*map(inner, value.__defaults__ or ()), *map(inner, (value.__kwdefaults__ or {}).values())]
        return f"{value.__module__}.{value.__qualname__}" + (f" of ({', '.join(bound)})" if bound else "")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{inner(key)}: {inner(of)}" for key, of in value.items()) + "}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(inner, value))})"
    kind = value if isinstance(value, type) else type(value)
    modules.add(kind.__module__)
    held = [inner(getattr(value, f.name)) for f in fields(value)] if is_dataclass(value) and kind is not value else []
    return f"{kind.__module__}.{kind.__qualname__}" + (f"({', '.join(held)})" if held else "")


@cache
def reached_from(module: str) -> tuple[str, ...]:
    """The module and those that it imports, at any depth, as far as they are covered, in the order of their names."""
    package = module.partition(".")[0]
    rooms = _ROOMS if package == "icsbench" else (*_ROOMS, package)
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in found or _source(name) is None:
            continue
        found.add(name)
        todo += [to for to in _imports(name) if any(to == room or to.startswith(f"{room}.") for room in rooms)]
    return tuple(sorted(found))


@cache
def _imports(module: str) -> tuple[str, ...]:
    def named() -> Iterator[str]:
        for node in ast.walk(ast.parse(_source(module) or b"")):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    return tuple(dict.fromkeys(named()))


@cache
def _source(module: str) -> bytes | None:
    """The source of a module; None where it is none, or has none in a file."""
    origin = getattr(sys.modules.get(module), "__file__", None)
    if origin is None:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return None
        origin = spec.origin if spec else None
    path = Path(origin or "")
    return path.read_bytes() if path.suffix == ".py" and path.is_file() else None


def checksum_of(module: str) -> str:
    """The SHA-256 of the source of a module; of an empty one where it is there no more."""
    return hashlib.sha256(_source(module) or b"").hexdigest()

"""The folders that configurations come from: the project's, those of installed packages, and those that were typed."""

import contextlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from icsbench.errors import IcsbenchError

_PACKAGE = Path(__file__).resolve().parents[1]
CONFIG_DIR = next(
    path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if (path / "train.yaml").is_file()
)
"""The project's own."""

_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NAMES_CODE = re.compile(r"_(target|partial|args|recursive|convert)_|searchpath")
_typed: list[Path] = []


@contextlib.contextmanager
def also(typed: Sequence[Path]) -> Iterator[None]:
    """While this lasts, the ``typed`` folders (``--config-dir``) are searched too.

    :raises IcsbenchError: one is no folder, or holds a YAML file that :func:`folders` refuses.
    """
    for folder in typed:
        if not folder.is_dir():
            raise IcsbenchError(f"--config-dir: folder '{folder}' not found")
    _typed.extend(typed)
    try:
        _refuse(folders())
        yield
    finally:
        del _typed[len(_typed) - len(typed) :]


def folders() -> tuple[Path, ...]:
    """Every folder, in the order in which Hydra searches them.

    :raises IcsbenchError: an installed package names a folder that is not there, or a YAML file outside the project
        cannot be read, names code (``_target_``), or has the name of another.
    """
    return (CONFIG_DIR, *_installed(), *_typed)


def options(group: str) -> tuple[str, ...]:
    """The names of the options of a group, sorted; empty where there is no such group."""
    return tuple(sorted({path.stem for folder in folders() for path in (folder / group).glob("*.yaml")}))


def is_group(key: str) -> bool:
    """Whether a key chooses among YAML files."""
    return any((folder / key).is_dir() for folder in folders())


def content(group: str, option: str) -> dict[str, Any]:
    """What the YAML file of an option holds, as it stands there; empty where it holds no mapping."""
    path = next(path for folder in folders() if (path := folder / group / f"{option}.yaml").is_file())
    found = _read(path)
    return found if isinstance(found, dict) else {}


class _Folders(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in folders()[1:]:
            search_path.append("icsbench", str(folder.resolve()))


def search_folders() -> None:
    """Have Hydra search :func:`folders`, from now on."""
    Plugins.instance().register(_Folders)


@cache
def _installed() -> tuple[Path, ...]:
    """The folders that packages name in the entry-point group ``icsbench.configs``; none of their code is run."""
    found = []
    for point in entry_points(group="icsbench.configs"):
        places: list[Path] = []
        with contextlib.suppress(ImportError):
            spec = importlib.util.find_spec(point.module)
            places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
        if not places or not places[0].is_dir():
            raise IcsbenchError(
                f"entry point {point.name} = {point.value} of icsbench.configs names no package with a folder; "
                "mend or uninstall that package"
            )
        inner = places[0] / "configs"
        found.append(inner if inner.is_dir() else places[0])
    _refuse((CONFIG_DIR, *found))
    return tuple(found)


def _refuse(searched: Sequence[Path]) -> None:
    """Refuse what no YAML file outside the project may do."""
    owners: dict[str, Path] = {}
    for folder in searched:
        for path in sorted(folder.rglob("*.yaml")):
            name = path.relative_to(folder).as_posix()
            if name in owners:
                raise IcsbenchError(f"{path} has the name of {owners[name]}; give it another")
            owners[name] = path
            if folder != CONFIG_DIR and (key := next(_naming_code(_read(path)), None)):
                raise IcsbenchError(f"{path}: {key!r} is refused; a configuration never names code")


def _read(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_YAML_LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise IcsbenchError(f"{path} cannot be read ({' '.join(str(error).split())[:120]})") from error


def _naming_code(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _naming_code(str(key))
            yield from _naming_code(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _naming_code(value)
    elif isinstance(tree, str) and _NAMES_CODE.search(tree):
        yield tree

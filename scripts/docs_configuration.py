"""The reference of the configuration as Markdown: keys, types and defaults of the schema, words of the YAML files."""

import re
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml

from icsbench.config import Config, DataConfig, WandbConfig, probes_options
from icsbench.labs.contract import Lab
from icsbench.members import members
from icsbench.models.contract import Model
from icsbench.norms.contract import Norm
from icsbench.training.optimizers.contract import Optimizer, Wrapper

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
GROUPS = {
    "norm": ("Norms", "norms", Norm),
    "model": ("Models", "models", Model),
    "optim": ("Optimizers", "training.optimizers", Optimizer),
    "lab": ("Labs", "labs", Lab),
}
_NO_KEYS_OF_A_RUN = ("data", "model", "norm", "optim", "probes", "wandb", "tracker", "lab", "study")


@cache
def words(group: str, own: Path | None = None) -> dict[str, str]:
    """What the comments behind the keys of YAML files say, by key; the first file that says it counts.

    They are those of ``own``, and then, but for labs, whose keys differ in meaning, of the whole group.
    """
    paths = [own] if own else []
    if not group:
        paths += [CONFIGS / "train.yaml", CONFIGS / "scale" / "paper.yaml"]
    elif group != "lab":
        paths += sorted((CONFIGS / group).glob("*.yaml"))
    found: dict[str, str] = {}
    for path in paths:
        for key, comment in re.findall(r"^(\w+):[^#\n]*? # (.*)$", path.read_text(encoding="utf-8"), re.M):
            found.setdefault(key, comment.strip())
    return found


def opening(path: Path) -> str:
    """The comment that a YAML file begins with, without its commands."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @package") or line.startswith("#   "):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    text = " ".join(lines)
    return text if not text or text.endswith((".", "?")) else f"{text}."


def cell(text: str) -> str:
    """The text inside a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def type_name(kind: Any) -> str:
    """``int or None``, ``list of int``: a type in words."""
    if isinstance(kind, types.UnionType):
        return " or ".join(map(type_name, get_args(kind)))
    if kind is type(None):
        return "null"
    inside = [type_name(one) for one in get_args(kind)]
    name = getattr(kind, "__name__", str(kind))
    return f"{name} of {', '.join(inside)}" if inside else name


def value_name(value: Any) -> str:
    """A value as the command line has it."""
    texts = {None: "null", True: "true", False: "false"}
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(value_name, value)) + "]"
    return texts[value] if value is None or isinstance(value, bool) else str(value)


def default_of(f: Field[Any]) -> str:
    """The default of a key, in code; a dash where it must be given."""
    if f.default is not MISSING:
        return f"`{value_name(f.default)}`"
    return f"`{value_name(f.default_factory())}`" if f.default_factory is not MISSING else "–"


def table(prefix: str, schema: Any, group: str, own: Path | None = None, without: tuple[str, ...] = ()) -> str:
    """The keys of a dataclass as a table; empty without any.

    :param own: a YAML file whose values, where they are others, stand beside the defaults.
    """
    given = yaml.safe_load(own.read_text(encoding="utf-8")) if own and own.exists() else {}
    rows = []
    for f in fields(schema):
        if f.name in without:
            continue
        default = default_of(f)
        if own and f.name in given and f"`{value_name(given[f.name])}`" != default:
            inside = str(given[f.name]).startswith("${")
            default += f"; by scale, in {own.name}" if inside else f"; `{value_name(given[f.name])}` in {own.name}"
        meaning = cell(words(group, own).get(f.name, ""))
        rows.append(f"| `{prefix}{f.name}` | {cell(type_name(f.type))} | {cell(default)} | {meaning} |")
    head = "| key | type | default | meaning |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n" if rows else ""


def _group(group: str) -> Iterator[str]:
    title, room, contract = GROUPS[group]
    found = members(room, contract)
    yield f"## {title}: `{group}`\n"
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        name = path.stem
        lines = path.read_text(encoding="utf-8")
        named = re.search(r"^name: (\w+)", lines, re.M)
        member = found.get(named[1] if named else name)
        yield f"### `{group}={name}`\n"
        if said := opening(path):
            yield f"{cell(said)}\n"
        if member is not None and (options := table(f"{group}.", member.options, group, path, ("name",))):
            yield options
    if group == "optim":
        for wrapper in members(room, Wrapper).values():
            yield f"### `+optim.wrap.{wrapper.name}`\n"
            yield table(f"optim.wrap.{wrapper.name}.", wrapper.options, group, without=("name",))


def _line(path: Path) -> str:
    """The comment behind the name in a YAML file."""
    return cell(re.findall(r"^name:[^#\n]*# +(.*)$", path.read_text(encoding="utf-8"), re.M)[0])


def page() -> str:
    """Every key of the configuration, by group."""
    parts = ["## A run\n", table("", Config, "", without=_NO_KEYS_OF_A_RUN)]
    parts += ["## Data: `data`\n", "A file for each, chosen by `data=NAME`: "]
    parts += [", ".join(f"`{path.stem}`" for path in sorted((CONFIGS / "data").glob("*.yaml"))) + ".\n"]
    parts += [table("data.", DataConfig, "data")]
    for group in ("norm", "model", "optim"):
        parts += _group(group)
    parts += ["## Probes: `probes`\n", table("probes.", type(probes_options()), "probes")]
    parts += ["## Tracker: `tracker`\n", "Where a run is mirrored.\n"]
    parts += [f"- `tracker={path.stem}`: {_line(path)}" for path in sorted((CONFIGS / "tracker").glob("*.yaml"))]
    parts += ["\n## Weights & Biases: `wandb`\n", table("wandb.", WandbConfig, "wandb")]
    return "\n".join([*parts, *_group("lab")])

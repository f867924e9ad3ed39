"""Overrides as they were typed, and as Hydra has to be given them."""

import contextlib
import difflib
import os
import shlex
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException

from icsbench import terminal
from icsbench.app.folders import options
from icsbench.app.progress import say
from icsbench.errors import IcsbenchError

_FREE_TEXT = ("results", "data.root", "lab.root", "wandb.project", "wandb.entity")


def sweeps(override: str) -> bool:
    """Whether an override gives a key several values."""
    return OverridesParser.create().parse_overrides([override])[0].is_sweep_override()


def key_of(override: str) -> str:
    """The key that an override sets."""
    return override.partition("=")[0].lstrip("+")


def as_typed(arguments: list[str]) -> list[str]:
    """The arguments as Hydra reads them, where its grammar would take what was typed for something else.

    A folder, and the names that W&B is given, are taken as they stand, whatever characters they hold: none of them is
    swept over. Quotes and interpolations keep their meaning. ``experiment=NAME`` with a name that no study has names
    the folder of the records; one that looks like a study's is refused, unless it is forced by ``++experiment=NAME``.
    A shell leaves the ~ of ``key=~/folder`` alone, and to Hydra it means deletion.

    :raises IcsbenchError: such a name, or a ~ where there is no home directory.
    """
    return [_as_typed(argument) for argument in arguments]


def _as_typed(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if argument.startswith("-") or not equals:
        return argument
    if value.startswith("~"):
        value = os.path.expanduser(value)
        if Path(value).is_relative_to(terminal.NO_HOME):
            raise IcsbenchError(f"{argument}: there is no home directory here; name the folder in full")
    name = key.lstrip("+")
    if value == "???":
        raise IcsbenchError(f"{argument}: this is how Hydra writes a value that is missing; give another")
    if name in _FREE_TEXT:
        value = _quoted(value)
    elif name == "experiment" and value.lower() != "null" and "${" not in value:
        parsed = _parsed(value)
        if parsed is None or not parsed.is_sweep_override():
            value = _quoted(value)
            chosen = [OverridesParser.create().parse_override(f"experiment={value}").value()]
        else:
            sweep = parsed.value()
            chosen = sweep.list if isinstance(sweep, ChoiceSweep) else []
        for choice in chosen:
            _name_folder(choice.text if isinstance(choice, QuotedString) else str(choice), forced=key == "++experiment")
        key = key.removeprefix("++")
    return f"{key}={value}"


def _parsed(value: str) -> Override | None:
    with contextlib.suppress(HydraException):
        return OverridesParser.create().parse_override(f"key={value}")
    return None


def _quoted(value: str) -> str:
    """``value`` in quotes, unless it is, or stands for nothing."""
    parsed = _parsed(value)
    if value == "" or (parsed is not None and (parsed.value() is None or isinstance(parsed._value, QuotedString))):
        return value
    return QuotedString(value, Quote.double).with_quotes()


def _name_folder(name: str, forced: bool) -> None:
    """Make ``name`` an option of the group ``experiment`` that sets the folder alone, unless a study has the name."""
    if name in options("experiment"):
        return
    if not name or "/" in name or name.startswith("."):
        raise IcsbenchError(f"experiment must be a plain folder name (got {name!r})")
    close = difflib.get_close_matches(name.lower().replace("-", "_"), options("experiment"), n=1, cutoff=0.75)
    if close and not forced:
        raise IcsbenchError(
            f"no study is called {name!r}; did you mean experiment={close[0]}? "
            f"{shlex.quote(f'++experiment={name}')} takes it for a name of your own"
        )
    ConfigStore.instance().store(name, {"experiment": name}, group="experiment", package="_global_")
    say(f"icsbench: no study is called {name!r}, so it only names the folder of the records")

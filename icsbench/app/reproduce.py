"""What ``icsbench reproduce`` is to do: which studies, and what they would cost."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icsbench.app.batch import Task
from icsbench.app.compose import Sweep, cells_of, check_sweep, composed, configurations, jobs, local_pool, sweep_of
from icsbench.app.errors import asking_hydra
from icsbench.app.folders import content, options
from icsbench.app.overrides import as_typed, key_of, sweeps
from icsbench.app.progress import duration
from icsbench.errors import IcsbenchError


@dataclass(frozen=True)
class Reproduction:
    """What ``icsbench reproduce`` is to do: the studies, in order, and the overrides that all of them take."""

    runs: Mapping[str, int | None]
    """How many runs each study has, in order; None where nobody knows."""
    overrides: tuple[str, ...]
    results: Path
    scale: str
    named: bool
    """Whether the studies were named."""
    own: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Overrides of single studies; those above take their place."""

    @property
    def studies(self) -> tuple[str, ...]:
        """The names of the studies."""
        return (*self.runs,)

    def print_costs(self, console: Any, serves: Callable[[str], list[str]]) -> None:
        """Print each study, of the named ones if any were, with its runs, claims (``serves``) and measured cost here.

        A few steps of each network are timed, with the threads that a run of the pool has.
        """
        import torch

        from icsbench.training.cost import seconds_of_run
        from icsbench.training.environment import dataset_of

        default = _afforded(self.scale)
        timed: dict[str, float] = {}
        for study in self.studies if self.named else options("experiment"):
            try:
                with asking_hydra():
                    runs_of, processes = jobs([f"experiment={study}", *self.overrides])
                if processes > 1:
                    torch.set_num_threads(1)
                seconds = 0.0
                for config, count in runs_of:
                    if config.lab is not None:
                        raise IcsbenchError("the runs of a lab are not timed")
                    key = repr(sorted(item for item in config.identity().items() if item[0] != "optim.lr"))
                    if key not in timed:
                        timed[key] = seconds_of_run(config, dataset_of(config))
                    seconds += count * timed[key]
                cost = duration(seconds / processes)
                runs = str(sum(count for _, count in runs_of))
            except IcsbenchError as error:
                cost, runs = f"cannot be said ({error})", "?"
            served = ", ".join(serves(study)) or "none"
            mark = "*" if study in default else " "
            line = f"{mark} {study:<16} {runs:>3} runs, {cost:<10} claims {served}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(
            f"* run by icsbench reproduce scale={self.scale} without names; times are for all runs, measured on a few "
            "steps of each network",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def sweep(self, study: str) -> Sweep:
        """The seeds of a study and how many runs each has."""
        with asking_hydra():
            return sweep_of([f"experiment={study}", *self._of(study)])

    def processes(self) -> int | None:
        """How many processes the local pool has for the runs; None where they do not go there."""
        with asking_hydra():
            return local_pool([override for override in self.overrides if not sweeps(override)])

    def tasks(self, study: str) -> list[Task]:
        """The configurations of a study with their seeds."""
        with asking_hydra():
            cells = cells_of([f"experiment={study}", *self._of(study)])
        return [Task(study, composed, cells.seeds) for composed in cells.composed]

    def folders(self, study: str) -> set[str]:
        """The names of the folders of its configurations, seeds apart."""
        with asking_hydra():
            return {config.run_name for config in configurations([f"experiment={study}", *self._of(study)])}

    def arguments(self, study: str, seeds: Sequence[int] | None = None) -> list[str]:
        """What makes the runs of a study: its own, or those of these seeds."""
        kept = [o for o in self._of(study) if seeds is None or not re.match(r"\+*seed=", o)]
        chosen = [] if seeds is None else [f"seed={','.join(map(str, seeds))}"]
        return ["hydra.mode=MULTIRUN", f"experiment={study}", *kept, *chosen]

    def _of(self, study: str) -> list[str]:
        typed = {key_of(override) for override in self.overrides}
        return [*(o for o in as_typed([*self.own.get(study, ())]) if key_of(o) not in typed), *self.overrides]


def reproduction_of(arguments: list[str]) -> Reproduction:
    """What is to be done for names of studies and overrides, in any order.

    :raises IcsbenchError: a study that is not there, a flag, overrides that name several results folders or scales, or
        that do not fit a study.
    """
    for argument in arguments:
        if argument.startswith("-"):
            raise IcsbenchError(f"reproduce takes names of studies and overrides; {argument} goes with icsbench sweep")
        if re.match(r"\+*experiment=", argument):
            study = argument.partition("=")[2]
            raise IcsbenchError(f"reproduce takes the names of studies as they are: icsbench reproduce {study}")
        if argument.startswith("scale=") and sweeps(argument):
            raise IcsbenchError(f"{argument} names several; a report is on one scale")
    studies = options("experiment")
    names = [argument for argument in arguments if re.fullmatch(r"[\w-]*", argument)]
    overrides = as_typed([argument for argument in arguments if argument not in names])
    for name in names:
        if name not in studies:
            close = difflib.get_close_matches(name, studies, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(studies)}"
            raise IcsbenchError(f"no study {name!r}; {hint}")
    with asking_hydra():
        config = composed([a for a in overrides if re.match(r"\+*(results|scale)=", a)])
        chosen = tuple(dict.fromkeys(names)) or _afforded(config.scale)
    checked = {study: _checked([f"experiment={study}", *overrides]) for study in chosen}
    if refused := {study: line for study, line in checked.items() if isinstance(line, str)}:
        study, line = next(iter(refused.items()))
        if len(refused) < len(chosen):
            raise IcsbenchError(f"study {study}: {line}; name those it is for")
        raise IcsbenchError(line if line == _checked(overrides) else f"study {study}: {line}")
    runs = {study: found for study, found in checked.items() if not isinstance(found, str)}
    return Reproduction(runs, tuple(overrides), Path(config.results), config.scale, bool(names))


def _afforded(scale: str) -> tuple[str, ...]:
    """The studies that a scale affords, in the order that they declare; all, where none says anything of that scale."""
    studies = options("experiment")
    places = {study: place for study in studies if (place := _place(study, scale)) is not None}
    return tuple(sorted(places, key=lambda study: places[study])) or studies


def _place(study: str, scale: str) -> int | None:
    """The place of a study in the order of a scale that affords it, as its own YAML file declares."""
    found: Any = content("experiment", study)
    for key in ("study", "affords", scale):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, int) else None


def _checked(overrides: list[str]) -> str | int | None:
    """How many runs a sweep has, None where nobody knows; a line with which it is refused."""
    try:
        with asking_hydra():
            return next(iter(check_sweep(overrides).values()))
    except IcsbenchError as error:
        return str(error)

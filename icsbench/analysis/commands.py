"""The command that makes the records of a study again."""

from collections import Counter
from typing import Any

from icsbench.analysis.decision import EXPLORATORY
from icsbench.analysis.groups import Group


def command_of(group: Group) -> str:
    """The command that makes the records of a group: it names what its scale or its experiment could set otherwise."""
    run = group.runs[0]
    seeds = sorted({run.seed for run in group.runs})
    words = [f"icsbench sweep experiment={run.setting('experiment')} scale={run.setting('scale')}"]
    words += _of_the_training(group) if group.kind == "training" else []
    words += [f"seed={','.join(map(str, seeds))}"] if seeds != [*range(EXPLORATORY.least)] else []
    return " ".join(words)


def _of_the_training(group: Group) -> list[str]:
    run = group.runs[0]
    steps = {run.setting("steps") for run in group.runs}
    words = []
    if not group.regression:
        words += [f"data={run.setting('data.name')}", "data.root=PATH"] if run.setting("data.root") else []
        words += ["data.binary=true"] if run.setting("data.binary") else []
        words += [f"data.val_size={size}"] if (size := run.setting("data.val_size")) is not None else []
    words += _of_the_network(group)
    words += ["amp=true"] if run.setting("amp") and "amp" not in group.factors else []
    words += [f"optim.lr={','.join(f'{lr:g}' for lr in group.lrs)}"]
    return words + ([f"steps={min(steps)}"] if len(steps) == 1 else [])


def _of_the_network(group: Group) -> list[str]:
    """The options of the network that its scales set differently, where the study does not vary them."""
    run = group.runs[0]
    if any(key.split(".")[0] == "model" for key in group.factors):
        return []
    stated = Counter(key for values in run.model.scales.values() for key in values if key.startswith("model."))
    return [f"{key}={_text(run.settings[key])}" for key, n in stated.items() if n > 1 and key in run.settings]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

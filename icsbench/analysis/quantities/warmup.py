"""How a study starts its learning rates: at once, by a linear warm-up, or held at the first rate of one."""

from typing import Any

from icsbench.analysis.groups import Group, NotMeasured

WARMUP = "optim.warmup"
SHAPE = "optim.warmup_shape"
AT_ONCE, LINEAR, HELD = "at once", "linear", "held"


def starts(group: Group) -> dict[str, dict[str, Any]]:
    """The settings of each start that the study has.

    :raises NotMeasured: it has warm-ups of several lengths.
    """
    found: dict[str, dict[str, Any]] = {}
    for condition in group.conditions:
        run = condition.runs[0]
        length, shape = int(run.setting(WARMUP, 0)), str(run.setting(SHAPE, LINEAR))
        settings = {WARMUP: length, SHAPE: shape} if length else {WARMUP: 0}
        if found.setdefault(shape if length else AT_ONCE, settings) != settings:
            raise NotMeasured(f"{group.name} has warm-ups of several lengths")
    return {start: found[start] for start in (AT_ONCE, LINEAR, HELD) if start in found}

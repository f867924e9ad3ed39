"""The first steps of a run as a run of its own: at a constant learning rate a run contains every shorter one."""

import math
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from icsbench.errors import IcsbenchError
from icsbench.record import schema
from icsbench.record.metrics import Metrics
from icsbench.record.reader import Run, Status

SCHEDULES = ("constant", "exponential")
"""Those whose learning rate at a step does not depend on how many steps follow."""
_KNOWN = tuple(schema.accuracy(split, schema.KNOWN) for split in ("test", "train"))


def cut(run: Run, step: int) -> Run:
    """The run as it would be with ``steps = step``: its rows, probes, outcome and accuracies up to there.

    The outcome is that of training at ``step``: diverged where an update before it gave a loss that is not finite, else
    by the row of training at ``step``. Final accuracies are those of the evaluation at ``step``, NaN where the run
    made none there; what it knows (:data:`icsbench.record.schema.KNOWN`) counts where that evaluation recalibrated on
    as many batches as the last one does. A run of ``step`` steps, one that is not finished, and one of a lab, which has
    no steps, keep all they have. All say where they were cut, in :attr:`Run.at_step`.

    :raises IcsbenchError: ``step`` is not positive or beyond the end of the run, its learning rates depend on how long
        it is, or it has no row of training at ``step``.
    """
    if step < 1:
        raise IcsbenchError(f"records are cut at a step from 1 on (got {step})")
    if run.kind == "lab" or not run.finished:
        return replace(run, at_step=step)
    steps = int(run.setting("steps", 0))
    if step > steps:
        raise IcsbenchError(f"{run.path}: has {steps:,} steps and cannot be cut at step {step:,}; choose a smaller one")
    if step == steps:
        return replace(run, at_step=step)
    if isinstance(run, _Beginning):
        return cut(run.whole, step)
    _refuse_other_rates(run, step)
    summary = _summary(run, step)
    whole = {field.name: getattr(run, field.name) for field in fields(run)}
    config = run.config | {"steps": step}
    return _Beginning(
        **whole | {"config": config, "summary": summary, "status": _status(summary), "at_step": step}, whole=run
    )


@dataclass(frozen=True, eq=False)
class _Beginning(Run):
    """The first ``at_step`` steps of a longer run."""

    whole: Run = field(kw_only=True)

    @property
    def seconds(self) -> float | None:
        """None: how long so many steps took was not noted."""
        return None

    @cached_property
    def metrics(self) -> Metrics:
        """The rows of the first ``at_step`` updates and of the network behind them."""
        end = int(self.config["steps"])
        rows = [row for row in self.whole.metrics.rows if row[schema.STEP] < end]
        behind = [row for row in self.whole.metrics.rows if row[schema.STEP] == end]
        return Metrics(rows + _of_the_network(behind), self.path / schema.METRICS)

    def steps_of(self, probe: str) -> list[int]:
        """The steps up to the cut at which a probe stored arrays, ascending."""
        return [step for step in self.whole.steps_of(probe) if step <= self.config["steps"]]


def _of_the_network(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without those about the update that follows, which a run that ends here does not make.

    They have the keys of such an update, or stand behind the evaluation, which is the last that is done between two.
    """
    evaluated = next((place for place, row in enumerate(rows) if schema.TEST_ACCURACY in row), len(rows) - 1)
    return [row for row in rows[: evaluated + 1] if not any(key.startswith(schema.OF_AN_UPDATE) for key in row)]


def _refuse_other_rates(run: Run, step: int) -> None:
    schedule, warmup = run.settings.get("optim.schedule"), run.settings.get("optim.warmup", 0)
    if schedule not in SCHEDULES:
        raise IcsbenchError(
            f"{run.path}: its learning rate (optim.schedule={schedule}) depends on how many steps it has, so that its "
            f"first {step:,} are no run of {step:,} steps; leave it whole"
        )
    if warmup >= step:
        raise IcsbenchError(f"{run.path}: warms up over {warmup:,} steps; choose a step behind that (got {step:,})")


def _summary(run: Run, step: int) -> dict[str, Any]:
    """What the summary of a run of ``step`` steps says."""
    diverged = run.summary.get("diverged_at")
    if diverged is not None and diverged < step and run.metrics.last_step <= step:
        return run.summary
    row, left = _training_row(run, step), run.summary.get("left_chance_at")
    accuracies = _evaluated(run, step)
    return {
        "status": "complete",
        "outcome": "chance" if _at_chance(run, row) else "trained",
        "diverged_at": None,
        "left_chance_at": None if left is None or left > step else left,
        **{key: row[key] for key in (schema.TRAIN_LOSS, schema.TRAIN_ACCURACY) if key in row},
        "steps": step,
        **{
            key: {protocol: accuracies.get(schema.accuracy(split, protocol), math.nan) for protocol in protocols}
            for split in ("test", "val")
            if (protocols := run.summary.get(key := schema.accuracy(split))) is not None
        },
        **{
            key: accuracies[key]
            for split in ("test", "train")
            if (key := schema.accuracy(split, schema.KNOWN)) in accuracies
        },
    }


def _evaluated(run: Run, step: int) -> dict[str, float]:
    """Accuracies of the evaluation at a step, by split and protocol, as the last evaluation would have them."""
    found = {key: value for row in run.metrics.rows if row[schema.STEP] == step for key, value in row.items()}
    if schema.TEST_ACCURACY in found:
        found[schema.accuracy("test", schema.CUSTOMARY)] = found[schema.TEST_ACCURACY]
    return found if _recalibrated_alike(run) else {k: v for k, v in found.items() if not k.endswith(schema.KNOWN)}


def _recalibrated_alike(run: Run) -> bool:
    """Whether an evaluation along the way recalibrates on as many batches as the last: it takes an epoch at most."""
    data = run.environment.get("data")
    images = data.get("train") if isinstance(data, dict) else None
    batches = int(run.settings["recalibration_batches"])
    keeps_statistics = schema.KNOWN in run.summary.get(schema.TEST_ACCURACY, {})
    return not keeps_statistics or images is None or batches <= images // int(run.setting("batch_size", 1))


def _training_row(run: Run, step: int) -> dict[str, Any]:
    rows = [row for row in run.metrics.rows if schema.TRAIN_LOSS in row]
    found = next((row for row in rows if row[schema.STEP] == step), None)
    if found is None:
        before = max((row[schema.STEP] for row in rows if row[schema.STEP] < step), default=None)
        after = min((row[schema.STEP] for row in rows if row[schema.STEP] > step), default=None)
        near = " or ".join(f"{near:,}" for near in (before, after) if near is not None)
        raise IcsbenchError(f"{run.path}: has no row of training at step {step:,}; choose {near or 'another run'}")
    return found


def _at_chance(run: Run, row: dict[str, Any]) -> bool:
    """Whether a classifier guesses; a regression never does."""
    return math.isfinite(run.chance) and not row[schema.TRAIN_ACCURACY] >= schema.LEFT_CHANCE * run.chance


def _status(summary: dict[str, Any]) -> Status:
    outcome = summary["outcome"]
    return "diverged" if outcome == "diverged" else "chance" if outcome == "chance" else "complete"

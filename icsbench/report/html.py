"""One self-contained HTML page of the debate, the verdicts, the figures and the runs. Never imports torch."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from icsbench.analysis.chain import link_of, origin_of, runs_behind
from icsbench.analysis.decision import LEVEL
from icsbench.analysis.files import write_file
from icsbench.analysis.findings import Finding
from icsbench.analysis.groups import Group, NotMeasured, group_runs, precision, regime_order
from icsbench.analysis.quantities.protocols import protocols
from icsbench.analysis.sensitivity import of_verdicts
from icsbench.analysis.statistics import MOST_FOR_SIGN_FLIPS
from icsbench.analysis.verdicts import FEWEST_SEEDS, Verdict, sharing, used_of
from icsbench.figures import plan
from icsbench.record.legacy import LOOKS
from icsbench.record.reader import Run
from icsbench.record.schema import TRAIN_LOSS
from icsbench.report.chain import keys_in_words, short, values_in_words
from icsbench.report.charts import chart_of
from icsbench.report.dots import WIDTH, dot_plot
from icsbench.report.opening import opening_of
from icsbench.report.page import page_of
from icsbench.report.svg import Sheet, inline_svg, page_style
from icsbench.report.words import (
    BOUND,
    MOST_LISTED,
    agreement,
    by_a_lock,
    counted,
    effect,
    region,
    registration,
    registration_line,
    summary_line,
)

_MOST_RATES = 2
"""With more learning rates than that, of the figures per learning rate only those that a claim points to."""


@dataclass(frozen=True, eq=False)
class _Drawn:
    anchor: str
    name: str
    claims: tuple[str, ...]
    svg: Markup
    chart: Markup


@dataclass(eq=False)
class _Study:
    """The figures of one group of runs."""

    group: Group
    drawn: list[_Drawn] = field(default_factory=list)
    not_drawn: dict[str, list[str]] = field(default_factory=dict)
    """Titles by the reason."""
    left_out: list[str] = field(default_factory=list)

    def showing(self, claim: str) -> list[_Drawn]:
        return [drawn for drawn in self.drawn if claim in drawn.claims]


@dataclass(frozen=True, eq=False)
class _Experiment:
    name: str
    anchor: str
    """The end of the ids of its figures and runs: ``experiment-<anchor>``, ``runs-<anchor>``."""
    runs: list[Run]
    studies: list[_Study]


def write_report(runs: Sequence[Run], verdicts: Sequence[Verdict], out: Path) -> Path:
    """Write the page of these runs and the verdicts on them; returns ``out``.

    The file needs nothing beside itself, and is byte for byte the same for the same records and versions.

    :raises IcsbenchError: a record is damaged, or ``out`` cannot be written.
    """
    sheet = Sheet()
    experiments = _experiments(runs, verdicts, sheet)
    of_group = {study.group.name: (experiment, study) for experiment in experiments for study in experiment.studies}
    opening = opening_of(runs, verdicts)
    html = page_of(
        "report.html.j2",
        sheet,
        _FILTERS,
        opening=opening,
        drawn_opening=opening.drawn("regimes-figure", sheet) if opening else (),
        verdicts=[(verdict, _seen_in(verdict, of_group)) for verdict in verdicts],
        summary=_summary(runs, verdicts),
        sensitivity=of_verdicts(verdicts),
        locked=registration_line(verdicts) if by_a_lock(verdicts) else "",
        shares=sharing(verdicts),
        experiments=experiments,
        papers=dict.fromkeys(paper for verdict in verdicts for paper in _papers(verdict)),
        debated=LOOKS,
        others=sorted({run.regime for run in runs if run.regime not in LOOKS}, key=regime_order),
        row_of={run: f"run-{number}" for number, run in enumerate(runs, 1)},
        origin={run: origin_of(run) for verdict in verdicts for run in verdict.runs},
        unfinished=sum(not run.finished for run in runs),
        **_CONSTANTS,
    )
    return write_file(out, lambda file: file.write(html))


def _summary(runs: Sequence[Run], verdicts: Sequence[Verdict]) -> str:
    judged = {run for verdict in verdicts for run in verdict.runs}
    labels = sorted({str(run.environment["data"]["label"]) for run in judged if "data" in run.environment})
    return (
        summary_line(verdicts, runs[0].at_step if runs else None)
        + (f"; data: {'; '.join(labels)}" if labels else "")
        + "."
    )


def _papers(verdict: Verdict) -> list[str]:
    """Every paper that takes part in the dispute; an inference from a paper counts as the paper."""
    return list(dict.fromkeys(re.sub(r" \(.*\)$", "", paper) for paper in verdict.claim.papers))


def _seen_in(
    verdict: Verdict, of_group: dict[str, tuple[_Experiment, _Study]]
) -> list[tuple[_Experiment, _Study, Group]]:
    """The studies that a claim was judged by, each with those of its runs that were used."""
    return [(*of_group[used.name], used) for used in used_of(verdict.findings) if used.name in of_group]


# --- figures ---------------------------------------------------------------------------------------------------------


def _experiments(runs: Sequence[Run], verdicts: Sequence[Verdict], sheet: Sheet) -> list[_Experiment]:
    anchors: set[str] = set()
    drawn: set[str] = set()
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(str(run.setting("experiment", "runs")), []).append(run)
    experiments = []
    for name, members in sorted(by_name.items()):
        anchor = _anchor(name, anchors)
        studies = [_study(group, verdicts, drawn, sheet) for group in group_runs(members)]
        members.sort(key=_place)
        experiments.append(_Experiment(name, anchor, members, studies))
    return experiments


def _place(run: Run) -> tuple[Any, ...]:
    lr = run.lr if run.kind == "training" else 0.0
    return lr, regime_order(run.regime), run.path.parent, run.seed


def _study(group: Group, verdicts: Sequence[Verdict], anchors: set[str], sheet: Sheet) -> _Study:
    study = _Study(group)
    claims: dict[str, list[tuple[str, set[float]]]] = {}
    for verdict in verdicts:
        for used in (used for used in used_of(verdict.findings) if used.name == group.name):
            for figure in verdict.claim.figures:
                claims.setdefault(figure, []).append((verdict.claim.id, set(used.lrs)))
    with page_style():
        for name, part, drawing in plan(group):
            kind = name if len(group.lrs) < 2 else name.removesuffix(f"-lr{part.lrs[0]:g}")
            title = kind.replace("-", " ") + ("" if kind == name else f" at learning rate {part.lrs[0]:g}")
            if kind != name and len(group.lrs) > _MOST_RATES and kind not in claims:
                study.left_out.append(title)
                continue
            try:
                figure, numbers = drawing.drawn(part)
            except NotMeasured as reason:
                study.not_drawn.setdefault(_without_folders(str(reason), group), []).append(title)
                continue
            anchor = _anchor(f"figure {group.name} {name}", anchors)
            svg = inline_svg(figure, f"{anchor}--", f"{group.name}, {title}.", sheet)
            served = tuple(id for id, rates in claims.get(kind, ()) if not rates or rates & set(part.lrs))
            study.drawn.append(_Drawn(anchor, title, served, svg, chart_of(numbers, drawing.titles, figure)))
    return study


def _without_folders(text: str, group: Group) -> str:
    for folder in {run.path.parent.parent for run in group.runs}:
        text = text.replace(f"{folder}/", "")
    return text


def _anchor(name: str, taken: set[str]) -> str:
    """An id like the name, and like no other."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    anchor = next(
        anchor for anchor in (stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3)))
        if anchor and anchor not in taken
    )  # fmt: skip
    taken.add(anchor)
    return anchor


# --- numbers ---------------------------------------------------------------------------------------------------------


def _number(value: Any, form: str = ".2g") -> str:
    """A number as text; empty where it is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:{form}}" if isinstance(value, int | float) else str(value)


def _row(run: Run, columns: Sequence[str]) -> list[str]:
    """The cells of a run in the table; ``columns`` are the protocols of the test accuracies."""
    return [
        run.regime,
        *(_of_the_training(run) if run.kind == "training" else ("", str(run.seed), *[""] * 5)),
        run.status,
        _number(None if run.seconds is None else run.seconds / 60, ".1f"),
        _number(run.summary.get(TRAIN_LOSS), ".4g"),
        _percent(run.train_accuracy),
        *(_percent(run.test_accuracy.get(protocol)) for protocol in columns),
        "/".join(run.path.resolve().parts[-3:]),
    ]


def _of_the_training(run: Run) -> list[str]:
    units = run.setting("model.units")
    return [
        _number(run.lr, "g"),
        str(run.seed),
        _number(run.summary.get("steps", run.setting("steps")), ",d"),
        _number(run.setting("model.width") if units is None else units, "g"),
        _number(run.setting("norm.strength"), "g") if _draws_noise(run) else "",
        _number(run.setting("batch_size"), "d"),
        precision(run),
    ]


def _chain(finding: Finding) -> list[tuple[str, str, tuple[Run, ...]]]:
    """Seeds, their numbers, and the runs behind them."""
    links = [(link_of(finding, keys), runs) for keys, runs in runs_behind(finding)]
    return [(keys_in_words(link), values_in_words(link), runs) for link, runs in links if runs]


def _draws_noise(run: Run) -> bool:
    """Whether the run was tested with its noise on too."""
    tested = run.test_accuracy if run.finished else [key for row in run.metrics.rows for key in row]
    return any(key.endswith("-on") for key in tested)


def _percent(fraction: float | None) -> str:
    return _number(None if fraction is None else 100 * fraction, ".1f")


_CONSTANTS = {
    "LEVEL": LEVEL,
    "FEWEST_SEEDS": FEWEST_SEEDS,
    "MOST_FOR_SIGN_FLIPS": MOST_FOR_SIGN_FLIPS,
    "WIDTH": WIDTH,
    "MOST_LISTED": MOST_LISTED,
    "BOUND": BOUND,
}
_FILTERS = {
    "agreement": agreement,
    "chain": _chain,
    "counted": counted,
    "effect": effect,
    "region": region,
    "registration": registration,
    "dot_plot": dot_plot,
    "papers": _papers,
    "protocols": protocols,
    "row": _row,
    "short": short,
    "number": _number,
}

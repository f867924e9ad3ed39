"""Error and power of the verdicts, by simulation of the code that decides them.

``python scripts/error_rate.py`` (some minutes on one core) writes ``results/reference/error``: rows to ``error.csv``
and ``power.csv`` as they come, then ``README.md`` and ``error.png``.

Every claim of a family has a mean that lies exactly on the bound of its region, where a verdict either way is most
often false. ``icsbench.analysis.verdicts.decide`` decides, with its tests and its Holm. To save time it is given only
the claims that can get a verdict at all: with k claims open, none gets one unless some claim has k p <= level by
Student's t alone, and no claim with p > level does. On some families of every row it decides without that sieve, and
the outcome has to be the same.
"""

import csv
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from icsbench.analysis import verdicts
from icsbench.analysis.claims.contract import Claim, Measured, Part
from icsbench.analysis.decision import EXPLORATORY, Look, Rule
from icsbench.analysis.findings import Finding

OUT = Path(__file__).resolve().parent.parent / "results" / "reference" / "error"
SEED = 20261127
FAMILIES, CHECKED = 10_000, 20
MEMBERS = (1, 5, 40)
LOOKS = (Look(12, 0.03), Look(24, 0.02))
EFFECTS = (1.0, 1.5, 2.0)
BATCH = 1_000

Values = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Values]


class World(NamedTuple):
    """Where values come from: of mean 0 and variance 1, but for those of ``lognormal`` and ``outliers``."""

    name: str
    what: str
    symmetric: bool
    draw: Draw


def _two_modes(share: float, spread: float = 0.1) -> Draw:
    """A ``share`` of the values about the lower of two modes."""
    lower = -np.sqrt((1 - share) / share)
    upper = np.sqrt(share / (1 - share))
    scale = np.sqrt(1 + spread**2)
    return lambda random, shape: (
        (np.where(random.random(shape) < share, lower, upper) + spread * random.standard_normal(shape)) / scale
    )


def _outliers(rare: float, far: float) -> Draw:
    """Normal values, of which a ``rare`` few are ``far`` away on one side."""
    return lambda random, shape: random.standard_normal(shape) + far * ((random.random(shape) < rare) - rare)


def _contaminated(random: np.random.Generator, shape: tuple[int, ...]) -> Values:
    return random.standard_normal(shape) * np.where(random.random(shape) < 0.1, 10.0, 1.0)


WORLDS = (
    World("normal", "normal", True, lambda random, shape: random.standard_normal(shape)),
    World("t3", "t with 3 degrees of freedom", True, lambda random, shape: random.standard_t(3, shape) / np.sqrt(3)),
    World("two modes", "two modes with half of the values each, spread a tenth of their distance / 2", True,
          _two_modes(0.5)),
    World("outliers", "normal, a tenth of the values with ten times the deviation", True, _contaminated),
    World("skewed", "exponential", False, lambda random, shape: random.exponential(size=shape) - 1),
    World("very skewed", "lognormal, deviation 1 of the logarithm", False,
          lambda random, shape: random.lognormal(size=shape) - np.exp(0.5)),
    World("uneven modes", "two modes, the lower with a quarter of the values", False, _two_modes(0.25)),
    World("outliers on one side", "normal, a twentieth of the values 10 deviations further up", False,
          _outliers(0.05, 10.0)),
)  # fmt: skip


class _Tested(Finding):
    """A finding of which nobody asks how many seeds would settle it."""

    def chance(self, n: int, level: float, exact: bool) -> float:
        return 0.0


_PART = Part("simulated", lambda group: Measured({}, {}), "a simulated value", (), low=0.0)
_CLAIM = Claim("simulated", "The mean is positive.", "nobody", "nowhere", parts=(_PART,))


def shipped(values: Values, rule: Rule, members: int) -> list[verdicts.Outcome]:
    """The verdicts of ``icsbench`` on k claims with n values each, (k, n), in a family of so many members."""
    measured = [(_CLAIM, [_Tested(_PART, None, dict(enumerate(row.tolist())), {})]) for row in values]
    return [verdict.verdict for verdict in verdicts.decide(measured, rule, members)]


def student_p(values: Values) -> Values:
    """Two-sided p by Student's t of a mean of 0: (..., n) to (...)."""
    n = values.shape[-1]
    t = values.mean(-1) / (values.std(-1, ddof=1) / np.sqrt(n))
    return 2 * stdtr(n - 1, -np.abs(t))


def decided(values: Values, rule: Rule, sieve: bool = True) -> dict[int, verdicts.Outcome]:
    """Those of k claims, (k, n), that get a verdict, and which."""
    count = len(values)
    kept = np.arange(count)
    if sieve:
        p = student_p(values)
        if not count or p.min() * count > rule.level * (1 + 1e-9):
            return {}
        kept = np.flatnonzero(p <= rule.level * (1 + 1e-9))
    found = shipped(values[kept], rule, count)
    return {int(k): one for k, one in zip(kept, found, strict=True) if one in ("supported", "contradicted")}


def in_one_look(values: Values, sieve: bool = True) -> dict[int, verdicts.Outcome]:
    """The verdicts without a registration, on all values of k claims, (k, n)."""
    return decided(values, EXPLORATORY, sieve)


def in_looks(values: Values, sieve: bool = True, looks: Sequence[Look] = LOOKS) -> dict[int, verdicts.Outcome]:
    """The verdicts by the plan: at each look on the first seeds of the claims that are open by then, (k, n)."""
    found: dict[int, verdicts.Outcome] = {}
    for look in looks:
        open_ones = [claim for claim in range(len(values)) if claim not in found]
        now = decided(values[open_ones, : look.seeds], Rule(look.level, exact=True, least=look.seeds), sieve)
        found |= {open_ones[place]: outcome for place, outcome in now.items()}
    return found


PROCEDURES = {
    "two looks": (LOOKS[-1].seeds, in_looks),
    "exploratory": (EXPLORATORY.least, in_one_look),
}


def error_rows(families: int) -> Iterator[dict[str, object]]:
    """Per procedure, world and size of the family, how often a family has a verdict, which are all false."""
    for number, (rule, (n, procedure)) in enumerate(PROCEDURES.items()):
        for place, world in enumerate(WORLDS):
            for members in MEMBERS:
                began = time.perf_counter()
                random = np.random.default_rng([SEED, number, place, members])
                wrong = {"any": 0, "supported": 0, "contradicted": 0}
                for start in range(0, families, BATCH):
                    drawn = world.draw(random, (min(BATCH, families - start), members, n))
                    for at, values in enumerate(drawn):
                        found = procedure(values)
                        if start + at < CHECKED and procedure(values, False) != found:
                            raise AssertionError(f"the sieve changes what comes out: {rule}, {world.name}, {members}")
                        wrong["any"] += bool(found)
                        for outcome in set(found.values()):
                            wrong[outcome] += 1
                shares = {name: count / families for name, count in wrong.items()}
                yield {
                    "procedure": rule,
                    "world": world.name,
                    "symmetric": world.symmetric,
                    "members": members,
                    "families": families,
                    "error": shares["any"],
                    "standard_error": _standard_error(shares["any"], families),
                    "supported": shares["supported"],
                    "contradicted": shares["contradicted"],
                    "seconds": round(time.perf_counter() - began, 1),
                }


def power_rows(families: int) -> Iterator[dict[str, object]]:
    """How often a claim is supported whose mean lies so many deviations inside its region; values are normal.

    In a family of 40 the others are at their bounds.
    """
    for members in (1, 40):
        for effect in EFFECTS:
            random = np.random.default_rng([SEED, members, round(10 * effect)])
            found = {EXPLORATORY.least: 0, **{look.seeds: 0 for look in LOOKS}}
            for _ in range(families):
                values = random.standard_normal((members, LOOKS[-1].seeds))
                values[0] += effect
                found[EXPLORATORY.least] += in_one_look(values[:, : EXPLORATORY.least]).get(0) == "supported"
                for last, look in enumerate(LOOKS, 1):
                    found[look.seeds] += in_looks(values, looks=LOOKS[:last]).get(0) == "supported"
            for n, count in found.items():
                share = count / families
                yield {
                    "procedure": "exploratory" if n == EXPLORATORY.least else "two looks",
                    "n": n,
                    "members": members,
                    "effect": effect,
                    "families": families,
                    "power": share,
                    "standard_error": _standard_error(share, families),
                }


def _standard_error(share: float, count: int) -> float:
    return round(float(np.sqrt(share * (1 - share) / count)), 5)


def write(name: str, rows: Iterator[dict[str, object]]) -> list[dict[str, object]]:
    """Write and print rows as they come."""
    kept: list[dict[str, object]] = []
    with open(OUT / name, "w", newline="") as file:
        for row in rows:
            if not kept:
                writer = csv.DictWriter(file, [*row], lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            print(*row.values(), sep="  ", flush=True)
            kept.append(row)
    return kept


def draw(errors: Sequence[dict[str, object]]) -> None:
    """A point per procedure, world and size of the family, and a line at 0.05."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(PROCEDURES), figsize=(9, 3.4), sharey=True, layout="constrained")
    names = [world.name for world in WORLDS]
    for axis, rule in zip(axes, PROCEDURES, strict=True):
        for members, marker in zip(MEMBERS, "os^", strict=True):
            found = [row for row in errors if (row["procedure"], row["members"]) == (rule, members)]
            axis.plot([row["error"] for row in found], names, marker, alpha=0.8, label=f"{members} in the family")
        axis.axvline(0.05, color="black", linewidth=0.8)
        axis.set(title=rule, xlabel="chance of any false verdict")
        axis.set_xscale("symlog", linthresh=0.05)
        axis.set_xlim(-0.005, 1.1)
        axis.set_xticks([0, 0.05, 0.1, 0.2, 0.5, 1], ["0", "0.05", "0.1", "0.2", "0.5", "1"])
    axes[0].invert_yaxis()
    axes[-1].legend(loc="lower left", fontsize="small")
    figure.savefig(OUT / "error.png", dpi=150, metadata={"Software": None})


def readme(errors: Sequence[dict[str, object]], powers: Sequence[dict[str, object]], seconds: float) -> str:
    """The tables as Markdown, with what made them."""
    lines = [
        "# Error and power of the verdicts",
        "",
        "The chance that a family of claims gets any false verdict, by simulation of the code that decides "
        "(`icsbench.analysis.verdicts.decide`). Every claim has its mean exactly on the bound of its region, where "
        "a verdict either way is most often false, so every verdict is counted as false (a mean just inside makes "
        "`contradicted` false, one just outside `supported`). Claims are independent. The bar is 0.05.",
        "",
        "- two looks: the rule of the confirmation. After 12 seeds at 0.03 and, over the claims still open, after 24 "
        "at 0.02; Holm over the family; Student's t and the exact sign flips have to agree.",
        "- exploratory: one look at 6 seeds, Student's t alone at 0.05, Holm over the family.",
        "",
        *_error_table(errors),
        "",
        *_reading(errors),
        "",
        "![Chance of any false verdict](error.png)",
        "",
        "Power: how often a claim is supported whose mean lies so many standard deviations of its values inside the "
        "region. Values are normal; in a family of 40 the other claims are at their bounds. A claim of several parts "
        "is supported less often.",
        "",
        *_power_table(powers),
        "",
        f"{errors[0]['families']:,} families a row of errors, {powers[0]['families']:,} a row of power; in brackets "
        f"the standard error of the simulation where it is 0.001 or more. Seed {SEED}. Commit {_commit()}, "
        f"numpy {np.__version__}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{seconds / 60:.0f} minutes in one process. Made by `python scripts/error_rate.py`; the numbers are in "
        "[error.csv](error.csv), with the shares supported and contradicted, and [power.csv](power.csv).",
        "",
        f"To save time the shipped code was given only the claims that can get a verdict: with k claims open, none "
        "gets one unless some claim has k p <= level by Student's t alone, and no claim with p > level does. On "
        f"the first {CHECKED} families of each row of errors it decided without that sieve too, and the outcome was "
        "the same.",
    ]
    return "\n".join(lines) + "\n"


def _cell(share: object, error: object) -> str:
    return f"{share:.3f}" + (f" ({error:.3f})" if float(str(error)) >= 0.001 else "")


def _error_table(rows: Sequence[dict[str, object]]) -> list[str]:
    columns = [(rule, members) for rule in PROCEDURES for members in MEMBERS]
    found = {(row["world"], row["procedure"], row["members"]): row for row in rows}
    lines = [
        "| values | symmetric | " + " | ".join(f"{rule}, {members}" for rule, members in columns) + " |",
        "| --- | --- |" + " ---: |" * len(columns),
    ]
    for world in WORLDS:
        of_world = [found[world.name, *column] for column in columns]
        cells = [_cell(row["error"], row["standard_error"]) for row in of_world]
        first = f"{world.name} ({world.what})" if world.name != world.what else world.name
        lines.append(f"| {first} | {'yes' if world.symmetric else 'no'} | {' | '.join(cells)} |")
    return [*lines, "", "The number behind a procedure is that of the claims in the family."]


def _reading(rows: Sequence[dict[str, object]]) -> list[str]:
    """For which worlds each procedure keeps to the bar, within two standard errors."""
    lines = []
    for rule in PROCEDURES:
        of_rule = [row for row in rows if row["procedure"] == rule]
        over = [row for row in of_rule if float(str(row["error"])) - 2 * float(str(row["standard_error"])) > 0.05]
        missed = [*dict.fromkeys(str(row["world"]) for row in over)]
        kept = [world.name for world in WORLDS if world.name not in missed]
        lines.append(
            f"- {rule}: at most 0.05, within two standard errors, where values are {', '.join(kept) or 'of no kind'}; "
            f"more where they are {', '.join(missed) or 'of no kind'}."
        )
    return [
        *lines,
        "",
        "Sign flips are exact where values are symmetric about their mean, whatever their distribution; they say "
        "nothing of the mean of values that are not. No test of a mean holds its level for all distributions "
        "(Bahadur & Savage 1956). Nor can a stricter rule mend it at these numbers of seeds: twelve exponential values "
        "all lie below their mean with a chance of 0.4 % ((1 - 1/e)^12), and such a sample looks like one of an effect "
        "of two standard deviations. A rule that refused it would refuse true effects of that size.",
    ]


def _power_table(rows: Sequence[dict[str, object]]) -> list[str]:
    columns = [(members, effect) for members in (1, 40) for effect in EFFECTS]
    found = {(row["n"], row["members"], row["effect"]): row for row in rows}
    alone = [f"{effect:g} sd, {'alone' if members == 1 else f'of {members}'}" for members, effect in columns]
    lines = ["| seeds | procedure | " + " | ".join(alone) + " |", "| --- | --- |" + " ---: |" * len(columns)]
    for n in dict.fromkeys(row["n"] for row in rows):
        of_n = [found[n, *column] for column in columns]
        cells = [_cell(row["power"], row["standard_error"]) for row in of_n]
        lines.append(f"| {n} | {of_n[0]['procedure']} | {' | '.join(cells)} |")
    return lines


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=OUT.parents[2], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def main() -> None:
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    began = time.perf_counter()
    OUT.mkdir(parents=True, exist_ok=True)
    errors = write("error.csv", error_rows(FAMILIES))
    powers = write("power.csv", power_rows(FAMILIES // 5))
    draw(errors)
    (OUT / "README.md").write_text(readme(errors, powers, time.perf_counter() - began), encoding="utf-8")


if __name__ == "__main__":
    main()

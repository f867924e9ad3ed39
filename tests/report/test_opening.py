import json

import numpy as np
from planted import finish
from scipy import stats
from synthetic import DLN, write_run, write_study

from icsbench.analysis.claims import claim_of
from icsbench.analysis.findings import Finding
from icsbench.analysis.verdicts import decide
from icsbench.record.reader import load_runs
from icsbench.report.opening import opening_of
from icsbench.report.svg import Sheet

SHORT = {"steps": 100, "eval_every": 50, "probes": False}


def opened(root, verdicts=()):
    return opening_of(load_runs(root), verdicts)


def said(root):
    return [sentence.replace("\N{NO-BREAK SPACE}", " ") for sentence in opened(root).sentences]


def plant(path, accuracy):
    """Have a run end at this training accuracy, a fraction."""
    summary = json.loads((path / "summary.json").read_text()) | {"train/accuracy": accuracy}
    finish(path, summary)


def interval(differences):
    """Mean and 95 % t-interval of percentage points, by scipy."""
    low, high = stats.t.interval(0.95, len(differences) - 1, np.mean(differences), stats.sem(differences))
    return f"{np.mean(differences):+.1f} [{low:+.1f}, {high:+.1f}] points"


ENDS = {"none": (0.50, 0.56, 0.53, 0.47), "bn": (0.91, 0.93, 0.90, 0.92), "noisy_bn": (0.90, 0.94, 0.88, 0.93)}


def write_ends(root, **options):
    for regime, ends in ENDS.items():
        for seed, end in enumerate(ends):
            plant(write_run(root, regime, seed, **SHORT | options), end)


def test_the_finding_says_where_each_regime_ends_and_how_far_apart_seed_by_seed(tmp_path):
    write_ends(tmp_path)
    none, bn, noisy = (100 * np.array(ends) for ends in ENDS.values())
    first, second = said(tmp_path)
    assert first == (
        f"With BN the network ends at 91.5 % training accuracy, and without BN at 51.5 %: {interval(bn - none)}."
    )
    assert second == (
        f"With noisy BN it ends at 91.2 %: {interval(noisy - none)} against the one without BN, and "
        f"{interval(noisy - bn)} (not told apart) against the one with BN."
    )


def test_the_finding_can_come_out_the_other_way(tmp_path):
    for regime, ends in (("none", (0.9, 0.91, 0.92)), ("bn", (0.3, 0.31, 0.3))):
        for seed, end in enumerate(ends):
            plant(write_run(tmp_path, regime, seed, **SHORT), end)
    [sentence] = said(tmp_path)
    assert sentence.startswith(
        "With BN the network ends at 30.3 % training accuracy, and without BN at 91.0 %: -60.7 ["
    )


def test_two_seeds_have_no_interval_and_other_seeds_no_difference(tmp_path):
    for regime, seeds in (("none", (0, 1)), ("bn", (0, 1)), ("noisy_bn", (7,))):
        for seed in seeds:
            plant(write_run(tmp_path, regime, seed, **SHORT), 0.5 if regime == "none" else 0.75)
    first, second = said(tmp_path)
    assert first.endswith("without BN at 50.0 %: +25.0 points.")
    assert second.startswith("With noisy BN it ends at 75.0 %: no seed in common against")


def test_a_run_that_diverged_counts_as_chance_and_is_drawn(tmp_path):
    write_run(tmp_path, "none", 0, diverged_at=40, outcome="diverged", **SHORT)
    write_run(tmp_path, "none", 1, **SHORT)
    write_study(tmp_path, ("bn",), 2, **SHORT)
    opening = opened(tmp_path)
    ends = [run.summary["train/accuracy"] for run in opening.runs.runs if run.regime == "none"]
    assert f"without BN at {100 * (0.1 + ends[1]) / 2:.1f} %" in said(tmp_path)[0]
    assert "1 of 2 runs diverged" in opening.drawn("x", Sheet())[0]


def test_the_study_with_the_most_regimes_is_shown_then_the_main_comparison_then_most_seeds(tmp_path):
    write_study(tmp_path, ("none", "bn", "l1"), 4, experiment="lp", **SHORT)
    assert opened(tmp_path).runs.name == "lp"
    assert {run.regime for run in opened(tmp_path).runs.runs} == {"none", "bn"}
    write_study(tmp_path, seeds=2, experiment="dose", **SHORT)
    assert opened(tmp_path).runs.name == "dose"
    write_study(tmp_path, seeds=3, experiment="long", **SHORT)
    assert opened(tmp_path).runs.name == "long"
    write_study(tmp_path, seeds=1, experiment="three_regimes", **SHORT)
    assert opened(tmp_path).runs.name == "three_regimes"


def test_a_regression_and_a_single_regime_are_nothing_to_open_with(tmp_path):
    write_study(tmp_path, ("none", "bn"), 1, **DLN | {"steps": 100, "probes": False})
    write_study(tmp_path, ("bn", "l1"), 1, **SHORT)
    write_run(tmp_path, "none", 0, finished=False, **SHORT)
    assert opened(tmp_path) is None


def test_only_what_was_measured_of_the_claims_about_it_is_said(tmp_path):
    write_ends(tmp_path)
    measured = [
        (
            claim,
            [Finding(part, None, {0: 3.0, 1: 5.0} if id in ("4", "3") else {}, {}, missing) for part in claim.parts],
        )
        for id, missing in (("3", ""), ("4", ""), ("5", "no probes"))
        for claim in [claim_of(id)]
    ]
    assert [verdict.claim.id for verdict in opened(tmp_path, decide(measured)).about] == ["4"]


def test_only_training_accuracy_of_the_regimes_is_drawn(tmp_path):
    write_ends(tmp_path)
    opening = opened(tmp_path)
    assert [(curve.quantity, curve.regime, curve.seeds) for curve in opening.curves] == [
        ("train/accuracy", regime, (0, 1, 2, 3)) for regime in ENDS
    ]
    assert "training accuracy (%)" in opening.drawn("x", Sheet())[0]

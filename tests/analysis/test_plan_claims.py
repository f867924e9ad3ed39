"""The measures of the registered plan, against computations of their own on planted records: plain Python and numpy."""

import json
import math

import numpy as np
import pytest
from planted import STEPS, finish, write
from scipy import stats

from icsbench.analysis.claims import all_claims, claim_of
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.analysis.quantities.training import first_mean, learning_window
from icsbench.analysis.verdicts import judge
from icsbench.record.cut import cut
from icsbench.record.reader import load_runs

PARTS = {(claim.id, part.name): part for claim in all_claims() for part in claim.parts}
ROWS = range(10, STEPS + 1, 10)


def rows_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def rewrite(path, change, summary=None):
    """Change the rows of a record (in place, or by what it returns), and seal it again."""
    rows = [change(row) or row for row in rows_of(path)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    finish(path, json.loads((path / "summary.json").read_text()) | (summary or {}))


def accuracies(path, curve):
    """Give a record the training accuracies ``curve(step)``."""

    def change(row):
        if "train/accuracy" in row:
            row["train/accuracy"] = float(curve(row["step"]))

    rewrite(path, change)
    return path


def measured(root, id, part=0, variant=None):
    (group,) = group_runs(load_runs(root))
    chosen = claim_of(id).parts[part]
    return (chosen.variants[variant] if variant else chosen.measure)(group)


def run_of(root, regime):
    return next(run for run in load_runs(root) if run.regime == regime)


# --- reaching a level, and the window --------------------------------------------------------------------------------

CURVES = {
    "early": lambda step: 0.1 if step < 60 else min(1.0, 0.3 + step / 500),  # 95 % long before the end
    "slow": lambda step: 0.1 if step < 250 else 0.25 + 0.4 * step / STEPS,  # never 95 %
    "stays": lambda step: 0.1 + 0.05 * (step % 30 == 0),
    "jumps": lambda step: 0.97 if step % 200 == 0 else 0.15 + 0.5 * step / STEPS,  # single rows, never the mean
}


def level_reached(curve, goal):
    """By hand: the first step s from 100 on at which the rows in (s - 100, s] have the mean ``goal``."""
    for step in ROWS:
        if step >= 100 and np.mean([curve(s) for s in ROWS if step - 100 < s <= step]) >= goal - 1e-12:
            return step
    return math.inf


def off_chance(curve):
    return next((step for step in ROWS if curve(step) >= 0.2), math.inf)


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("goal", [0.2, 0.5, 0.9, 0.95])
def test_a_level_is_reached_by_the_mean_of_100_steps(tmp_path, name, goal):
    accuracies(write(tmp_path, "long", "bn", 0), CURVES[name])
    assert first_mean(run_of(tmp_path, "bn"), goal) == level_reached(CURVES[name], goal)


@pytest.mark.parametrize("every", [30, 100, 250])
def test_rows_that_are_no_tenth_of_100_steps(tmp_path, every):
    path = write(tmp_path, "long", "bn", 0)
    rows = [row for row in rows_of(path) if "train/accuracy" not in row or row["step"] % every == 0]
    for row in rows:
        if "train/accuracy" in row:
            row["train/accuracy"] = row["step"] / STEPS
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    finish(path, json.loads((path / "summary.json").read_text()))
    steps = [step for step in range(every, STEPS + 1, every) if step >= 100]
    means = {s: np.mean([t for t in range(every, s + 1, every) if s - 100 < t]) / STEPS for s in steps}
    assert first_mean(run_of(tmp_path, "bn"), 0.6) == next(step for step in steps if means[step] >= 0.6 - 1e-12)


PAIRS = [("early", "slow"), ("slow", "early"), ("slow", "jumps"), ("early", "early"), ("early", "stays")]


@pytest.mark.parametrize(("bn", "none"), PAIRS)
def test_the_window_of_a_pair(tmp_path, bn, none):
    for regime, name in (("bn", bn), ("none", none)):
        accuracies(write(tmp_path, "long", regime, 0), CURVES[name])
    first, end = learning_window(run_of(tmp_path, "bn"), run_of(tmp_path, "none"))
    assert first == max(off_chance(CURVES[bn]), off_chance(CURVES[none]))
    assert end == min(level_reached(CURVES[bn], 0.95), level_reached(CURVES[none], 0.95))


QUANTITIES = {
    "7": ("relative", "relative"),
    "10": ("width", "width"),
    "11": ("difference", "ratio of difference"),
    "11b": ("difference", "ratio of difference"),
    "12": ("beta", "beta"),
}


def plant_updates(root, bn, none, study="long"):
    """A pair with random measurements; of each by name the values, by update."""
    rng = np.random.default_rng([*map(ord, bn + none)])
    planted = {}
    for regime, name in (("bn", bn), ("none", none)):
        of_run = {
            quantity: list(rng.uniform(0.2, 3.0, 40))
            for quantity in ("relative", "width", "difference", "beta", "gradient")
        }
        path = accuracies(write(root, study, regime, 0, **of_run), CURVES[name])
        losses = 2.0 * np.exp(-rng.uniform(0, 1.2, 40) - 0.01 * np.arange(40))

        def change(row, losses=losses):
            if "landscape/loss" in row:
                width = np.log10(row["landscape/losses"][1] / row["landscape/losses"][0])
                row["landscape/loss"] = float(losses[row["step"] // 25])
                row["landscape/losses"] = [row["landscape/loss"], row["landscape/loss"] * 10**width]

        rewrite(path, change)
        of_run["ratio of difference"] = list(np.array(of_run["difference"]) / np.array(of_run["gradient"]))
        planted[regime] = {key: np.array(value) for key, value in of_run.items()} | {"loss": losses}
    return planted


def matched_by_hand(one, other, quantity, chosen):
    """Eight bins between the 1 % and 99 % quantile of log loss; medians of each; geometric mean over shared bins."""
    logs = [np.log(of["loss"][chosen]) for of in (one, other)]
    low, high = np.quantile(np.concatenate(logs), [0.01, 0.99])
    edges = [low + (high - low) * k / 8 for k in range(9)]
    ratios = []
    for k in range(8):
        medians = []
        for of, log in zip((one, other), logs, strict=True):
            inside = [
                value
                for value, x in zip(of[quantity][chosen], log, strict=True)
                if edges[k] <= x and (x < edges[k + 1] or (k == 7 and x <= high))
            ]
            medians.append(np.median(inside) if inside else math.nan)
        if all(map(math.isfinite, medians)):
            ratios.append(medians[0] / medians[1])
    return np.exp(np.mean(np.log(ratios)))


@pytest.mark.parametrize("id", QUANTITIES)
@pytest.mark.parametrize(("bn", "none"), [("early", "slow"), ("slow", "jumps"), ("slow", "early")])
def test_updates_are_compared_in_the_window_at_matched_step_and_at_matched_loss(tmp_path, id, bn, none):
    planted = plant_updates(tmp_path, bn, none)
    first = max(off_chance(CURVES[bn]), off_chance(CURVES[none]))
    end = min(level_reached(CURVES[bn], 0.95), level_reached(CURVES[none], 0.95))
    chosen = [number for number in range(40) if first <= 25 * number < end]
    assert 3 < len(chosen) < 40
    at_step, at_loss = QUANTITIES[id]
    expected = np.median(planted["bn"][at_step][chosen]) / np.median(planted["none"][at_step][chosen])
    assert measured(tmp_path, id).values == pytest.approx({0: expected})
    expected = matched_by_hand(planted["bn"], planted["none"], at_loss, chosen)
    assert measured(tmp_path, id, 1).values == pytest.approx({0: expected})
    ratios = planted["bn"][at_step][chosen] / planted["none"][at_step][chosen]
    step_by_step = measured(tmp_path, id, 0, "median of the ratios step by step").values
    assert step_by_step == pytest.approx({0: np.median(ratios)})


def test_the_former_windows_are_variants(tmp_path):
    planted = plant_updates(tmp_path, "early", "slow")
    bn, none = planted["bn"]["beta"], planted["none"]["beta"]
    for name, chosen in (("first quarter", slice(0, 10)), ("second half", slice(20, 40)), ("whole", slice(0, 40))):
        expected = np.median(bn[chosen]) / np.median(none[chosen])
        assert measured(tmp_path, "12", 0, f"window: {name}").values == pytest.approx({0: expected})
    expected = np.median(bn[10:]) / np.median(none[10:])
    assert measured(tmp_path, "12", 0, "window: after both left chance").values == pytest.approx({0: expected})
    expected = matched_by_hand(planted["bn"], planted["none"], "beta", range(40))
    assert measured(tmp_path, "12", 1, "window: whole").values == pytest.approx({0: expected})


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize(
    ("bn", "none", "diverged_at", "why"),
    [
        ("early", "stays", None, "none never left chance"),
        ("stays", "stays", None, "bn and none never left chance"),
        ("early", "slow", 700, "none diverged at step 700"),
    ],
)
def test_a_pair_without_a_window_is_left_out_with_the_reason(tmp_path, part, bn, none, diverged_at, why):
    accuracies(write(tmp_path, "long", "bn", 0), CURVES[bn])
    path = write(tmp_path, "long", "none", 0, diverged_at=diverged_at)
    if diverged_at is None:
        accuracies(path, CURVES[none])
    found = measured(tmp_path, "12", part)
    assert found.values == {} and found.left_out == {0: why}


def test_a_window_that_ends_before_it_begins_is_empty(tmp_path):
    accuracies(write(tmp_path, "long", "bn", 0), lambda step: 1.0)
    accuracies(write(tmp_path, "long", "none", 0), CURVES["slow"])
    for part in (0, 1):
        assert measured(tmp_path, "7", part).left_out == {0: "no measurement in the window"}


def test_a_pair_without_a_common_loss_is_left_out_at_matched_loss_alone(tmp_path):
    write(tmp_path, "long", "bn", 0)
    path = write(tmp_path, "long", "none", 0)

    def change(row):
        if "landscape/loss" in row:
            row["landscape/loss"] = 50.0 * row["landscape/loss"]

    rewrite(path, change)
    assert measured(tmp_path, "12").values == pytest.approx({0: 1.0})
    assert measured(tmp_path, "12", 1).left_out == {0: "in the window the two runs share no training loss"}


def test_a_cut_has_the_window_up_to_there(tmp_path):
    planted = plant_updates(tmp_path, "slow", "jumps")
    (group,) = group_runs([cut(run, 600) for run in load_runs(tmp_path)])
    first = max(off_chance(CURVES["slow"]), off_chance(CURVES["jumps"]))
    chosen = [number for number in range(40) if first <= 25 * number < 600]
    expected = np.median(planted["bn"]["beta"][chosen]) / np.median(planted["none"]["beta"][chosen])
    assert claim_of("12").parts[0].measure(group).values == pytest.approx({0: expected})


def test_claims_11_and_11b_are_one_measurement(tmp_path):
    for seed in range(6):
        write(tmp_path, "long", "bn", seed, difference=0.5 * 1.01**seed)
        write(tmp_path, "long", "none", seed)
    one, other = judge(load_runs(tmp_path), [claim_of("11"), claim_of("11b")])
    assert [f.values for f in one.findings] == [f.values for f in other.findings]
    assert "after Holm over 1 claims" in one.reason and (one.verdict, other.verdict) == ("supported", "contradicted")


# --- claim 1 ---------------------------------------------------------------------------------------------------------


def last_tenth_by_hand(curve):
    return np.mean([curve(step) for step in ROWS if step > 0.9 * STEPS])


@pytest.mark.parametrize(("bn", "none"), [*PAIRS, ("jumps", "slow")])
def test_how_many_steps_it_takes_to_90_per_cent_or_to_where_the_slower_one_ends(tmp_path, bn, none):
    for regime, name in (("bn", bn), ("none", none)):
        accuracies(write(tmp_path, "long", regime, 0), CURVES[name])
    ends = [last_tenth_by_hand(CURVES[name]) for name in (bn, none)]
    goal = min(0.9, max(min(ends), 0.2))
    steps = [min(level_reached(CURVES[name], goal), STEPS) for name in (bn, none)]
    assert measured(tmp_path, "1").values == pytest.approx({0: steps[1] / steps[0]})


def test_one_that_diverged_counts_with_all_its_steps(tmp_path):
    accuracies(write(tmp_path, "long", "bn", 0), CURVES["early"])
    write(tmp_path, "long", "none", 0, reach=20, diverged_at=300)  # at chance from then on: the goal is twice chance
    assert measured(tmp_path, "1").values == pytest.approx({0: 100 / level_reached(CURVES["early"], 0.2)})
    write(tmp_path, "long", "none", 1, diverged_at=100)  # before it left chance
    accuracies(write(tmp_path, "long", "bn", 1), CURVES["early"])
    assert measured(tmp_path, "1").values[1] == pytest.approx(STEPS / level_reached(CURVES["early"], 0.2))


# --- shift -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("id", "key"), [("5", "{}_raw"), ("5b", "{}")])
def test_shift_is_that_of_all_probes_after_both_left_chance(tmp_path, id, key):
    values = {"noisy_bn": {}, "none": {}}
    for regime, name in (("noisy_bn", "early"), ("none", "slow")):
        path = accuracies(write(tmp_path, "long", regime, 0), CURVES[name])
        rng = np.random.default_rng(len(regime))

        def change(row, rng=rng, of=values[regime]):
            for name in row:
                if name.startswith("shift/features"):
                    row[name] = float(rng.uniform(0.1, 1.0))
                    of[row["step"], name] = row[name]

        rewrite(path, change)
    layers = sorted({name.split("/")[1] for _, name in values["none"]}, key=lambda layer: int(layer.split("conv")[1]))
    chosen = [layers[number - 1] for number in (2, 7, 13)]
    for part, moment in enumerate(("mean", "variance")):
        means = {
            regime: [
                np.mean([of[step, f"shift/{layer}/{key.format(moment)}"] for step in range(300, STEPS + 1, 100)])
                for layer in chosen
            ]
            for regime, of in values.items()
        }
        expected = np.prod(np.array(means["noisy_bn"]) / np.array(means["none"])) ** (1 / 3)
        assert measured(tmp_path, id, part).values == pytest.approx({0: expected})


def test_shift_of_a_run_that_never_leaves_chance_is_left_out(tmp_path):
    write(tmp_path, "long", "noisy_bn", 0)
    write(tmp_path, "long", "none", 0, train=0.15)
    assert measured(tmp_path, "5").left_out == {0: "no finite shift after both have left chance"}


# --- accuracy with the noise off -------------------------------------------------------------------------------------


def test_noise_off_accuracy_is_on_recalibrated_statistics(tmp_path):
    for regime, known in (("noisy_bn", 0.71), ("bn", 0.74)):
        path = write(tmp_path, "long", regime, 0, test=0.2)
        found = {"running-off": 0.2, "recalibrated-off": known, "batch-off": 0.3, "recalibrated-on": 0.1}
        rewrite(path, lambda row: None, {"test/accuracy": found})
    assert measured(tmp_path, "4b").values == pytest.approx({0: -3.0})
    assert measured(tmp_path, "4b", 0, "running statistics").values == pytest.approx({0: 0.0})


def test_what_noise_costs_once_it_is_off_and_the_curve_beside_it(tmp_path):
    for seed in range(2):
        for strength, test in ((0, 0.60), (0.25, 0.61), (1, 0.57 - 0.01 * seed), (4, 0.3)):
            write(tmp_path, "dose", "noisy_bn", seed, strength=strength, test=test, train=0.9 - 0.1 * strength / 4)
    found = measured(tmp_path, "21")
    assert found.values == pytest.approx({0: -3.0, 1: -4.0})
    assert found.note == "mean accuracy (%) by strength: x0 60.0, x0.25 61.0, x1 56.5, x4 30.0"
    assert measured(tmp_path, "21", 0, "training accuracy, noise on").values == pytest.approx({0: -2.5, 1: -2.5})


def test_without_a_run_without_noise_the_cost_is_not_measured(tmp_path):
    write(tmp_path, "dose", "noisy_bn", 0, strength=1)
    with pytest.raises(NotMeasured, match=r"no finished run of noisy_bn with norm\.strength 0"):
        measured(tmp_path, "21")


def test_a_run_of_noise_that_diverged_has_the_accuracy_of_chance(tmp_path):
    write(tmp_path, "dose", "noisy_bn", 0, strength=0, test=0.6)
    write(tmp_path, "dose", "noisy_bn", 0, strength=1, diverged_at=300)
    assert measured(tmp_path, "21").values == pytest.approx({0: -50.0})


# --- counts ----------------------------------------------------------------------------------------------------------


def test_seeds_that_noise_keeps_at_chance_are_counted(tmp_path):
    trained = {0: 0.149, 1: 0.151, 2: 0.12, 3: 0.6, 4: 0.1}
    for seed, train in trained.items():
        write(tmp_path, "noise_control", "noise", seed, train=train, reach=10)
        write(tmp_path, "noise_control", "none", seed, train=0.15 if seed == 4 else 0.7)
    write(tmp_path, "noise_control", "noise", 5, train=0.7, diverged_at=300)
    write(tmp_path, "noise_control", "none", 5)
    found = measured(tmp_path, "6")
    assert found.values == {0: 1.0, 1: 0.0, 2: 1.0, 3: 0.0, 5: 1.0}
    assert found.left_out == {4: "does not train without noise"}
    (verdict,) = judge(load_runs(tmp_path), [claim_of("6")])
    assert verdict.findings[0].place.inside == pytest.approx(stats.binomtest(3, 5, alternative="greater").pvalue)


def test_a_ratio_that_the_top_of_the_grid_censors_counts_only_where_it_is_four(tmp_path):
    largest = {0: (0.4, 0.1), 1: (0.4, 0.2), 2: (1.6, 0.4), 3: (1.6, 0.8), 4: (0.1, 0.8), 5: (1.6, 0.05), 6: (0.4, 0)}
    for seed, tops in largest.items():
        for lr in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6):
            for regime, top in zip(("bn", "none"), tops, strict=True):
                write(tmp_path, "lr_grid", regime, seed, lr=lr, train=0.7 if lr <= top else 0.1)
    found = measured(tmp_path, "14")
    assert found.values == {0: 1.0, 1: 0.0, 2: 1.0, 4: 0.0, 5: 1.0}
    assert found.left_out == {
        3: "BN trains at the largest rate of the grid, 1.6: its ratio is 2 at least",
        6: "none trains at no rate of the grid",
    }
    assert found.note == "ratios 0: 4, 1: 2, 2: 4 at least, 3: 2 at least, 4: 0.125, 5: 32 at least"
    assert measured(tmp_path, "14", 0, "at least twice").values == {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0, 4: 0.0, 5: 1.0}


def test_the_largest_rate_counts_also_behind_one_that_fails_or_diverges(tmp_path):
    for lr in (0.05, 0.1, 0.2, 0.4):
        write(
            tmp_path, "lr_grid", "bn", 0, lr=lr, train=0.1 if lr == 0.1 else 0.7, diverged_at=300 if lr == 0.4 else None
        )
        write(tmp_path, "lr_grid", "none", 0, lr=lr, train=0.7 if lr == 0.05 else 0.1)
    assert measured(tmp_path, "14").values == {0: 1.0}


# --- deep linear networks --------------------------------------------------------------------------------------------


def spearman(a, b):
    return stats.spearmanr(a, b).statistic


@pytest.fixture
def deep_linear(tmp_path):
    """Two seeds with BN at three rates, random; cosines in steps of 0.1 have ties; at the smallest they stay."""
    rng = np.random.default_rng(8)
    planted = {}
    for seed in range(2):
        for lr, reach, size in ((1e-6, 0.8, 1.3), (1e-7, 0.5, 1.0), (1e-8, 0.0, 0.2)):
            halves = size * rng.uniform(0.3, 1.4, 40)
            cosine = np.round(0.9 - reach * (halves / size - 0.3) + 0.1 * reach * rng.normal(size=40), 1)
            cosine = cosine if reach else 0.999 + 1e-4 * rng.normal(size=40)
            write(tmp_path, "dln_lr", "bn", seed, lr=lr, cosine=list(cosine), beta=list(2 * halves / lr))
            planted[seed, lr] = cosine, halves
    return tmp_path, planted


def test_a_deep_linear_network_at_the_edge_of_stability(deep_linear):
    root, planted = deep_linear
    assert measured(root, "9", 0).values == pytest.approx({s: np.median(planted[s, 1e-7][1]) for s in range(2)})
    short, within, pooled = {}, {}, {}
    for seed in range(2):
        cosine = np.concatenate([planted[seed, lr][0] for lr in (1e-6, 1e-7, 1e-8)])
        halves = np.concatenate([planted[seed, lr][1] for lr in (1e-6, 1e-7, 1e-8)])
        short[seed] = np.median(cosine[halves < 0.5])
        within[seed] = np.mean([spearman(*planted[seed, lr]) for lr in (1e-6, 1e-7)])
        pooled[seed] = spearman(cosine, halves)
    assert measured(root, "9", 2).values == pytest.approx(short)
    assert measured(root, "9", 3).values == pytest.approx(within)
    assert measured(root, "9", 3, "pooled over the rates").values == pytest.approx(pooled)
    assert measured(root, "9", 3).note == ""
    with pytest.raises(NotMeasured, match="no finished run of none"):
        measured(root, "9", 1)


def test_the_network_without_bn_stands_beside_the_cosines(deep_linear):
    root, _ = deep_linear
    for seed in range(2):
        for lr in (1e-6, 1e-7):
            ramp = np.linspace(0.1, 0.4, 40)
            write(root, "dln_lr", "none", seed, lr=lr, cosine=list(0.9 - 0.1 * ramp), beta=list(2 * ramp / lr))
    assert measured(root, "9", 1).values == pytest.approx({0: 0.25, 1: 0.25})
    assert measured(root, "9", 2).note == "without BN: 0.8750 (mean over 2 seeds)"
    assert measured(root, "9", 3).note == "without BN: -1.0000 (mean over 2 seeds)"
    (verdict,) = judge(load_runs(root), [claim_of("9")])
    assert claim_of("9").disputed_by == "" and not any(part.below + part.above for part in verdict.claim.parts)


def test_a_deep_linear_seed_without_short_steps_or_varying_cosines_is_left_out(tmp_path):
    for lr in (1e-6, 1e-7, 1e-8):
        write(tmp_path, "dln_lr", "bn", 0, lr=lr, cosine=0.9, beta=2.0 / lr)
        write(tmp_path, "dln_lr", "bn", 1, lr=lr, beta=0.2 / lr, diverged_at=300 if lr == 1e-6 else None)
    assert measured(tmp_path, "9", 2).left_out[0] == "no update with beta x lr / 2 below 0.5"
    assert measured(tmp_path, "9", 3).left_out[0] == "the cosine varies at no learning rate"
    for part in (2, 3):
        assert measured(tmp_path, "9", part).left_out[1] == "bn at lr 1e-06 diverged at step 300"


def test_the_first_two_parts_are_measured_on_dln_where_dln_lr_has_no_network_without_bn(tmp_path):
    for seed in range(6):
        write(tmp_path, "dln_lr", "bn", seed, lr=1e-7, edge=1.0)
        write(tmp_path, "dln", "none", seed, lr=1e-7, edge=0.2)
    (verdict,) = judge(load_runs(tmp_path), [claim_of("9")])
    assert [len(finding.values) for finding in verdict.findings] == [6, 6, 0, 6]


# --- batches ---------------------------------------------------------------------------------------------------------


def test_the_gap_of_bn_grows_beside_that_without(tmp_path):
    rng = np.random.default_rng(3)
    gaps = {}
    for seed in range(2):
        for regime in ("bn", "none"):
            for size in (16, 64, 256):
                train, test = rng.uniform(0.8, 1.0), rng.uniform(0.3, 0.5)
                write(tmp_path, "batch_size", regime, seed, batch_size=size, train=train, test=test)
                gaps[seed, regime, size] = 100 * (train - test)
    slopes = {
        (seed, regime): np.polyfit([4, 6, 8], [gaps[seed, regime, size] for size in (16, 64, 256)], 1)[0]
        for seed in range(2)
        for regime in ("bn", "none")
    }
    expected = {seed: slopes[seed, "bn"] - slopes[seed, "none"] for seed in range(2)}
    found = measured(tmp_path, "23")
    assert found.values == pytest.approx(expected)
    assert found.note.startswith("mean training accuracy (%): bn at batch 16 ")


def test_a_network_that_does_not_train_has_no_gap(tmp_path):
    for seed in range(3):
        for size in (16, 64, 256):
            write(tmp_path, "batch_size", "bn", seed, batch_size=size)
            stuck = seed == 1 and size == 256
            late = 400 if seed == 2 and size == 16 else None
            write(tmp_path, "batch_size", "none", seed, batch_size=size, train=0.1 if stuck else 0.7, diverged_at=late)
    found = measured(tmp_path, "23")
    assert found.values == pytest.approx({0: 0.0})
    assert found.left_out == {
        1: "none at batch 256 does not train, and has no gap",
        2: "none at batch 16 does not train, and has no gap",
    }


def test_without_its_control_the_gap_is_not_measured(tmp_path):
    for size in (16, 64, 256):
        write(tmp_path, "batch_size", "bn", 0, batch_size=size)
    with pytest.raises(NotMeasured, match="no finished run of none with batch_size 16"):
        measured(tmp_path, "23")


# --- precision -------------------------------------------------------------------------------------------------------


def test_runs_in_bfloat16_and_in_float32_are_one_study_though_old_records_do_not_say_so(tmp_path):
    for seed in range(6):
        for norm, points in (("none", 0.3), ("bn", -0.2), ("noisy_bn", 2.0)):
            write(tmp_path, "amp", norm, seed, amp=True, train=0.6 + (points + 0.01 * seed) / 100)
            write(tmp_path, "amp", norm, seed, train=0.6)
    (verdict,) = judge(load_runs(tmp_path), [claim_of("44")])
    for finding, points in zip(verdict.findings, (0.3, -0.2, 2.0), strict=True):
        assert finding.values == pytest.approx({seed: points + 0.01 * seed for seed in range(6)})
    assert verdict.verdict == "contradicted" and "part 3 above" in verdict.reason
    assert "amp" not in verdict.command.replace("experiment=amp", "")


# --- budgets ---------------------------------------------------------------------------------------------------------


def test_at_an_earlier_step_recalibrated_accuracy_is_had_where_it_was_recorded(tmp_path):
    for seed in range(6):
        for regime, known in (("noisy_bn", 0.5), ("bn", 0.4)):
            path = write(tmp_path, "long", regime, seed)
            rows = [*rows_of(path), {"step": 500, "test/accuracy": 0.2, "test/accuracy/recalibrated-off": known}]
            rows += [{"step": 700, "test/accuracy": 0.3}]
            rows.sort(key=lambda row: row["step"])
            (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            finish(path, json.loads((path / "summary.json").read_text()))
    runs = load_runs(tmp_path)
    (verdict,) = judge([cut(run, 500) for run in runs], [claim_of("4b")])
    assert verdict.findings[0].values == pytest.approx(dict.fromkeys(range(6), 10.0))
    (verdict,) = judge([cut(run, 700) for run in runs], [claim_of("4b")])
    assert verdict.verdict == "not measured" and "at step 700, where it was not evaluated so" in verdict.reason


def test_long_counts_before_the_shorter_studies(tmp_path):
    for seed in range(6):
        for study, test in (("long", 0.7), ("three_regimes", 0.4)):
            write(tmp_path, study, "noisy_bn", seed, test=test)
            write(tmp_path, study, "bn", seed, test=0.6)
    (verdict,) = judge(load_runs(tmp_path), [claim_of("4b")])
    assert verdict.findings[0].interval.mean == pytest.approx(10.0)
    (verdict,) = judge([run for run in load_runs(tmp_path) if run.setting("experiment") != "long"], [claim_of("4b")])
    assert verdict.findings[0].interval.mean == pytest.approx(-20.0)


# --- the plan --------------------------------------------------------------------------------------------------------

STUDIES = {
    **dict.fromkeys(("1", "3", "4", "4b", "5", "5b", "7", "10", "11", "11b", "12", "15"), "long"),
    **dict.fromkeys(("1b", "12b", "14"), "lr_grid"),
    **{"2": "percentiles", "6": "noise_control", "8": "dln", "9": "dln_lr", "13": "lp", "13b": "dln_lp"},
    **{"21": "dose", "23": "batch_size", "44": "amp"},
}
REGIONS = {
    "1": [("ratio", 1.5, math.inf), ("value", 0, math.inf)],
    "4": [("value", -2, 2), ("value", 0, math.inf)],
    "4b": [("value", -2, math.inf)],
    "5": [("ratio", 3, math.inf)] * 2,
    "5b": [("ratio", 3, math.inf)] * 2,
    "6": [("count", 0.5, math.inf)],
    "7": [("ratio", 0.8, math.inf)] * 2,
    "9": [("ratio", 0.8, 1.25), ("ratio", -math.inf, 0.5), ("value", 0.9, math.inf), ("value", -math.inf, -0.5)],
    "10": [("ratio", -math.inf, 0.8)] * 2,
    "11": [("ratio", -math.inf, 0.8)] * 2,
    "11b": [("ratio", -math.inf, 0.1)] * 2,
    "12": [("ratio", -math.inf, 0.8)] * 2,
    "14": [("count", 0.5, math.inf)],
    "15": [("value", -1, 1)],
    "21": [("value", -math.inf, -2)],
    "23": [("value", 0, math.inf)],
    "44": [("value", -1, 1)] * 3,
}


def test_every_claim_of_the_plan_is_measured_first_by_its_study_and_has_its_regions():
    for id, study in STUDIES.items():
        assert {part.studies[0] for part in claim_of(id).parts} == {study}, id
    for id, regions in REGIONS.items():
        assert [(part.kind, part.low, part.high) for part in claim_of(id).parts] == regions, id

import json

import numpy as np
import pytest
from layout import assert_texts_apart
from synthetic import write_lab

from icsbench.analysis.groups import group_runs
from icsbench.figures import explosion, first_steps
from icsbench.figures.style import house_style
from icsbench.record.reader import load_runs

BN = {"relu": {4: 3.08, 32: 1.52, 128: 1.48}, "silu": {4: 2.49, 32: 1.26, 128: 1.22}}


def explosion_rows(seed):
    for network in range(3):
        for activation, rates in BN.items():
            settings = [("bn", batch, rate) for batch, rate in rates.items()] + [("none-signals", 4, 1.0)]
            for norm, batch, rate in settings:
                measured = rate * (1 + 0.001 * (network + seed))
                row = {"step": 10, "network": network, "activation": activation, "norm": norm, "batch": batch}
                row |= {"rate": measured, "theory_rate": rate}
                if norm == "bn":
                    row["theory_norms"] = 1.05 if (activation, batch) == ("silu", 128) else 0.9
                yield row | {"log_gradients": (np.log(measured) * np.arange(10, -1, -1)).tolist()}


def first_steps_rows(seed):
    for network in range(2):
        for norm in ("bn", "none"):
            for lr in (0.01, 0.1):
                for step in range(3):
                    slope = 0.4 / (1 + step) * (norm == "bn")
                    row = {"step": step, "network": network, "depth": 12, "norm": norm, "lr": lr}
                    row["log_gradients"] = (slope * np.arange(12, 0, -1) + 0.01 * seed).tolist()
                    yield row | {"log_weights": (6 + 0.1 * step * np.arange(12, 0, -1)).tolist()}


@pytest.fixture
def group(tmp_path):
    def made(lab, rows):
        for seed in range(2):
            path = write_lab(tmp_path, lab, seed, experiment=lab)
            (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(seed)))
        [found] = group_runs(load_runs(tmp_path))
        return found

    return made


def drawn(figure, group):
    with house_style():
        page, rows = figure.page(group)
        assert_texts_apart(page)
    said = " ".join(text.get_text().replace("\n", " ") for text in page.texts).replace("\N{NO-BREAK SPACE}", " ")
    return page, rows, said


def test_rates_against_the_batch_with_theory(group):
    page, rows, said = drawn(explosion.RATES, group("explosion", explosion_rows))
    assert [(row["activation"], row["batch"]) for row in rows] == [
        (activation, batch) for activation in BN for batch in (4, 32, 128)
    ]
    assert rows[0]["theory"] == 3.08 and rows[0]["mean"] == pytest.approx(3.08 * 1.0015, rel=1e-5) and rows[0]["n"] == 6
    assert "over n = 6 random networks" in said and "unstable: silu at batch 128." in said
    assert len(page.axes) == 1


def test_gradients_against_depth_with_theory(group):
    page, rows, said = drawn(explosion.PROFILES, group("explosion", explosion_rows))
    assert len(rows) == 2 * 4 * 11 and len(page.axes) == 2
    first = rows[0]
    assert (first["layer"], first["norm"], first["n"]) == (0, "bn", 6)
    assert first["theory"] == pytest.approx(10 * np.log(3.08)) and first["theory"] < page.axes[0].get_ylim()[1]
    assert first["mean"] == pytest.approx(10 * np.log(3.08 * 1.0015), abs=1e-3)
    assert "n = 6 random networks" in said


def test_the_first_steps_of_both_norms_at_each_rate(group):
    page, rows, said = drawn(first_steps.FIGURE, group("first_steps", first_steps_rows))
    assert len(page.axes) == 8 and len(rows) == 2 * 2 * 3 * 2 * 11
    assert {row["quantity"] for row in rows} == {"log_gradients", "log_weights"} and rows[0]["layer"] == 2
    assert "12 layers" in said and "n = 4 random networks" in said

"""The script that simulates error and power: its worlds, its sieve, and rates that are known otherwise."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
import error_rate


@pytest.mark.parametrize("world", error_rate.WORLDS, ids=lambda world: world.name)
def test_worlds_have_mean_0_and_are_symmetric_where_they_say_so(world):
    values = world.draw(np.random.default_rng(0), (400_000,))
    assert abs(values.mean()) < 5 * values.std() / np.sqrt(values.size)
    shares = [(values < -at).mean() - (values > at).mean() for at in (0.05, 0.5, 1.0, 2.0)]
    assert (np.max(np.abs(shares)) < 0.006) == world.symmetric


@pytest.mark.parametrize("world", error_rate.WORLDS, ids=lambda world: world.name)
def test_the_sieve_changes_nothing(world):
    values = world.draw(np.random.default_rng(1), (12, 8, 24))
    values[:6, :3] += 1.2  # some decided at the first look, some at the second
    found = [error_rate.in_looks(family) for family in values]
    assert found == [error_rate.in_looks(family, sieve=False) for family in values] and any(found)
    few = values[..., :6]
    assert [*map(error_rate.in_one_look, few)] == [error_rate.in_one_look(family, False) for family in few]


def test_two_looks_are_holm_over_the_claims_that_are_open():
    """One claim is decided at the first look, so that the other has the whole level of the second."""
    random = np.random.default_rng(3)
    first, noise = 10 + random.standard_normal(24), random.standard_normal(24)
    noise -= noise.mean()
    noise[:12] -= noise[:12].mean() - 0.1
    noise[12:] -= noise[12:].mean()
    # Shift by which the p-value of 24 values is 0.015: below 0.02, and above 0.02 / 2.
    error = noise.std(ddof=1) / np.sqrt(24)
    second = noise - noise.mean() + error * stats.t.isf(0.0075, 23)
    assert error_rate.in_looks(np.stack([first, second])) == {0: "supported", 1: "supported"}
    assert error_rate.in_looks(np.stack([noise, second])) == {}


def test_error_of_one_look_at_normal_values_is_the_level():
    values = np.random.default_rng(4).standard_normal((20_000, 1, 6))
    wrong = sum(bool(error_rate.in_one_look(one)) for one in values)
    assert abs(wrong / 20_000 - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 20_000)


def test_power_of_one_look_is_that_of_the_noncentral_t():
    values = np.random.default_rng(5).standard_normal((4_000, 1, 6)) + 1.0
    found = np.mean([error_rate.in_one_look(one).get(0) == "supported" for one in values])
    expected = stats.nct.sf(stats.t.isf(0.025, 5), 5, np.sqrt(6))
    assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / 4_000)


def test_two_points_give_the_error_of_the_binomial():
    """Of twelve signs 13 of 4,096 have at most one minus, 79 at most two: twice the former is below 0.03."""
    signs = np.array([[1.0] * (12 - k) + [-1.0] * k for k in range(13)])
    rule = error_rate.Rule(0.03, exact=True, least=12)
    outcomes = [error_rate.decided(row[None], rule, sieve=False).get(0) for row in signs]
    p = [stats.binomtest(k, 12).pvalue for k in range(13)]
    assert [bool(one) for one in outcomes] == [one <= 0.03 for one in p]
    assert outcomes[:2] == ["supported"] * 2 and outcomes[-2:] == ["contradicted"] * 2


def test_rows_and_the_page_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(error_rate, "OUT", tmp_path / "a" / "b" / "error")
    monkeypatch.setattr(error_rate, "WORLDS", error_rate.WORLDS[:1])
    monkeypatch.setattr(error_rate, "MEMBERS", (1, 2, 3))
    monkeypatch.setattr(error_rate, "FAMILIES", 40)
    monkeypatch.setattr(error_rate, "EFFECTS", (2.0,))
    monkeypatch.setattr(sys, "argv", ["error_rate.py"])
    error_rate.main()
    page = (error_rate.OUT / "README.md").read_text()
    assert "| normal | yes |" in page and "40 families a row of errors, 8 a row of power" in page
    assert len((error_rate.OUT / "error.csv").read_text().splitlines()) == 1 + 2 * 3
    assert (error_rate.OUT / "error.png").stat().st_size > 5_000

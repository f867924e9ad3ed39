"""A family of claims is one module: found, ordered, judged, listed, explained and reported without another line."""

import json
from importlib.metadata import EntryPoint

import pytest
from helpers import invoke
from planted import finish, write
from synthetic import write_lab

from icsbench import members
from icsbench.analysis.claims import all_claims, claim_of, serves
from icsbench.analysis.claims.paired import difference
from icsbench.analysis.groups import NotMeasured, group_runs
from icsbench.analysis.quantities.protocols import final_accuracy
from icsbench.analysis.quantities.training import last_tenth
from icsbench.analysis.verdicts import judge
from icsbench.errors import IcsbenchError
from icsbench.record.reader import load_runs

FAMILY = '''
"""A claim of another package, on a norm and a study of its own."""

from icsbench.analysis.claims.contract import Claim, Part
from icsbench.analysis.claims.paired import paired, runs_of
from icsbench.analysis.quantities.protocols import final_accuracy


def _gain(group):
    parts = {"mine, strong": runs_of(group, "mine", **{"norm.strength": 2}), "none": runs_of(group, "none")}
    return paired(parts, lambda mine, none: 100 * (final_accuracy(mine) - final_accuracy(none)))


MINE_IS_BETTER = Claim(
    id="9c",
    statement="My norm ends at a higher test accuracy.",
    by="Me 2026",
    where="nowhere",
    parts=(Part("gain_of_mine", _gain, "test accuracy, mine minus none", ("my_study",), unit="points", low=0),),
    margin="Any gain counts.",
    fairness=("Seen by nobody.",),
    figures=("accuracy",),
)
OPEN = Claim(id="remark", statement="Nobody measures this.", by="Me 2026", where="nowhere", needs="time")
'''
LOOK = {"label": "Standard + my norm", "order": 2.5, "color": "#123456", "linestyle": "-", "marker": "o"}


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Install modules with claims as another package does: by entry points of these groups."""

    def install(group="icsbench.claims", text=FAMILY):
        name = f"claims_{tmp_path.name}_{len(points)}"
        (tmp_path / f"{name}.py").write_text(text)
        points.append(EntryPoint("mine", name, group))
        members._modules.cache_clear()

    points: list[EntryPoint] = []
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(members, "entry_points", lambda group: [point for point in points if point.group == group])
    yield install
    members._modules.cache_clear()


@pytest.fixture
def records(tmp_path):
    for seed in range(6):
        write(tmp_path / "results", "my_study", "none", seed, test=0.5)
        for strength, test in ((1.0, 0.3), (2.0, 0.6 + 0.001 * seed)):
            path = write(tmp_path / "results", "my_study", "mine", seed, strength=strength, test=test)
            environment = json.loads((path / "environment.json").read_text())
            (path / "environment.json").write_text(json.dumps(environment | {"regime": LOOK}))
            finish(path, json.loads((path / "summary.json").read_text()))
    return tmp_path / "results"


@pytest.mark.parametrize("group", ["icsbench.claims", "icsbench.analysis.claims"])
def test_claims_of_another_package_take_their_place_in_the_order(installed, group):
    before = [claim.id for claim in all_claims()]
    place = before.index("10")
    assert before[place - 2 : place + 2] == ["8", "9", "10", "11"]
    installed(group)
    assert [claim.id for claim in all_claims()] == [*before[:place], "9c", *before[place:], "remark"]
    assert claim_of("9C").by == "Me 2026" and claim_of("Remark").needs == "time"
    assert serves("my_study") == ["9c"]


def test_a_claim_of_another_package_is_judged_and_reported(installed, records):
    installed()
    verdict = next(verdict for verdict in judge(load_runs(records)) if verdict.claim.id == "9c")
    assert (verdict.verdict, verdict.speaks_for, verdict.n) == ("supported", "Me 2026", 6)
    assert verdict.findings[0].values == pytest.approx({seed: 10 + 0.1 * seed for seed in range(6)})
    assert {run.setting("norm.strength") for run in verdict.runs if run.regime == "mine"} == {2.0}

    done = invoke("claims", str(records))
    assert done.code == 0, done.err
    assert f"{len(all_claims())} claims: 1 supported, " in done.out
    by_id = {entry["id"]: entry for entry in json.loads((records / "claims.json").read_text())["claims"]}
    assert by_id["9c"]["parts"][0]["measure"] == "gain_of_mine" and len(by_id["9c"]["runs"]) == 12
    assert by_id["remark"]["reason"] == "no study yet: it needs time"
    assert "My norm ends at a higher test accuracy." in (records / "claims.md").read_text()

    listed = invoke("claims", "--list")
    assert any(line.startswith("9c") and "my_study" in line for line in listed.out.splitlines())
    explained = invoke("claims", "why", "9C", str(records)).out
    assert "Part 1: test accuracy, mine minus none." in explained and "Verdict: supported at scale cpu" in explained

    assert invoke("report", str(records)).code == 0
    page = (records / "report.html").read_text()
    assert 'id="claim-9c"' in page and "Me 2026" in page
    assert "<dt><code>mine</code></dt><dd>Standard + my norm</dd>" in page


LAB_FAMILY = """
from icsbench.analysis.claims.contract import Claim, Part
from icsbench.analysis.claims.paired import paired, runs_of


def _distance(group):
    far = {"far": runs_of(group, "walk", **{"lab.depth": 3})}
    return paired(far, lambda run: float(run.metrics.series("walk/distance")[1][-1]))


FAR = Claim(
    id="924",
    statement="Walks lead far.",
    by="Me 2026",
    where="nowhere",
    parts=(Part("distance", _distance, "the distance at the end", ("walks",), low=5),),
    margin="Five is far.",
    fairness=("Straight ahead.",),
)
"""


def test_a_claim_on_the_rows_of_a_lab_is_judged_and_reported(installed, tmp_path):
    installed(text=LAB_FAMILY)
    root = tmp_path / "results"
    for seed in range(6):
        for depth in (3, 4):
            path = write_lab(root, seed=seed, label="Random walk", factors={"lab.depth": []}, depth=depth)
            finish(path, json.loads((path / "summary.json").read_text()))
    (verdict,) = judge(load_runs(root), [claim_of("924")])
    assert (verdict.verdict, verdict.n, len(verdict.runs)) == ("supported", 6, 6)
    assert verdict.findings[0].values == {seed: 9.0 + seed for seed in range(6)}
    assert verdict.command == "icsbench sweep experiment=walks scale=demo"
    for command in ("claims", "report", "runs"):
        done = invoke(command, str(root))
        assert done.code == 0, done.err
    assert "walk-depth3" in done.out
    page = (root / "report.html").read_text()
    assert "<dt><code>walk</code></dt><dd>Random walk</dd>" in page and "walks/walk-depth3/seed-5</td>" in page


def test_two_claims_of_one_id_are_refused_in_one_line(installed):
    installed(text=FAMILY.replace('"9c"', '"9"'))
    result = invoke("claims", "--list")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "both call a member of analysis.claims '9'" in result.err


def test_a_package_that_cannot_be_imported_is_named_in_one_line(installed):
    installed(text="import something_that_is_not_there")
    with pytest.raises(IcsbenchError, match=r"entry point mine = claims_\S+ of icsbench.claims cannot be imported"):
        all_claims()


# --- numbers of a run ------------------------------------------------------------------------------------------------


def with_protocols(root, regime, **accuracies):
    path = write(root, "my_study", regime, 0)
    summary = json.loads((path / "summary.json").read_text())
    finish(path, summary | {"test/accuracy": {name.replace("_", "-"): value for name, value in accuracies.items()}})
    return next(run for run in load_runs(root) if run.regime == regime)


def test_the_protocols_of_a_record_say_which_final_accuracy_counts(tmp_path):
    """A norm without statistics has no recalibrated ones; of a norm with statistics they alone count."""
    noisy = with_protocols(tmp_path, "my_noise", running_off=0.4, running_on=0.3)
    keeps = with_protocols(tmp_path, "my_norm", running_off=0.1, recalibrated_off=0.8, batch_off=0.2)
    assert (final_accuracy(noisy), final_accuracy(keeps)) == (0.4, 0.8)
    lacks = with_protocols(tmp_path, "other_norm", running_off=0.1, batch_off=0.2)
    with pytest.raises(NotMeasured, match="no test accuracy under recalibrated-off"):
        final_accuracy(lacks)


def test_a_difference_is_between_two_norms_at_one_learning_rate(tmp_path):
    for lr, train in ((0.01, 0.3), (0.1, 0.7)):
        write(tmp_path, "my_study", "mine", 0, lr=lr, train=train)
        write(tmp_path, "my_study", "none", 0, lr=lr, train=0.5)
    write(tmp_path, "my_study", "mine", 1)
    (group,) = group_runs(load_runs(tmp_path))
    found = difference("mine", "none", last_tenth)(group)
    assert found.values == pytest.approx({0: 20.0}) and found.left_out == {1: "no finished run of none"}
    with pytest.raises(NotMeasured, match=r"no finished run of yours at learning rate 0\.1"):
        difference("yours", "none", last_tenth)(group)

"""What open claims need, and the runs that are made for them: planted records, nothing is trained."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import invoke, isolate
from planted import write

from icsbench.analysis.claims.contract import Claim, Part
from icsbench.analysis.claims.paired import paired, runs_of
from icsbench.analysis.decision import Look
from icsbench.analysis.extension import Limits, Study, default_looks, extend, family_of, standings_of
from icsbench.analysis.groups import NotMeasured
from icsbench.analysis.plan import needs, total_hours
from icsbench.analysis.registration import judge_by, read_lock, write_lock
from icsbench.errors import IcsbenchError
from icsbench.record.reader import load_runs, run_folders

LOOKS = (Look(12, 0.03), Look(24, 0.02))
SIGNS = (1.0, -0.4, 0.7, -1.0, 0.4, -0.7)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


def _accuracy(group):
    return paired({"bn": runs_of(group, "bn")}, lambda run: 100 * (run.test_accuracy["running-off"] - 0.5))


def part(*studies: str) -> Part:
    return Part("accuracy", _accuracy, "what", studies, unit="points", low=0.0)


def claim(id: str, *parts: Part) -> Claim:
    return Claim(id, f"Claim {id} holds.", "A", "here", parts=parts)


class World:
    """Studies whose runs are planted: the value of a seed around a mean, with a spread of about one point."""

    def __init__(self, looks=LOOKS, **means: float) -> None:
        self.root, self.means, self.now = Path("results"), means, 0.0
        self.seconds = dict.fromkeys(means, 3600.0)
        self.studies = {name: Study(name, (0, 1, 2, 3, 4, 5), 1, looks) for name in means}
        self.family = [claim(name, part(name)) for name in means]
        self.made: list[tuple[str, int]] = []
        self.steps = []
        self.breaks: dict[str, Callable[..., None]] = {}

    def run(self, study: str, seeds) -> None:
        if study in self.breaks:
            self.breaks[study](study, seeds)
            return
        for seed in seeds:
            self.make(study, seed)
            self.made.append((study, seed))
            self.now += self.seconds[study]

    def make(self, study: str, seed: int, mean: float | None = None) -> None:
        value = (self.means[study] if mean is None else mean) + SIGNS[seed % 6] * (1 + 0.01 * seed)
        path = write(self.root, study, "bn", seed, test=0.5 + value / 100)
        if self.seconds[study] is not None:
            (path / "timing.json").write_text(json.dumps({"seconds": self.seconds[study]}))

    def records(self):
        return load_runs(self.root) if any(run_folders(self.root)) else []

    def standings(self):
        return standings_of(self.records(), self.family, self.studies)

    def extend(self, **limits):
        return extend(
            self.family,
            self.studies,
            Limits(**limits),
            records=self.records,
            run=self.run,
            say=self.steps.append,
            clock=lambda: self.now,
        )

    def seeds_of(self, study: str) -> list[int]:
        return [seed for name, seed in self.made if name == study]


def decided(outcome) -> dict[str, str]:
    return {s.claim.id: s.verdict.verdict for s in outcome.standings if s.decided}


# --- which runs are made ---------------------------------------------------------------------------------------------


def test_the_cheapest_claim_comes_first_and_a_decided_one_takes_no_more():
    world = World(dear=8.0, cheap=-8.0)
    world.seconds |= {"dear": 7200.0, "cheap": 60.0}
    for study in world.means:
        world.make(study, 0)
    outcome = world.extend()
    assert [step.study for step in world.steps] == ["cheap", "dear"]
    assert [step.hours for step in world.steps] == pytest.approx([11 * 60 / 3600, 11 * 2])
    assert world.seeds_of("cheap") == world.seeds_of("dear") == [*range(1, 12)]
    assert decided(outcome) == {"dear": "supported", "cheap": "contradicted"} and outcome.stopped == {}
    world.made.clear()
    assert decided(world.extend()) == decided(outcome) and world.made == []


def test_where_nothing_is_known_one_seed_tells_what_a_run_takes():
    world = World(new=8.0)
    world.extend()
    assert [(step.seeds, step.hours) for step in world.steps] == [((0,), None), (tuple(range(1, 12)), 11.0)]


def test_records_that_do_not_say_what_a_run_took_are_no_reason_to_go_seed_by_seed():
    world = World(old=8.0, timed=8.0)
    world.make("timed", 0)
    write("results", "old", "bn", 0, test=0.58)
    world.extend()
    assert [(of.study, len(of.seeds), of.hours) for of in world.steps] == [("timed", 11, 11.0), ("old", 11, None)]


def test_an_open_claim_goes_on_to_the_second_look_and_the_verdicts_of_the_first_stand():
    world = World(sure=8.0, faint=0.45)
    for study in world.means:
        world.make(study, 0)
    outcome = world.extend()
    assert max(world.seeds_of("sure")) == 11 and max(world.seeds_of("faint")) == 23
    looks = {s.claim.id: (s.look, s.members, s.decided) for s in outcome.standings}
    assert looks == {"sure": (0, 2, True), "faint": (1, 1, True)}  # the second look corrects over what is open


def test_a_claim_at_its_bound_is_not_extended_for():
    world = World(none=0.0)
    outcome = world.extend()
    assert max(world.seeds_of("none")) == 11
    assert "24 seeds would settle it with a chance of " in outcome.stopped["none"]


def test_a_claim_that_had_every_look_stays_open_and_that_is_said():
    world = World(none=0.02)
    for seed in range(24):
        world.make("none", seed)
    outcome = world.extend()
    assert (decided(outcome), world.made) == ({}, [])
    assert outcome.stopped == {"none": "every look was taken"}


def test_nothing_is_judged_between_two_looks():
    world = World(sure=8.0)
    for seed in range(11):
        world.make("sure", seed)
    (standing,) = world.standings()
    assert not standing.decided and standing.waits_for == ("sure",)
    world.make("sure", 11)
    assert world.standings()[0].decided


def test_seeds_beyond_a_look_have_no_part_in_it():
    world = World(turning=8.0)
    for seed in range(24):
        world.make("turning", seed, 8.0 if seed < 12 else -8.0)
    (standing,) = world.standings()
    assert standing.look == 0 and standing.verdict and standing.verdict.verdict == "supported"


def test_a_part_outside_decides_before_the_other_study_is_run():
    world = World(here=-8.0, there=8.0)
    world.family = [claim("both", part("here"), part("there"))]
    for seed in range(12):
        world.make("here", seed)
    outcome = world.extend()
    assert decided(outcome) == {"both": "contradicted"} and world.made == []


def test_a_part_is_looked_for_in_its_next_study_where_the_first_does_not_measure_it():
    def lacking(group):
        if group.name == "first":
            raise NotMeasured("first has no probe")
        return _accuracy(group)

    world = World(first=8.0, second=8.0)
    world.family = [claim("x", Part("accuracy", lacking, "what", ("first", "second"), low=0.0))]
    outcome = world.extend()
    assert {study for study, _ in world.made} == {"first", "second"}
    assert decided(outcome) == {"x": "supported"}


def test_a_claim_that_no_study_measures_is_not_extended_for():
    def never(group):
        raise NotMeasured("there is no probe")

    world = World(only=8.0)
    world.family = [claim("x", Part("accuracy", never, "what", ("only",), low=0.0))]
    assert world.extend().stopped == {"x": "there is no probe"}
    assert max(world.seeds_of("only")) == 11


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "largest"), [(8, None), (12, 11), (23, 11), (24, 23)])
def test_never_more_seeds_than_stated(most, largest):
    world = World(faint=0.45)
    outcome = world.extend(seeds=most)
    assert max(world.seeds_of("faint"), default=None) == largest
    look = 12 if most < 12 else 24
    said = f"its next look takes {look} seeds of faint, --most-seeds allows {most}"
    assert outcome.stopped == ({} if most == 24 else {"faint": said})


def test_hours_stop_what_would_take_longer():
    world = World(cheap=8.0, dear=8.0)
    world.seconds |= {"cheap": 360.0, "dear": 3600.0}
    for study in world.means:
        world.make(study, 0)
    outcome = world.extend(hours=5.0)
    assert {study for study, _ in world.made} == {"cheap"} and world.now <= 5 * 3600
    assert outcome.stopped == {"dear": "the next look takes 11.0 h, 3.9 h of --hours are left"}
    world.extend(hours=11.1)
    assert world.seeds_of("dear") == [*range(1, 12)]


def test_hours_are_shared_by_processes():
    world = World(dear=8.0)
    world.make("dear", 0)
    world.extend(hours=6.0, processes=2)
    assert world.steps[0].hours == 5.5


# --- stops -----------------------------------------------------------------------------------------------------------


def test_a_stop_and_the_same_again_goes_on():
    def interrupted(study, seeds):
        for seed in seeds[:4]:
            world.make(study, seed)
        raise KeyboardInterrupt

    world = World(sure=8.0)
    world.make("sure", 0)
    world.breaks["sure"] = interrupted
    with pytest.raises(KeyboardInterrupt):
        world.extend()
    world.breaks.clear()
    assert decided(world.extend()) == {"sure": "supported"}
    assert world.seeds_of("sure") == [*range(5, 12)]


def test_a_study_that_fails_or_leaves_runs_unfinished_does_not_stop_the_others():
    def failing(study, seeds):
        raise IcsbenchError("no memory left")

    world = World(bad=8.0, idle=8.0, good=8.0)
    world.breaks |= {"bad": failing, "idle": lambda study, seeds: None}
    outcome = world.extend()
    assert decided(outcome) == {"good": "supported"}
    assert outcome.failed["bad"] == "no memory left" and "not finished" in outcome.failed["idle"]
    assert outcome.stopped == {"bad": "bad failed", "idle": "idle failed"}


# --- family and looks ------------------------------------------------------------------------------------------------


def test_a_family_has_the_claims_that_its_studies_measure_whole():
    claims = [claim("1", part("a", "b")), claim("2", part("a"), part("c")), claim("3", part("c"))]
    whole, lacking = family_of(claims, ["b", "a"])
    assert [(c.id, c.studies) for c in whole] == [("1", ("a", "b"))]
    assert lacking == {"2": ["c"]}


def test_the_looks_are_where_the_exact_test_can_settle_something():
    for own, members, first in ((6, 1, 12), (6, 20, 12), (12, 20, 12), (6, 200, 18), (2, 1, 8)):
        assert default_looks(own, members, True) == (Look(first, 0.03), Look(2 * first, 0.02))
        assert members * 2.0 ** (1 - first) <= 0.03 < members * 2.0 ** (1 - first + own)
    assert default_looks(6, 20, False) == (Look(6, 0.03), Look(12, 0.02))  # networks: many to a seed


def test_the_seeds_of_a_look_go_on_behind_the_studys_own():
    study = Study("s", (6, 7, 8), 1, (Look(2, 0.03), Look(5, 0.02)))
    assert (study.seeds_at(0), study.seeds_at(1)) == ((6, 7), (6, 7, 8, 9, 10))


# --- what open claims need -------------------------------------------------------------------------------------------


def test_needs_are_sorted_by_hours_and_claims_of_one_study_share_its_seeds():
    world = World(dear=0.5, cheap=0.5, none=0.0, new=0.5)
    world.seconds |= {"cheap": 36.0, "dear": 7200.0}
    for study in ("dear", "cheap", "none"):
        for seed in range(6):
            world.make(study, seed)
    family = [*world.family, claim("cheap again", part("cheap"))]
    found = needs(world.records(), family)
    assert [n.verdict.claim.id for n in found] == ["cheap", "cheap again", "dear", "none", "new"]
    cheap, again, dear, none, new = found
    assert cheap.seeds and cheap.hours and dear.hours and dear.seeds
    assert cheap.seeds == again.seeds == dear.seeds > 6
    assert cheap.hours == pytest.approx((cheap.seeds - 6) * 36 / 3600)
    assert dear.hours == pytest.approx((dear.seeds - 6) * 2)
    assert (none.seeds, none.most, none.hours) == (None, 1000, None)
    assert (new.seeds, new.at_least, new.hours, new.studies) == (6, True, None, {"new": 0})
    assert total_hours(found) == pytest.approx(cheap.hours + dear.hours)


def test_one_more_seed_takes_a_run_of_each_configuration():
    for seed in range(6):
        for regime, seconds in (("bn", 100.0 + seed), ("none", 20.0)):
            path = write("results", "s", regime, seed, test=0.5 + SIGNS[seed] / 100 + 0.005)
            (path / "timing.json").write_text(json.dumps({"seconds": seconds}))
    (need,) = needs(load_runs(Path("results")), [claim("x", part("s"))])
    assert need.seconds == {"s": pytest.approx(102.5 + 20)}


def test_with_looks_only_their_numbers_of_seeds_are_said():
    world = World(faint=0.75, none=0.0)
    for study in world.means:
        for seed in range(6):
            world.make(study, seed)
    faint, none = needs(world.records(), world.family, LOOKS)
    assert faint.seeds == 24 and (none.seeds, none.most) == (None, 24)


# --- the commands ----------------------------------------------------------------------------------------------------


def test_plan_as_a_table_and_as_json(monkeypatch):
    world = World(noise_control=0.5)
    for seed in range(6):
        world.make("noise_control", seed)
    monkeypatch.setattr("icsbench.analysis.plan.all_claims", lambda: [*world.family, claim("n", part("new"))])
    shown = invoke("plan", "results")
    assert shown.code == 0, shown.err
    content = json.loads(invoke("plan", "results", "--json").out)
    first, second = content["claims"]
    assert f"noise_control  inconclusive  {first['seeds']} " in shown.out
    assert "at least 6" in shown.out and "6 of noise_control" in shown.out
    assert content["total_hours"] == first["hours"] == first["seeds"] - 6
    assert (second["id"], second["seeds"], second["hours"]) == ("n", 6, None)
    looked = invoke("plan", "results", "--look", "12:0.03")
    assert "more than 12" in looked.out and "looks: 12 seeds at 0.03" in looked.out


def launching(monkeypatch, world) -> list[list[str]]:
    """Plant the runs of ``noise_control`` where they would be made; the arguments with which they are asked for."""
    launched: list[list[str]] = []

    def launch(arguments):
        launched.append(arguments)
        (seeds,) = (a.partition("=")[2] for a in arguments if a.startswith("seed="))
        for seed in map(int, seeds.split(",")):
            world.make("noise_control", seed)
            write("results", "noise_control", "none", seed)

    monkeypatch.setattr("icsbench.reproducing.launch", launch)
    return launched


def test_reproduce_until_decided_runs_says_why_and_goes_on(monkeypatch):
    world = World(noise_control=8.0)
    launched = launching(monkeypatch, world)
    monkeypatch.setattr("icsbench.reproducing.all_claims", lambda: world.family)
    arguments = ("reproduce", "noise_control", "scale=cpu", "--until-decided", "norm=none,bn", "data=digits")
    done = invoke(*arguments)
    assert done.code == 0, done.err
    assert "Next: noise_control, seed 0 (2 runs, one seed first" in done.out
    assert "for the look with 12 seeds at claim noise_control." in done.out
    assert "✓ supported" in done.out and "Decided: 1 of 1 claim." in done.out
    assert [a for a in launched[1] if a.startswith("seed=")] == ["seed=1,2,3,4,5,6,7,8,9,10,11"]
    assert "Next" not in invoke(*arguments).out and len(launched) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--hours", "0"], "--hours 0: give hours above 0"),
        (["--hours", "nan"], "--hours nan: give hours above 0"),
        (["--most-seeds", "0"], "--most-seeds 0: give 1 or more"),
        (["--look", "3:0.9"], "--look 3:0.9: 3 seeds; 6 are the fewest for a verdict"),
        (["--look", "12:0.9"], "--look 12:0.9: the level is above 0 and at most 0.05"),
        (["--look", "12"], "--look 12: give seeds and a level, such as 12:0.03"),
        (["--look", "12:0.03", "--look", "24:0.03"], "the levels add up to 0.06"),
        (["--look", "12:0.02", "--look", "12:0.03"], "two looks with the same number of seeds"),
        (["nosuch"], "no study 'nosuch'"),
        (["high_lr"], "no claim is measured whole by high_lr"),
    ],
)
def test_what_does_not_fit_is_one_line(options, said):
    done = invoke("reproduce", "--until-decided", "scale=demo", *options)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert said in done.err and not Path("results").exists()


def test_limits_without_the_mode_they_belong_to():
    done = invoke("reproduce", "noise_control", "--hours", "2")
    assert (done.code, done.err) == (1, "icsbench: --most-seeds, --hours, --look and --lock go with --until-decided\n")


# --- by a lock -------------------------------------------------------------------------------------------------------


FOLDERS = ("bn-x1-b128-lr0.1", "none-x1-b128-lr0.1")


@pytest.fixture
def locked(monkeypatch):
    """A study under a lock of seeds 6 to 29; what was launched."""
    world = World(noise_control=8.0)
    launched = launching(monkeypatch, world)
    monkeypatch.setattr("icsbench.analysis.registration.all_claims", lambda: world.family)
    monkeypatch.setattr("icsbench.app.reproduce.Reproduction.folders", lambda self, study: {*FOLDERS})
    studies = {"noise_control": dict.fromkeys(FOLDERS, "f" * 16)}
    own = {"noise_control": ["scale=cpu", "data=digits", "norm=none,bn"]}
    write_lock(Path("lock.json"), world.family, studies, range(6, 30), LOOKS, {}, own)
    return world, launched


def seeds_of(arguments):
    return [argument for argument in arguments if argument.startswith("seed=")]


def test_a_lock_names_claims_studies_seeds_and_looks(locked):
    _, launched = locked
    done = invoke("reproduce", "--until-decided", "--lock", "lock.json")
    assert done.code == 0, done.err
    assert [seeds_of(of) for of in launched] == [["seed=6"], ["seed=7,8,9,10,11,12,13,14,15,16,17"]]
    assert all({"scale=cpu", "data=digits", "norm=none,bn", "experiment=noise_control"} <= {*of} for of in launched)
    assert "Looks: 12 seeds at 0.03, 24 seeds at 0.02" in done.out and "Decided: 1 of 1 claim." in done.out
    (verdict,) = judge_by(load_runs(Path("results")), read_lock(Path("lock.json")))
    assert verdict.verdict == "supported" and verdict.registration.look == LOOKS[0]
    assert "Next" not in invoke("reproduce", "--until-decided", "--lock", "lock.json").out and len(launched) == 2


def test_a_claim_open_at_the_first_look_of_a_lock_goes_to_the_second_and_no_further(locked):
    world, launched = locked
    world.means["noise_control"] = 0.5
    done = invoke("reproduce", "--until-decided", "--lock", "lock.json")
    assert done.code == 0, done.err
    assert seeds_of(launched[2]) == [f"seed={','.join(map(str, range(18, 30)))}"] and len(launched) == 3
    assert "Decided: 1 of 1" in done.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--look", "12:0.03"], "--look goes without --lock"),
        (["seed=3"], "the seeds are those of the lock"),
        (["dose"], "dose: lock.json has no such study; it has noise_control"),
        (["--lock", "nosuch.json"], "nosuch.json: cannot be read"),
    ],
)
def test_what_does_not_fit_a_lock_is_one_line(locked, options, said):
    done = invoke("reproduce", "--until-decided", "--lock", "lock.json", *options)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1) and said in done.err


def test_other_settings_than_those_of_a_lock_are_refused(locked, monkeypatch):
    monkeypatch.setattr("icsbench.app.reproduce.Reproduction.folders", lambda self, study: {FOLDERS[0]})
    done = invoke("reproduce", "--until-decided", "--lock", "lock.json", "norm=bn")
    assert done.code == 1 and "study noise_control: its settings are not those of lock.json" in done.err

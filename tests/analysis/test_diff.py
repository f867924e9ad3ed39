"""Two judgements compared: the rule, paired effects, what was done otherwise, and the command."""

import copy
import json
import math
import shutil

import numpy as np
import pytest
from helpers import invoke, isolate
from planted import finish, write
from scipy import stats

from icsbench.analysis.diff import compare, side_of

SEEDS = range(6)


def part(values, *, kind="value", measure="gain", study="", **others):
    """A part as ``claims.json`` has it, its interval by SciPy."""
    numbers = np.log([*values.values()]) if kind == "ratio" else np.array([*values.values()])
    mean, half = float(numbers.mean()), float(stats.t.ppf(0.975, len(numbers) - 1) * stats.sem(numbers))
    low, high = mean - half, mean + half
    shown = [math.exp(x) if kind == "ratio" else x for x in (mean, low, high)]
    found = dict(zip(("mean", "low", "high"), shown, strict=True))
    plain = {"what": "gain of BN", "unit": "", "region": [0, None], "left_out": {}}
    values = {str(seed): value for seed, value in values.items()}
    return {"measure": measure, "kind": kind, "study": study, **plain, "values": values, **found} | others


def claim(verdict, *parts, id="1", seeds=SEEDS, **others):
    runs = [f"long/bn/seed-{seed}" for seed in seeds]
    return {"id": id, "statement": "BN helps.", "verdict": verdict, "parts": [*parts], "runs": runs, **others}


def content(*claims, **studies):
    return {"claims": [*claims], "studies": studies}


def compared(one, other):
    return compare(side_of(one, "A"), side_of(other, "B"))


def only(one, other):
    """The comparison of two judgements of one claim."""
    (found,) = compared(content(one), content(other)).claims
    return found


def around(mean, *, spread=1.0, seeds=SEEDS):
    return {seed: mean + spread * (-1) ** seed for seed in seeds}


def without_interval(value):
    return part({0: value, 1: value}) | {"values": {"0": value}, "low": None, "high": None}


# --- the rule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "relation"),
    [
        ("supported", "supported", "agrees"),
        ("contradicted", "contradicted", "agrees"),
        ("inconclusive", "inconclusive", "agrees"),
        ("supported", "inconclusive", "drifts"),
        ("contradicted", "inconclusive", "drifts"),
        ("supported", "contradicted", "contradicts"),
        ("supported", "not measured", "A only"),
        ("not measured", "inconclusive", "B only"),
        ("not measured", "not measured", "not measured"),
    ],
)
def test_verdicts_on_the_same_numbers(a, b, relation):
    def of(verdict):
        return claim(verdict, *([] if verdict == "not measured" else [part(around(3))]))

    swapped = {"A only": "B only", "B only": "A only"}.get(relation, relation)
    assert only(of(a), of(b)).relation == relation
    assert only(of(b), of(a)).relation == swapped
    assert bool(compared(content(of(a)), content(of(b))).flips) == (relation == "contradicts")


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        (part(around(3)), part(around(4)), ""),
        (part(around(3)), part(around(9)), "intervals do not overlap"),
        (part(around(9)), part(around(3)), "intervals do not overlap"),
        (part(around(2, spread=0)), part(around(2 + 1e-13, spread=0)), ""),  # rounded otherwise
        (part(around(2, spread=0)), part(around(2.001, spread=0)), "intervals do not overlap"),
        (without_interval(1.0), part(around(9)), ""),
        (part(around(3)), part(around(3), unit="points"), "in another unit"),
        (part(around(3)), part(around(3), kind="ratio"), "in another unit"),
    ],
)
def test_the_effect_of_a_part(one, other, why):
    found = only(claim("supported", one), claim("supported", other))
    assert found.parts[0].why == why
    assert found.relation == ("drifts" if why else "agrees")


def test_a_part_that_one_side_did_not_measure():
    missing = part(around(1), measure="loss") | {"values": {}, "mean": None, "low": None, "high": None}
    both = claim("inconclusive", part(around(3)), part(around(1), measure="loss"))
    found = only(both, claim("inconclusive", part(around(3)), missing))
    assert found.relation == "drifts"
    assert [of.why for of in found.parts] == ["", "measured in A only"]
    assert only(claim("inconclusive", missing), claim("inconclusive", missing)).relation == "agrees"


def test_a_claim_that_one_catalogue_lacks():
    found = compared(content(claim("supported", part(around(3)))), content()).claims
    assert [(of.id, of.relation) for of in found] == [("1", "A only")]


# --- paired effects --------------------------------------------------------------------------------------------------


def test_the_difference_over_shared_seeds_by_hand():
    a, b = part({0: 1.0, 1: 2.0, 2: 4.0, 3: 7.0}), part({1: 5.0, 2: 6.0, 3: 11.0, 9: 0.0})
    (found,) = only(claim("inconclusive", a), claim("inconclusive", b, seeds=(1, 2, 3, 9))).parts
    # differences 3, 2, 4: mean 3, deviation 1; t of two degrees of freedom at 0.975 is 4.30265
    assert found.paired.n == 3
    assert found.paired[:3] == pytest.approx((3, 3 - 4.30265 / 3**0.5, 3 + 4.30265 / 3**0.5), rel=1e-5)


def test_the_ratio_over_shared_seeds():
    a, b = (dict(enumerate(np.exp(np.random.default_rng(n).normal(size=6)).tolist())) for n in (1, 2))
    (found,) = only(claim("supported", part(a, kind="ratio")), claim("supported", part(b, kind="ratio"))).parts
    logs = np.log([b[seed] / a[seed] for seed in SEEDS])
    low, high = stats.t.interval(0.95, 5, logs.mean(), stats.sem(logs))
    assert found.paired[:3] == pytest.approx(np.exp([logs.mean(), low, high]))


def test_one_shared_seed_has_no_interval():
    (found,) = only(
        claim("supported", part(around(3))),
        claim("supported", part(around(5, seeds=(5, 6, 7)), left_out={}), seeds=(5, 6, 7)),
    ).parts
    assert found.paired.n == 1 and found.paired.mean == 2.0 and math.isnan(found.paired.low)


@pytest.mark.parametrize(
    ("values", "seeds", "paired"),
    [
        (around(3), SEEDS, True),
        (around(3, seeds=range(12)), SEEDS, False),  # two networks a seed, numbered through
        (around(3), range(6, 12), False),  # one network a seed, of other seeds
        (around(3), (), False),  # it does not say which runs
    ],
)
def test_only_values_per_seed_are_paired(values, seeds, paired):
    (found,) = only(claim("supported", part(around(3))), claim("supported", part(values), seeds=seeds)).parts
    assert (found.paired is not None) == paired


def test_counts_are_not_averaged():
    one = part(around(0.5, spread=0.5), kind="count")
    assert only(claim("supported", one), claim("supported", one)).parts[0].paired is None


# --- what was done otherwise -----------------------------------------------------------------------------------------


def made(**settings):
    return {
        "settings": {"seed": [0, 1], **settings},
        "versions": {"torch": ["2.6"], "commit": ["a" * 40]},
        "hardware": {"device": ["cpu"]},
        "data": {"fingerprint": ["f"]},
    }


def judgement(study, **settings):
    parts = [part(around(3), study=study), part(around(3), study="other", measure="loss")]
    return content(claim("supported", *parts), **{study: made(**settings), "other": made(**settings), "idle": {}})


def test_alike_differences_of_two_studies_are_one():
    a, b = judgement("long", steps=[10]), judgement("long", steps=[20], amp=[None, "bf16"])
    for study in ("long", "other"):
        b["studies"][study]["versions"]["torch"] = ["2.7"]
    found = [(of.topic, of.key, of.a, of.b, of.of) for of in compared(a, b).differences]
    assert found == [
        ("settings", "steps", (10,), (20,), ("long", "other")),
        ("settings", "amp", (None,), (None, "bf16"), ("long", "other")),
        ("versions", "torch", ("2.6",), ("2.7",), ("long", "other")),
    ]


def test_a_claim_that_another_study_measures():
    found = compared(judgement("three_regimes", steps=[10]), judgement("long", steps=[20])).differences
    assert [(of.key, of.of) for of in found] == [("steps", ("three_regimes / long", "other"))]


def test_another_definition_is_said():
    a = claim("supported", part(around(3)))
    b = claim("supported", part(around(3), region=[1.5, 4], what="loss"), statement="BN helps a lot.")
    found = {of.key: (of.a, of.b) for of in compared(content(a), content(b)).differences}
    assert found == {
        "statement": (("BN helps.",), ("BN helps a lot.",)),
        "gain: measure": (("gain of BN",), ("loss",)),
        "gain: region": (("above 0",), ("between 1.5 and 4",)),
    }


def test_another_registration_is_said_where_both_sides_have_one():
    registered, exploratory = (
        claim("supported", part(around(3)), registration={"status": status}) for status in ("registered", "exploratory")
    )
    found = {of.key: (of.a, of.b) for of in compared(content(registered), content(exploratory)).differences}
    assert found == {"registration": (("registered",), ("exploratory",))}
    assert compared(content(registered), content(claim("supported", part(around(3))))).differences == ()


def test_a_file_of_an_earlier_version_has_its_facts():
    a, b = (content(claim("supported", part(around(3)), facts=facts)) for facts in ("1,000 steps", "15,000 steps"))
    del a["studies"]
    del a["claims"][0]["parts"][0]["study"]
    found = compared(a, b)
    assert found.unstated == ("1",)
    assert [(of.key, of.a, of.b, of.of) for of in found.differences] == [
        ("measured on", ("1,000 steps",), ("15,000 steps",), ("1",))
    ]


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


def records(root, share, seeds=SEEDS, **settings):
    """Records of claim 3: the drift with BN is ``share`` of that without."""
    for seed in seeds:
        write(root, "three_regimes", "bn", seed, drift=0.2 * share * 1.02 ** (-1) ** seed, **settings)
        write(root, "three_regimes", "none", seed, drift=0.2, **settings)
    return str(root)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    records(root / "alike", 1.0)
    records(root / "far", 0.3, seeds=range(2, 8), batch_size=64)
    for path in (root / "far").rglob("environment.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"torch": "2.7", "device_name": "H100"}))
        finish(path.parent, json.loads((path.parent / "summary.json").read_text()))
    return root


def test_a_flip_is_exit_code_3(planted):
    result = invoke("diff", str(planted / "alike"), str(planted / "far"), "--md", "diff.md", "--json", "diff.json")
    assert (result.code, result.err) == (3, "")
    assert "Flipped: 3 (supported in A, contradicted in B)" in result.out
    with open("diff.json") as file:
        found = json.load(file, parse_constant=lambda token: pytest.fail(f"{token} is no JSON"))
    assert found["flips"] == ["3"]
    (drift,) = next(of for of in found["claims"] if of["id"] == "3")["parts"]
    assert drift["paired"] == pytest.approx({"mean": 0.3, "low": 0.3, "high": 0.3, "n": 4})
    said = {(of["topic"], of["key"]): (of["a"], of["b"]) for of in found["differences"]}
    assert said == {
        ("settings", "seed"): ([*range(6)], [*range(2, 8)]),
        ("settings", "batch_size"): ([128], [64]),
        ("versions", "torch"): (["2.6"], ["2.7"]),
        ("hardware", "device_name"): ([None], ["H100"]),
    }
    with open("diff.md") as file:
        lines = file.read().splitlines()
    # deviation of +-log 1.02 over six: 0.02169; half of the interval 2.5706 x 0.02169 / sqrt(6) = 0.02277
    effects = "×1 [0.977, 1.02], n 6 | ×0.3 [0.293, 0.307], n 6 | ×0.3 [0.3, 0.3], 4 seeds"
    assert f"|  | - drift_vgg | {effects}; intervals do not overlap |" in lines
    assert "| settings | seed | 0 to 5 | 2 to 7 | three_regimes |" in lines
    assert "| hardware | device_name | not set | H100 | three_regimes |" in lines
    swapped = invoke("diff", str(planted / "far"), str(planted / "alike"))
    assert swapped.code == 3 and "Flipped: 3 (contradicted in A, supported in B)" in swapped.out


def test_records_agree_with_their_own_claims_json(planted):
    folder = str(planted / "alike")
    assert invoke("claims", folder, "--out", "judged").code == 0
    for pair in ((folder, "judged/claims.json"), ("judged/claims.json", folder)):
        result = invoke("diff", *pair, "--json", "diff.json")
        assert (result.code, result.err) == (0, "")
        with open("diff.json") as file:
            found = json.load(file)
        assert {of["relation"] for of in found["claims"]} == {"agrees", "not measured"}
        assert found["differences"] == found["unstated"] == found["flips"] == []


def test_a_folder_of_two_scales_needs_one(planted, tmp_path):
    shutil.copytree(planted / "alike", "both")
    write("both", "dose", "bn", 0, scale="demo")
    refused = invoke("diff", "both", str(planted / "alike"))
    assert refused.code == 1 and "choose one with --scale" in refused.err
    result = invoke("diff", "both", str(planted / "alike"), "--scale", "cpu")
    assert (result.code, result.err) == (0, "")


# --- what a stranger wrote -------------------------------------------------------------------------------------------


def test_text_of_a_file_is_neither_obeyed_by_a_terminal_nor_by_markdown():
    bad = "\x1b[31m<script>|[x](http://a.b) `*[red]\n# title"
    entry = claim("supported", part(around(3), measure=bad, what=bad), statement=bad, facts=bad)
    for name in ("a", "b"):
        with open(f"{name}.json", "w") as file:
            json.dump(content(entry | {"facts": bad + name}), file)
    result = invoke("diff", "a.json", "b.json", "--md", "diff.md")
    assert (result.code, result.err) == (0, "")
    assert (
        "\x1b" not in result.out
        and "\N{REPLACEMENT CHARACTER}[31m" in result.out
        and "[red]" in result.out.replace("\n", "")
    )
    with open("diff.md") as file:
        text = file.read()
    assert "\x1b" not in text and "<script>" not in text and "](" not in text
    assert not any(line.startswith("# ") for line in text.splitlines())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {6}


def at(*keys, value):
    """The content with one entry of the claim, or of what is below it, put to a value; None takes it away."""

    def change(whole):
        place = whole
        for key in keys[:-1]:
            place = place[key]
        if value is None:
            del place[keys[-1]]
        else:
            place[keys[-1]] = value
        return whole

    return change


CLAIM = ("claims", 0)
PART = (*CLAIM, "parts", 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda whole: [whole], "not a JSON object"),
        (at("claims", value=None), "'claims' is None; it would be a list"),
        (at("claims", value=[3]), "claim 1: 3; it would be an object"),
        (at(*CLAIM, "id", value=7), "claim 1: 'id' is 7; it would be a text"),
        (at(*CLAIM, "verdict", value="\x1bwon"), "claim 1: verdict is '\\x1bwon'; it would be one of supported, "),
        (at(*CLAIM, "statement", value=None), "claim 1: 'statement' is None; it would be a text"),
        (lambda whole: whole | {"claims": whole["claims"] * 2}, "claim 2: the id '1' for a second time"),
        (at(*CLAIM, "parts", value=["x"]), "claim 1, part 1: 'x'; it would be an object"),
        (at(*PART, "values", value=[1]), "claim 1, part 1: 'values' is [1]; it would be an object"),
        (at(*PART, "values", "x", value=1), "claim 1, part 1: a value of 'x'; it would be the number of a seed"),
        (at(*PART, "values", "0", value="1"), "claim 1, part 1, value of 0: '1'; it would be a number"),
        (at(*PART, "values", "0", value=10**400), "claim 1, part 1, value of 0: 1000000"),
        (at(*PART, "values", "0", value=math.nan), "claim 1, part 1, value of 0: nan; it would be a number"),
        (at(*PART, "kind", value="ratio"), "part 1, value of 1: -1; it would be positive, as a ratio is"),
        (at(*PART, "region", value=[0]), "claim 1, part 1: region is [0]; it would be two bounds"),
        (at(*PART, "low", value=True), "claim 1, part 1, low: True; it would be a number"),
        (at("studies", value={"long": 3}), "study 'long': 3; it would be an object of objects"),
        (at("studies", value={"long": {"data": {"x": 1}}}), "study 'long', 'data': 'x' is 1; it would be a list"),
    ],
)
def test_a_damaged_file_is_one_clear_line(change, said):
    sound = content(claim("supported", part(around(0))), long={})
    with open("sound.json", "w") as file:
        json.dump(sound, file)
    with open("bad.json", "w") as file:
        json.dump(change(copy.deepcopy(sound)), file)
    result = invoke("diff", "sound.json", "bad.json")
    assert result.code == 1 and result.out == ""
    assert result.err.startswith("icsbench: bad.json") and said in result.err and result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "no such file or folder"), ("{", "not JSON"), ("[" * 100_000, "not JSON"), ("\udcff", "not JSON")],
)
def test_a_file_that_is_none(tmp_path, text, said):
    if text is not None:
        (tmp_path / "bad.json").write_bytes(text.encode(errors="surrogateescape"))
    result = invoke("diff", "bad.json", "bad.json")
    assert result.code == 1 and result.out == ""
    assert f"bad.json: {said}; give a results folder" in result.err


def test_a_file_that_cannot_be_written():
    with open("sound.json", "w") as file:
        json.dump(content(claim("supported", part(around(3)))), file)
    result = invoke("diff", "sound.json", "sound.json", "--md", "sound.json/diff.md")
    assert result.code == 1 and result.err.startswith("icsbench: sound.json/diff.md: cannot be written")

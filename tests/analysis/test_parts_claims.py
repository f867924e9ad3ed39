"""The claims on the parts of BN can win and can lose."""

import json

import pytest
from planted import finish
from synthetic import write_lab

from icsbench.analysis.claims.parts import (
    EQUAL_MARGINS,
    LAST_LAYER_REMOVES_THE_OUTLIER,
    RECENTRING_GATHERS,
    RESCALING_ALONE,
    THE_MEAN_REMOVES_THE_OUTLIER,
)
from icsbench.analysis.verdicts import judge
from icsbench.record.reader import load_runs

SEEDS, NETWORKS = 2, 4
C_STAR = 0.302346482176


def of_parts(tilt, *, rest=0.93, odd=0.003, both=C_STAR, rescale=0.4):
    found = {"recentre": (0.87, rest, odd), "both": (both, both, both), "rescale": (rescale,) * 3, "none": (1.0,) * 3}
    for width in (256, 32):
        for layer in (1, 1000):
            for variant, cosines in found.items():
                right = layer == 1000 and width == 256
                values = [value + 0.001 * tilt if right else 0.5 for value in cosines]
                row = dict(zip(("cosine", "rest_cosine", "odd_cosine"), values, strict=True))
                row |= {"theory_cosine": C_STAR} if variant == "both" else {}
                yield {"step": layer, "variant": variant, "width": width} | row


def of_fisher(tilt, *, last=-0.5, middle=0.0, last_mean=-0.5, last_scale=0.0, smaller=0.2):
    exponents = {"none": 0.0, "last": last, "middle": middle, "last_mean": last_mean, "last_scale": last_scale}
    for width in (64, 128, 256):
        for where, exponent in exponents.items():
            largest = smaller if where == "last" else 1.0
            share = 0.3 * (width / 64) ** (exponent + 0.01 * tilt)
            yield {"step": width, "width": width, "where": where, "share": share, "largest": largest * (1 + tilt / 50)}


def of_margin(tilt, *, bn=0.9999, none=0.5, weight_norm=0.6):
    for step in (10, 1000, 10000):
        for variant, value in {"bn": bn, "none": none, "weight_norm": weight_norm}.items():
            there = step == (1000 if variant == "bn" else 10000)
            yield {"step": step, "variant": variant, "min_over_max": value + 1e-5 * tilt if there else 0.9}


def verdict_on(root, claim, lab, rows, **planted):
    for seed in range(SEEDS):
        path = write_lab(root, lab, seed, experiment=lab, finished=False)
        lines = [
            json.dumps({"network": network, **row})
            for network in range(NETWORKS)
            for row in rows(NETWORKS * seed + network - 3.5, **planted)
        ]
        (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        finish(path, {"status": "complete", "outcome": "complete", "rows": len(lines)})
    [verdict] = judge(load_runs(root), [claim])
    assert (verdict.n, verdict.of) == (SEEDS * NETWORKS, "networks")
    return verdict.verdict


CASES = [
    (RECENTRING_GATHERS, "parts", of_parts, ({"rest": 0.5}, {"odd": 0.4}, {"both": 0.9})),
    (RESCALING_ALONE, "parts", of_parts, ({"rescale": 0.95},)),
    (LAST_LAYER_REMOVES_THE_OUTLIER, "fisher", of_fisher, ({"last": 0.0}, {"middle": -0.5}, {"smaller": 0.95})),
    (THE_MEAN_REMOVES_THE_OUTLIER, "fisher", of_fisher, ({"last_mean": 0.0}, {"last_scale": -0.5})),
    (EQUAL_MARGINS, "margin", of_margin, ({"bn": 0.9}, {"none": 0.95}, {"weight_norm": 0.95})),
]


@pytest.mark.parametrize(("claim", "lab", "rows", "losing"), CASES, ids=[case[0].id for case in CASES])
def test_a_claim_is_supported_or_contradicted_by_what_is_planted(tmp_path, claim, lab, rows, losing):
    assert verdict_on(tmp_path / "wins", claim, lab, rows) == "supported"
    for number, planted in enumerate(losing):
        assert verdict_on(tmp_path / f"loses-{number}", claim, lab, rows, **planted) == "contradicted"

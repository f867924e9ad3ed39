"""The claims on parts of BN: what a share of BN's gain says where BN gains nothing, and where a run is missing."""

from planted import write

from icsbench.analysis.claims.bn_parts import RESCALING_IS_WHAT_TRAINS
from icsbench.analysis.groups import group_runs
from icsbench.record.reader import load_runs


def test_a_share_is_left_out_for_its_own_reason(tmp_path):
    for seed in range(4):
        for lr in (0.05, 0.4):
            for norm, accuracy in (("none", 0.3), ("bn", 0.31 if seed == 1 else 0.7), ("bn_var", 0.5)):
                if (norm, seed) != ("bn", 2):
                    gone = {"diverged_at": 100} if (norm, seed) == ("bn", 3) else {}
                    write(tmp_path, "bn_parts", norm, seed, lr=lr, train=accuracy, **gone)
    [group] = group_runs(load_runs(tmp_path))
    found = RESCALING_IS_WHAT_TRAINS.parts[0].measure(group)
    assert {seed: round(value, 9) for seed, value in found.values.items()} == {0: 0.5}
    assert found.left_out == {
        1: "BN gains less than two points; no finite value",
        2: "no finished run of bn",
        3: "BN gains less than two points; bn diverged at step 100",
    }

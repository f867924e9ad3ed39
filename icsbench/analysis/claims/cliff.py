"""Claims on the depth beyond which plain networks with BN cannot be trained, and on whether BN is the reason."""

import math
from collections.abc import Callable, Mapping

from icsbench.analysis.claims.contract import Claim, Measure, Measured, Part
from icsbench.analysis.claims.networks import networks_of, runs_behind
from icsbench.analysis.claims.texts import YANG
from icsbench.analysis.groups import Group, NotMeasured
from icsbench.analysis.quantities.cliff import Cliff, Range, cliffs
from icsbench.analysis.quantities.lab import LabRows

STUDY = ("cliff",)
BATCHES = (8, 32, 128)
QUARTER = (0.75, 1.25)
DEEPEST = 50 * QUARTER[1]
WITHOUT = 1.25

Cliffs = Mapping[tuple[str, int], Cliff]
"""Of one network, by norm and batch size."""


def of_networks(value: Callable[[Cliffs, LabRows], Range], low: float = -math.inf, high: float = math.inf) -> Measure:
    """A number per network for a part with the region from ``low`` to ``high``; networks of all seeds are numbered.

    Where a cliff lies outside the depths of the study, ``value`` is only known to lie between two bounds. If both are
    on one side of each end of the region, the bound nearest to its other values counts as the number: it is on the same
    side as whatever the number is, and a note says of how many networks. If they are not, the network is left out.
    """

    def measure(group: Group) -> Measured:
        values: dict[int, float] = {}
        left_out: dict[int, str] = {}
        bounds = 0
        networks = networks_of(group)
        for number, rows in enumerate(networks):
            found = {(norm, batch): one for norm, batch, _, one in cliffs(rows)}
            known = value(found, rows)
            settled = _settled(known, low, high)
            if settled is None:
                whys = dict.fromkeys(f"{one.why} ({_named(*key)})" for key, one in found.items() if one.why)
                left_out[number] = "; ".join(whys)
            else:
                values[number] = settled
                bounds += not known.measured
        note = f"{bounds} of {len(values)} values are bounds" if bounds else ""
        return Measured(values, left_out, note=note, behind=runs_behind(networks))

    return measure


def _settled(known: Range, low: float, high: float) -> float | None:
    if known.measured:
        return known.low
    if known.low >= high or (known.low > low and math.isinf(high)):
        return known.low
    if known.high <= low or (known.high < high and math.isinf(low)):
        return known.high
    return None


def _named(norm: str, batch: int) -> str:
    return f"{'BN' if norm == 'bn' else 'no BN'}, batch {batch}"


def _depth(found: Cliffs, norm: str, batch: int) -> Range:
    if (norm, batch) not in found:
        raise NotMeasured(f"no network was trained with{'' if norm == 'bn' else 'out'} BN at batch size {batch}")
    return found[norm, batch].depth


def over_limit(batch: int) -> Callable[[Cliffs, LabRows], Range]:
    """The cliff with BN at a batch size, over 16 xi."""

    def value(found: Cliffs, rows: LabRows) -> Range:
        depth = _depth(found, "bn", batch)
        limit = float(rows.where(norm="bn", batch=batch)["theory_cliff"][0])
        return Range(depth.low / limit, depth.high / limit)

    return value


def deepest(found: Cliffs, _: LabRows) -> Range:
    """The deepest cliff with BN among all batch sizes."""
    depths = [one.depth for (norm, _), one in found.items() if norm == "bn"]
    return Range(max(depth.low for depth in depths), max(depth.high for depth in depths))


def without_bn(batch: int) -> Callable[[Cliffs, LabRows], Range]:
    """The cliff without BN over that with BN, at a batch size."""

    def value(found: Cliffs, _: LabRows) -> Range:
        none, bn = _depth(found, "none", batch), _depth(found, "bn", batch)
        return Range(none.low / bn.high, none.high / bn.low if bn.low else math.inf)

    return value


SETTING = (
    "The paper has width 384 and MNIST for 10 epochs. Scales demo and cpu have digits, smaller widths and the same "
    "product of learning rate and updates."
)
ACCURACY = (
    "Accuracy is that on training images, as in the paper, in batches with their own statistics. With batches of 8 it "
    "suffers from the noise of the statistics at any depth; the cliff is half-way between plateau and chance."
)

UNTRAINABLE_BEYOND_A_DEPTH = Claim(
    id="19",
    statement="Networks with BN and no skip connections are untrainable beyond 16 depth scales (40 to 50 layers).",
    by=YANG,
    where="Y section 5, Fig. 2",
    parts=(
        *(
            Part(
                f"cliff_at_{batch}",
                of_networks(over_limit(batch), *QUARTER),
                f"the depth at which a logistic curve through training accuracy is half-way to chance, over 16 xi, "
                f"with BN at batch size {batch}",
                STUDY,
                "ratio",
                of="networks",
                low=QUARTER[0],
                high=QUARTER[1],
            )
            for batch in BATCHES
        ),
        Part(
            "deepest_cliff",
            of_networks(deepest, high=DEEPEST),
            "the deepest of these depths over all batch sizes of the study, in layers",
            STUDY,
            of="networks",
            high=DEEPEST,
        ),
    ),
    margin="A quarter around 16 xi, which the paper reads off a colour map; and the 50 layers that it calls the limit "
    "at any batch size, plus a quarter. Known before: xi by theory, and where a few networks of trial seeds failed.",
    fairness=(
        SETTING,
        ACCURACY,
        "16 is no result of the theory: xi is, and the paper found 16 to fit at its learning rate and epochs. Theory "
        "is of infinite width; in trials the accuracy of narrower networks fell at lesser depths.",
        "Whether networks without BN can be trained there is a claim of its own, 19b.",
    ),
    figures=("cliff",),
)

BN_IS_THE_REASON = Claim(
    id="19b",
    statement="BN is the reason for that limit: without it the same networks, from He initialisation, train deeper.",
    by=YANG,
    where="Y abstract and section 5",
    parts=tuple(
        Part(
            f"without_bn_at_{batch}",
            of_networks(without_bn(batch), WITHOUT),
            f"the depth of half-way to chance without BN, over that with BN, at batch size {batch}",
            STUDY,
            "ratio",
            of="networks",
            low=WITHOUT,
        )
        for batch in BATCHES
    ),
    margin="By a quarter at least, as 16 xi is judged to a quarter. One part for each batch size, where a mean over "
    "them stood first: trial networks of other seeds had shown it to hold at 8 and to fail at 32 and 128, and a mean "
    "would hide that. The bound was not moved.",
    fairness=(
        "The control of claim 19: same first weights, images, learning rates and epochs, and no BN. The learning rate "
        "is that of the paper for networks with BN; another could suit those without it better.",
        SETTING,
    ),
    figures=("cliff",),
)

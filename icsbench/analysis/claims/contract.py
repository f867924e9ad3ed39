"""What a claim is: a statement, the numbers that it is about, and the regions that their means should lie in.

A claim has one or more parts. A part is one number per seed and a region: the claim says that the mean over seeds lies
in it. The region is fixed before the records that it is judged on are made. Where a paper names no size, an effect
counts from a fifth on (ratios of 0.8 and 1.25), or from the smallest that the bound named here lets pass.

A family of claims is one module of this package (or of another package, see ``icsbench.members``): its claims stand at
the top level, beside the functions that measure them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from icsbench.analysis.groups import Group
from icsbench.record.reader import Run


class Measured(NamedTuple):
    """A number per seed (or per random network or problem, see :attr:`Part.of`), and for each that has none the reason.

    ``runs``: the runs behind the numbers; empty for all of the study. ``note``: what was found on the way. ``behind``:
    the runs behind each number, where they are others than those of the seed that its key is.
    """

    values: dict[int, float]
    left_out: dict[int, str]
    runs: tuple[Run, ...] = ()
    note: str = ""
    behind: Mapping[int, tuple[Run, ...]] = MappingProxyType({})


Measure = Callable[[Group], Measured]
"""From the comparable runs of one study to a number per seed.

Ratios are ratios, accuracies in percentage points. From where a run diverged on it has the accuracy of chance; where
that gives no number, the seed is left out with the reason.

:raises NotMeasured: the study lacks what the measure needs.
:raises IcsbenchError: a record is damaged.
"""


@dataclass(frozen=True)
class Part:
    """One measured statement: the mean of ``measure`` over seeds lies in the open region from ``low`` to ``high``.

    Of a ``bound`` it is every value that lies in the region, which is then closed.

    :param name: of the measure, in ``claims.json``.
    :param measure: one number per seed.
    :param what: the same in words.
    :param studies: those that measure it; the first that was run counts.
    :param kind: of a ``ratio`` the logarithm is averaged, and the region is one of ratios; a ``value`` (a difference
        of two runs of a seed, say) is averaged as it is; a ``count`` is 0 or 1, and the region is one of shares. A
        ``bound`` is one that a theorem or an identity states for every single value: the claim says that all of them
        lie in the region, and not their mean. One outside refutes it, and there is nothing to test.
    :param unit: ``points`` are percentage points of accuracy.
    :param per: what the unit is divided by, of a slope: ``doubling``.
    :param of: what there is a number of each of: seeds, or random networks or problems, several of which a run of a lab
        draws.
    :param variants: other choices that could have been made of its window, protocol or unit, by what they are: the
        same region is put to them by ``icsbench claims sensitivity``. They bear on no verdict.
    :param below: who is right if the mean lies below the region; nobody where it is empty.
    :param above: the same above it.
    """

    name: str
    measure: Measure
    what: str
    studies: tuple[str, ...]
    kind: Literal["ratio", "value", "count", "bound"] = "value"
    unit: Literal["", "points"] = ""
    per: str = ""
    of: Literal["seeds", "networks", "problems"] = "seeds"
    low: float = -math.inf
    high: float = math.inf
    below: str = ""
    above: str = ""
    variants: Mapping[str, Measure] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Claim:
    """One claim of the debate. A claim without parts has no study yet, and ``needs`` says which study it needs.

    :param id: a number, with a letter for a variant: ``1b``. Claims are listed in this order.
    :param by: who claims it, several papers with ``;`` between them; ``where``: the place in the paper.
    :param disputed_by: who says otherwise.
    :param margin: the reason for the regions.
    :param fairness: what a reader has to know before believing a verdict.
    :param figures: the figures that show it.
    """

    id: str
    statement: str
    by: str
    where: str
    disputed_by: str = ""
    parts: tuple[Part, ...] = ()
    margin: str = ""
    fairness: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    needs: str = ""

    @property
    def name(self) -> str:
        """The id: members are told apart by their name."""
        return self.id

    @property
    def studies(self) -> tuple[str, ...]:
        """The studies that measure it."""
        return tuple(dict.fromkeys(study for part in self.parts for study in part.studies))

    @property
    def papers(self) -> tuple[str, ...]:
        """Every paper that claims or disputes it."""
        names = (name.strip() for names in (self.by, self.disputed_by) for name in names.split(";"))
        return tuple(dict.fromkeys(name for name in names if name))

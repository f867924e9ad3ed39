"""The claims of the debate: one module per family, with what each claim says, its bounds, and how it is measured."""

import math
import re

from icsbench.analysis.claims.contract import Claim
from icsbench.errors import IcsbenchError
from icsbench.members import members


def all_claims() -> tuple[Claim, ...]:
    """Every claim, in the order of its number: 1, 1b, 2, ...; an id without a number comes last.

    :raises IcsbenchError: two claims have one id, or a package that brings claims cannot be imported.
    """
    return tuple(sorted(members("analysis.claims", Claim).values(), key=_order))


def _order(claim: Claim) -> tuple[float, str]:
    number = re.match(r"\d+", claim.id)
    return (int(number[0]) if number else math.inf, claim.id)


def claim_of(id: str) -> Claim:
    """The claim with this id, in capitals or not.

    :raises IcsbenchError: there is none.
    """
    claims = all_claims()
    for claim in claims:
        if claim.id.lower() == id.strip().lower():
            return claim
    raise IcsbenchError(f"no claim {id!r}; the ids are {', '.join(claim.id for claim in claims)}")


def serves(study: str) -> list[str]:
    """The ids of the claims that a study has measurements for."""
    return [claim.id for claim in all_claims() if study in claim.studies]

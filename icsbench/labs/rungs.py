"""Where a long study is recorded."""


def rungs(last: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... up to ``last``, and ``last`` itself."""
    decades = (factor * 10**power for power in range(len(str(last))) for factor in (1, 2, 5))
    return sorted({rung for rung in decades if rung < last} | {last})

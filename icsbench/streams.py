"""Named random streams: each use of randomness has its own, derived from the run's seed."""

import hashlib


def stream_seed(seed: int, *name: str | int) -> int:
    """Seed of the stream ``name`` of a run: 63 bits of SHA-256 over the run's seed and the name.

    Streams of different names are independent, so that drawing from one (noise, say) cannot move another (data order),
    and regimes that share a seed share every stream that they have in common.
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *name))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

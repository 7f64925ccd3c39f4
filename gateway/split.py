"""In which order a request goes through the targets of its route.

A race with exponential times: each target gets -ln(u) / weight with u between 0 and 1, and the
lowest comes first, so that each is first as often as its weight says, and the next one follows in
the same proportion. With u at random that is a draw by request (Efraimidis and Spirakis, Weighted
random sampling with a reservoir, 2006); with u from a hash of target and key it is a weighted
rendezvous hash (Schindelhauer and Schomaker, Weighted distributed hash tables, 2005): a key keeps
its target, in every worker, and a change of weights moves no more keys than it must.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Sequence

from gateway.policies import rank
from gateway.table import Share, Target

_RANKS = float(1 << 64)
_random = random.random


def order(shares: Sequence[Share], key: str = "") -> list[Target]:
    """The targets to be tried: by priority, by price where the policy asks for it, then by weight.

    Those of which no replica may be tried now come after all others, if any of theirs works on
    requests at all; the rest is left out.

    Args:
        shares: The route's targets.
        key: Whose request it is, where a key keeps its target; "" draws anew.
    """
    affinity = zlib.crc32(key.encode()) if key else 0
    racing = []
    for share in shares:
        later = not share.target.is_available
        if share.weight <= 0 or (later and not share.target.may_answer):
            continue
        # Above 0, so that it has a logarithm.
        drawn = (rank(share.seed, affinity) + 1) / _RANKS if key else 1.0 - _random()
        racing.append((later, share.priority, share.usd, -math.log(drawn) / share.weight, share))
    racing.sort(key=_place)
    return [share.target for *_, share in racing]


def _place(entry: tuple[bool, int, float, float, Share]) -> tuple[bool, int, float, float]:
    return entry[:4]

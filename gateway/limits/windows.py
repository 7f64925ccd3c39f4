"""A sliding window: what was admitted in the last minute, hour or day.

A window is a ring of 116 buckets and their sum. It counts the present bucket and the 115 before
it, so it looks back over the whole period and up to 1/115 of it more: in no span of the period's
length is more admitted than the limit, and what leaves the span is free again at most 0.9% of
the period later. Time is the monotonic clock, which all processes of a machine share.

A record in the table:

    word 0  hash of what it counts        word 3  sum of all buckets
    word 1  number of the newest bucket   word 4  ms at which it may be given to another limit
    word 2  sum of the buckets before it  from word 6: the buckets, 4 bytes each

What the newest bucket has is the difference of the sums, and written into the ring when the next
one begins. So a request that is admitted is one write. A late correction is three: a worker killed
between them leaves the window wrong by that one request, until it leaves the window.
"""

from __future__ import annotations

import struct

from gateway.limits.shared_table import BUCKETS, SharedTable

HEADER_COUNTS = 12
MAX_COUNT = 2**32 - 1
PERIODS_S: dict[str, float] = {"minute": 60.0, "hour": 3600.0, "day": 86400.0}

_ring = struct.Struct(f"={BUCKETS}I").unpack_from
write_head = struct.Struct("=3q").pack_into  # words 1 to 3
_ZEROS = bytes(BUCKETS * 4)


def width_s(window: str) -> float:
    """Seconds in a bucket."""
    return PERIODS_S[window] / (BUCKETS - 1)


def advance(table: SharedTable, at: int, bucket: int) -> int:
    """Begin a bucket: forget those that left the window, take the sum anew; the newest bucket.

    The shard must be locked.
    """
    words, content = table.words, table.content
    newest = words[at + 1]
    passed = bucket - newest
    if -BUCKETS <= passed <= 0:
        return newest  # the machine was started again just so long ago as it ran before
    first = at * 8 + 48
    if not 0 < passed < BUCKETS:
        content[first : first + BUCKETS * 4] = _ZEROS
    else:
        count = min(max(words[at + 3] - words[at + 2], 0), MAX_COUNT)
        table.counts[at * 2 + HEADER_COUNTS + newest % BUCKETS] = count
        begin, end = (newest + 1) % BUCKETS, bucket % BUCKETS
        spans = [(begin, end + 1)] if begin <= end else [(begin, BUCKETS), (0, end + 1)]
        for low, high in spans:
            content[first + low * 4 : first + high * 4] = bytes((high - low) * 4)
    # Until here a worker killed on the way changed nothing that counts.
    before = sum(_ring(content, first))
    write_head(content, at * 8 + 8, bucket, before, before)
    return bucket


def add(table: SharedTable, at: int, bucket: int, count: int) -> None:
    """Add to a bucket that may be past; does nothing when it left the window.

    `count` may be negative. The shard must be locked.
    """
    words = table.words
    passed = words[at + 1] - bucket
    if passed >= BUCKETS:
        return
    if passed <= 0:
        words[at + 3] = max(words[at + 3] + count, words[at + 2])
        return
    slot = at * 2 + HEADER_COUNTS + bucket % BUCKETS
    old = table.counts[slot]
    new = min(max(old + count, 0), MAX_COUNT)
    table.counts[slot] = new
    words[at + 3] += new - old
    words[at + 2] += new - old


def free_after_s(table: SharedTable, at: int, need: int, width: float, now_s: float) -> float:
    """Seconds until `need` of what is counted has left the window; the period when it never does.

    The shard must be locked.
    """
    newest, before, total = table.words[at + 1 : at + 4]
    of_newest = total - before
    ring = _ring(table.content, at * 8 + 48)
    freed = 0
    for bucket in range(newest - BUCKETS + 1, newest + 1):
        freed += ring[bucket % BUCKETS] if bucket < newest else of_newest
        if freed >= need:
            return max((bucket + BUCKETS) * width - now_s, 0.0)
    return BUCKETS * width

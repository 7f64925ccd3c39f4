"""Identifiers: a prefix that says what it is, then 26 characters that sort by time."""

from __future__ import annotations

import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS = tuple(range(120, -1, -10))
# Random numbers of 80 bits, fetched many at once: a call to the kernel each costs more than the
# rest. A process that is forked must not give out its parent's.
_BATCH = 256
_chance: list[int] = []
os.register_at_fork(after_in_child=_chance.clear)


def new_id(prefix: str) -> str:
    """A new identifier such as `dep_01jd6m…` (ULID: 48 bits of ms, 80 bits of chance)."""
    number = (time.time_ns() // 1_000_000) << 80 | _random_80_bits()
    return f"{prefix}_{''.join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])}"


def _random_80_bits() -> int:
    try:
        return _chance.pop()
    except IndexError:
        content = os.urandom(10 * _BATCH)
        fresh = [int.from_bytes(content[at : at + 10]) for at in range(0, len(content), 10)]
        _chance.extend(fresh[1:])
        return fresh[0]

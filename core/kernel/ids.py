"""Identifiers: a prefix that says what it is, then 26 characters that sort by time."""

from __future__ import annotations

import os
import time
from functools import lru_cache

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_CHARACTERS = 16
# The last characters of the time: all that changes within a second.
_ENDS = [a + b for a in _ALPHABET for b in _ALPHABET]
# A random byte → one of 32 characters, each as likely as any other.
_CHARACTER_OF_BYTE = (_ALPHABET * 8).encode()

# Fetched many at once: a call to the kernel for each would cost more than the rest. A process
# that is forked must not give out its parent's.
_BATCH = 256
_random: list[str] = []
os.register_at_fork(after_in_child=_random.clear)


def new_id(prefix: str) -> str:
    """A new identifier such as `dep_01jd6m…` (ULID: 48 bits of ms, 80 bits of chance)."""
    try:
        text = _random.pop()
    except IndexError:
        text = _more_random()
    unix_ms = time.time_ns() // 1_000_000
    return f"{prefix}_{_time_begin(unix_ms >> 10)}{_ENDS[unix_ms & 1023]}{text}"


@lru_cache(maxsize=1)
def _time_begin(unix_ms_by_1024: int) -> str:
    return "".join([_ALPHABET[unix_ms_by_1024 >> shift & 31] for shift in range(35, -1, -5)])


def _more_random() -> str:
    text = os.urandom(_RANDOM_CHARACTERS * _BATCH).translate(_CHARACTER_OF_BYTE).decode()
    starts = range(0, len(text), _RANDOM_CHARACTERS)
    fresh = [text[at : at + _RANDOM_CHARACTERS] for at in starts]
    _random.extend(fresh[1:])
    return fresh[0]

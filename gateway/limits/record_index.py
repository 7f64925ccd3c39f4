"""Finds the records of a shared table by the hash of what they count.

Records are given out one after the other, so that only as much memory is touched as is counted,
and found through slots of 4 bytes with open addressing: 0 is free, else a record's number and 1.
Once all are given out, one that holds nothing any more is given to another limit.
"""

from __future__ import annotations

from collections.abc import Callable

_GONE = 2**32 - 1
_PROBES = 256
_TRIED = 1024


class TableFull(Exception):
    """No record is free for another limit."""


class RecordIndex:
    """The index of one kind of records. Every lock of the table must be held.

    Args:
        words: The table as words of 8 bytes; a record's first word is its hash.
        counts: The table as words of 4 bytes.
        head: The first of two words: how many are given out, and where one was last taken away.
        slots: The first count of the slots, twice as many as there are records.
        records: How many records there are.
        at: Gives the first word of a record.
        clear: Takes all from a record that held another limit.
    """

    def __init__(
        self, words: memoryview, counts: memoryview, head: int, slots: int, records: int,
        at: Callable[[int], int], clear: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._words, self._counts, self._head = words, counts, head
        self._slots, self._records, self._at, self._clear = slots, records, at, clear

    def find(self, key: int) -> int | None:
        """The number of the record of a hash."""
        for slot in self._way(key):
            held = self._counts[slot]
            if not held:
                return None
            if held != _GONE and self._words[self._at(held - 1)] == key:
                return held - 1
        return None

    def take(self, key: int, is_idle: Callable[[int], bool]) -> int:
        """Give a record to a hash that has none; the record's number.

        Args:
            key: The hash.
            is_idle: Whether the record at a word holds nothing any more.

        Raises:
            TableFull: None is free or idle.
        """
        free = next((slot for slot in self._way(key) if self._counts[slot] in (0, _GONE)), None)
        if free is None:
            raise TableFull("the limits' records cannot be found quickly any more")
        used = self._words[self._head]
        if used < self._records:
            record = used
            self._words[self._head] = used + 1
        else:
            record = self._idle(is_idle)
        # A worker killed between these leaves a record that nobody finds, until it is idle.
        self._words[self._at(record)] = key
        self._counts[free] = record + 1
        return record

    def _way(self, key: int) -> range:
        # Wraps by leaving room: the first slot is so chosen that the way never ends at the last.
        most = 2 * self._records
        first = self._slots + key % max(most - _PROBES, 1)
        return range(first, first + min(_PROBES, most))

    def _idle(self, is_idle: Callable[[int], bool]) -> int:
        first = self._words[self._head + 1]
        for tried in range(min(_TRIED, self._records)):
            record = (first + tried) % self._records
            if not is_idle(self._at(record)):
                continue
            self._words[self._head + 1] = record + 1
            for slot in self._way(self._words[self._at(record)]):
                if self._counts[slot] == record + 1:
                    self._counts[slot] = _GONE
                    break
            self._clear(record)
            return record
        self._words[self._head + 1] = first + _TRIED
        raise TableFull(f"all of the {self._records} records for limits are taken")

"""The day and the month in UTC: the periods of budgets."""

from __future__ import annotations

import time
from datetime import UTC, datetime

_DAY_S = 86400


class Calendar:
    """The present day and month; kept until the clock leaves the day.

    Attributes:
        begins_unix_s: When the day began.
        ends_unix_s: When it ends.
        day: Its number since the epoch.
        month: Its month's number.
        month_end_day: The number of the month's last day.
    """

    __slots__ = ("begins_unix_s", "day", "ends_unix_s", "month", "month_end_day")

    def __init__(self, now_unix_s: float) -> None:
        self.turn_to(now_unix_s)

    def turn_to(self, now_unix_s: float) -> None:
        """Take another moment as the present."""
        self.day = int(now_unix_s // _DAY_S)
        self.begins_unix_s = float(self.day * _DAY_S)
        self.ends_unix_s = self.begins_unix_s + _DAY_S
        moment = time.gmtime(now_unix_s)
        self.month = moment.tm_year * 12 + moment.tm_mon - 1
        year, month = divmod(self.month + 1, 12)
        next_month = datetime(year, month + 1, 1, tzinfo=UTC).timestamp()
        self.month_end_day = int(next_month // _DAY_S) - 1

    def period(self, window: str) -> int:
        """The number of the present day or month."""
        return self.month if window == "month" else self.day

    def last_day(self, window: str) -> int:
        """The number of the last day of the present day or month."""
        return self.month_end_day if window == "month" else self.day

    def left_s(self, window: str, now_unix_s: float) -> float:
        """Seconds until the present day or month is over, 1 at least."""
        return max((self.last_day(window) + 1) * _DAY_S - now_unix_s, 1.0)

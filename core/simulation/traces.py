"""Traces of requests to replay: when each arrives, and how long its prompt and answer are."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import numpy.typing as npt

from core.kernel.errors import InvalidInput, NotFound, TooLarge
from core.simulation.scenarios import Floats, Ints
from core.simulation.workloads import Workload

MAX_BYTES = 256_000_000
MAX_REQUESTS = 2_000_000
MAX_TOKENS = 10_000_000
MAX_DURATION_S = 31 * 86_400.0

_FOLDER = Path(__file__).parent / "data" / "traces"
# Column names in lower case without punctuation; arrivals with their unit in seconds.
_ARRIVALS = {
    **dict.fromkeys(("arrivals", "arrivaltimes", "times", "timestamps", "arrivedat"), 1.0),
    **dict.fromkeys(("arrival", "arrivaltime", "time", "timestamp"), 1.0),
    **dict.fromkeys(("arrivalms", "arrivaltimems", "timems", "timestampms"), 1e-3),
}
_INPUTS = (
    *("inputtokens", "inputlength", "inputlen", "contexttokens", "prompttokens", "promptlen"),
    *("numprefilltokens", "isl", "input"),
)
_OUTPUTS = (
    *("outputtokens", "outputlength", "outputlen", "generatedtokens", "completiontokens"),
    *("numdecodetokens", "osl", "output"),
)
_UTC = re.compile(r"(?:Z|[+-]00:?00)$")
_REMEDY = (
    "A trace is a CSV file with a header and the columns arrival_s, input_tokens and output_tokens."
)


@dataclass(frozen=True)
class Trace:
    """Requests in the order in which they arrive; the three columns have equal length.

    Attributes:
        name: What a person calls it.
        arrival_s: Seconds since the trace's beginning, not negative.
        input_tokens: Length of each prompt.
        output_tokens: Length of each answer.
        source: Where it comes from, with its licence; empty for a person's own.
    """

    name: str
    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    source: str = ""

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def duration_s(self) -> float:
        """Seconds until the last arrival."""
        return float(self.arrival_s[-1])

    @property
    def requests_per_s(self) -> float:
        """Mean rate of arrival; of one request a second where all arrive at once."""
        return len(self) / self.duration_s if self.duration_s else float(len(self))

    def at_rate(self, factor: float) -> Trace:
        """The same requests, `factor` times as fast."""
        if not 0.001 <= factor <= 1000:
            raise InvalidInput(
                "A rate can be scaled by 0.001 to 1000.", value=factor, remedy="Try 2."
            )
        name = self.name if factor == 1 else f"{self.name} × {factor:g}"
        return replace(self, name=name, arrival_s=self.arrival_s / factor)

    def window(self, start_s: float, end_s: float) -> Trace:
        """The requests from `start_s` up to `end_s`, which then start at 0."""
        first, end = np.searchsorted(self.arrival_s, (start_s, end_s))
        if not 0 <= start_s < end_s or first == end:
            raise InvalidInput(
                f"No request arrives between {start_s:g} and {end_s:g} s.",
                remedy=f"{self.name} goes from 0 to {self.duration_s:,.0f} s.",
            )
        chosen = slice(int(first), int(end))
        return replace(
            self,
            name=f"{self.name}, {start_s:g} to {end_s:g} s",
            arrival_s=self.arrival_s[chosen] - start_s,
            input_tokens=self.input_tokens[chosen],
            output_tokens=self.output_tokens[chosen],
        )


SHIPPED = {
    "azure-code": "Azure code completion, 2023",
    "azure-conversation": "Azure conversation, 2023",
    "mooncake-conversation": "Mooncake conversation, 2024",
}


def shipped(trace_id: str) -> Trace:
    """A trace that ships with Bud; SHIPPED has their ids and names."""
    if trace_id not in SHIPPED:
        near = difflib.get_close_matches(trace_id, SHIPPED, 1, 0.0)
        raise NotFound(
            f"There is no trace {trace_id[:60]!r}.",
            remedy=f"The nearest is {near[0]}; there are: {', '.join(SHIPPED)}.",
        )
    return load(_FOLDER / f"{trace_id}.parquet")


def load(path: Path) -> Trace:
    """A trace from the Parquet file that `save` writes."""
    # Imported here: it takes half a second, and most of what imports this module reads no trace.
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    said = table.schema.metadata
    # Arrivals are kept as whole steps from one to the next, which compresses well.
    return Trace(
        name=said[b"name"].decode(),
        arrival_s=np.cumsum(table["step_us"].to_numpy().astype(np.int64)) / 1e6,
        input_tokens=table["input_tokens"].to_numpy().astype(np.int64),
        output_tokens=table["output_tokens"].to_numpy().astype(np.int64),
        source=said[b"source"].decode(),
    )


def save(trace: Trace, path: Path) -> None:
    """Write a trace as Parquet, its name and source in the schema's metadata; to 1 µs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrival_us = np.round(trace.arrival_s * 1e6).astype(np.int64)
    columns = {
        "step_us": np.diff(arrival_us, prepend=0),
        "input_tokens": trace.input_tokens.astype(np.int32),
        "output_tokens": trace.output_tokens.astype(np.int32),
    }
    table = pa.table(columns).replace_schema_metadata({"name": trace.name, "source": trace.source})
    pq.write_table(table, path, compression="zstd")


def read(content: bytes, name: str) -> Trace:
    """A trace from a person's CSV, or from JSON lines as Mooncake's.

    Columns go by several names, in any order: arrival_s (also TIMESTAMP with dates, or numbers in
    seconds; `timestamp` of JSON lines and names in `_ms` are milliseconds), input_tokens
    (ContextTokens, input_length …) and output_tokens (GeneratedTokens, output_length …). Arrivals
    need not be sorted; the first becomes 0.

    Raises:
        InvalidInput: With the row (the header is row 1), the column and the value at fault.
        TooLarge: Over MAX_BYTES or MAX_REQUESTS.
    """
    if len(content) > MAX_BYTES:
        raise TooLarge(
            f"{name} has {len(content) / 1e6:,.0f} MB, more than the {MAX_BYTES / 1e6:,.0f} MB "
            "that a trace may have.",
            remedy="Cut it, or leave out columns other than arrival, input and output tokens.",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{name} is no text file in UTF-8 (byte {error.start:,}).", remedy=_REMEDY
        ) from None
    if not text.strip():
        raise InvalidInput(f"{name} is empty.", remedy=_REMEDY)
    table = _json_lines(text) if text.lstrip().startswith("{") else _csv(text)
    return _checked(name, table)


@dataclass(frozen=True)
class _Table:
    """Texts or numbers of the three columns, under the names they have in the file."""

    names: tuple[str, str, str]
    columns: tuple[list[Any], list[Any], list[Any]]
    unit_s: float
    first_row: int


def _csv(text: str) -> _Table:
    lines = csv.reader(io.StringIO(text.strip()), skipinitialspace=True)
    header = next(lines)
    places = _places(header)
    rows = list(_limited(lines))
    if not rows:
        raise InvalidInput("There is a header, but no request below it.", remedy=_REMEDY)
    needed = max(places)
    for number, row in enumerate(rows, 2):
        if len(row) <= needed:
            raise InvalidInput(
                f"Row {number:,} has {len(row)} columns, the header {len(header)}.", remedy=_REMEDY
            )
    arrivals, inputs, outputs = ([row[place] for row in rows] for place in places)
    names = (header[places[0]], header[places[1]], header[places[2]])
    return _Table(names, (arrivals, inputs, outputs), _ARRIVALS[_bare(names[0])], 2)


def _limited(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    for number, row in enumerate(rows):
        if number >= MAX_REQUESTS:
            raise TooLarge(
                f"There are more than {MAX_REQUESTS:,} requests.", remedy="Cut the trace."
            )
        yield row


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _places(header: Sequence[str]) -> tuple[int, int, int]:
    bare = [_bare(name) for name in header]

    def place(known: Sequence[str], wanted: str) -> int:
        found = [number for number, name in enumerate(bare) if name in known]
        if len(found) == 1:
            return found[0]
        said = ", ".join(header)[:200]
        problem = f"No column is {wanted}" if not found else f"{len(found)} columns are {wanted}"
        raise InvalidInput(f"{problem}. The header is: {said}.", remedy=_REMEDY)

    return (
        place(list(_ARRIVALS), "arrival_s"),
        place(_INPUTS, "input_tokens"),
        place(_OUTPUTS, "output_tokens"),
    )


class _Line(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int


def _json_lines(text: str) -> _Table:
    decode = msgspec.json.Decoder(_Line).decode
    found: list[_Line] = []
    for number, line in enumerate(text.strip().splitlines(), 1):
        try:
            found.append(decode(line))
        except msgspec.MsgspecError as error:
            raise InvalidInput(
                f"Row {number:,} cannot be read: {error}.",
                value=line[:80],
                remedy="A line is an object with timestamp (ms), input_length and output_length.",
            ) from None
        if len(found) > MAX_REQUESTS:
            raise TooLarge(
                f"There are more than {MAX_REQUESTS:,} requests.", remedy="Cut the trace."
            )
    columns = (
        [line.timestamp for line in found],
        [line.input_length for line in found],
        [line.output_length for line in found],
    )
    return _Table(("timestamp", "input_length", "output_length"), columns, 1e-3, 1)


def _checked(name: str, table: _Table) -> Trace:
    arrival_s = _arrivals(table)
    inputs = _tokens(table, 1)
    outputs = _tokens(table, 2)
    order = np.argsort(arrival_s, kind="stable")
    arrival_s = arrival_s[order] - arrival_s[order[0]]
    if arrival_s[-1] > MAX_DURATION_S:
        raise InvalidInput(
            f"{name} spans {arrival_s[-1] / 86_400:,.0f} days; a replay takes at most "
            f"{MAX_DURATION_S / 86_400:.0f}.",
            remedy=f"Is {table.names[0]} in milliseconds? Call the column arrival_ms then.",
        )
    return Trace(name, arrival_s, inputs[order], outputs[order])


def _arrivals(table: _Table) -> Floats:
    texts = table.columns[0]
    if isinstance(texts[0], str) and not _is_number(texts[0]):
        return _dates(table)
    values = _numbers(table, 0)
    return values * table.unit_s


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _dates(table: _Table) -> Floats:
    def parse(texts: list[str]) -> npt.NDArray[Any]:
        # The same zone throughout, so that it may be left out.
        return np.array([_UTC.sub("", text.strip()) for text in texts], "datetime64[ns]")

    dates = _parsed(table, 0, parse, "a number of seconds or a date such as 2023-11-16 18:15:46")
    missing = np.isnat(dates)
    if missing.any():
        _refuse(table, 0, int(np.argmax(missing)), "is no date")
    first = dates.min()
    found: Floats = (dates - first).astype(np.int64) / 1e9
    return found


def _numbers(table: _Table, column: int) -> Floats:
    values: Floats = _parsed(
        table, column, lambda texts: np.array(texts, dtype=np.float64), "a number"
    )
    wrong = ~np.isfinite(values)
    if wrong.any():
        _refuse(table, column, int(np.argmax(wrong)), "is not finite")
    return values


def _parsed(
    table: _Table, column: int, parse: Callable[[list[Any]], npt.NDArray[Any]], wanted: str
) -> npt.NDArray[Any]:
    """All values at once, which is fast; only to find the one at fault, one by one."""
    values = table.columns[column]
    try:
        return parse(values)
    except (ValueError, OverflowError):
        pass
    for row, value in enumerate(values):
        try:
            parse([value])
        except (ValueError, OverflowError):
            _refuse(table, column, row, f"is not {wanted}")
    raise InvalidInput(f"{table.names[column]} cannot be read.", remedy=_REMEDY)


def _tokens(table: _Table, column: int) -> Ints:
    values = _numbers(table, column)
    for wrong, why in (
        (values < 0, "is negative"),
        (values < 1, "is 0: leave requests that failed out"),
        (values > MAX_TOKENS, f"is over {MAX_TOKENS:,} tokens"),
        (values != np.round(values), "is no whole number"),
    ):
        if wrong.any():
            _refuse(table, column, int(np.argmax(wrong)), why)
    return values.astype(np.int64)


def _refuse(table: _Table, column: int, row: int, why: str) -> NoReturn:
    value = str(table.columns[column][row])[:60]
    raise InvalidInput(
        f"Row {row + table.first_row:,}, column {table.names[column]}: {value!r} {why}.",
        remedy="Correct the row or remove it.",
    )


def synthetic(
    workload: Workload,
    *,
    requests_per_s: float,
    duration_s: float,
    burstiness: float = 1.0,
    length_variation: float = 0.5,
    seed: int = 0,
) -> Trace:
    """Requests of a workload that arrive by chance.

    Args:
        workload: Its mean lengths.
        requests_per_s: Mean rate.
        duration_s: How long requests arrive, in seconds.
        burstiness: Coefficient of variation of the time between arrivals: 1 is a Poisson process,
            more comes in bursts (Gamma-distributed gaps), 0 is a clock.
        length_variation: Coefficient of variation of both lengths (log-normal); 0 is fixed ones.
        seed: The same seed gives the same trace.
    """
    expected = requests_per_s * duration_s
    _within("requests_per_s", requests_per_s, 1e-6, 1e6)
    _within("duration_s", duration_s, 1.0, MAX_DURATION_S)
    _within("burstiness", burstiness, 0.0, 10.0)
    _within("length_variation", length_variation, 0.0, 5.0)
    if expected > MAX_REQUESTS:
        raise TooLarge(
            f"That is {expected:,.0f} requests; a trace has at most {MAX_REQUESTS:,}.",
            remedy="Lower the rate or the duration.",
        )
    random = np.random.default_rng(seed)
    # Gaps until past the end, with six standard deviations to spare.
    count = int(expected + 6 * max(burstiness, 0.1) * np.sqrt(expected) + 20)
    if burstiness:
        gaps = random.gamma(burstiness**-2, burstiness**2 / requests_per_s, count)
    else:
        gaps = np.full(count, 1 / requests_per_s)
    arrival_s = np.cumsum(gaps)
    arrival_s = arrival_s[: max(1, int(np.searchsorted(arrival_s, duration_s)))]
    count = len(arrival_s)
    return Trace(
        name=f"{workload.name}, {requests_per_s:g} requests/s",
        arrival_s=arrival_s,
        input_tokens=_lengths(random, workload.isl, length_variation, count),
        output_tokens=_lengths(random, workload.osl, length_variation, count),
        source=f"synthetic, seed {seed}",
    )


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidInput(
            f"{name} must be from {low:g} to {high:g}.", value=value, remedy="Choose another."
        )


def _lengths(random: np.random.Generator, mean: int, variation: float, count: int) -> Ints:
    sigma = np.sqrt(np.log1p(variation**2))
    drawn = random.lognormal(np.log(mean) - sigma**2 / 2, sigma, count)
    return np.clip(np.round(drawn), 1, MAX_TOKENS).astype(np.int64)

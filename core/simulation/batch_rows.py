"""Rows of text, as in the measured files, read into scenarios.

Names go by `Subjects`, the catalogue's aliases and the data files' own words; each different text
is looked up once, so that a hundred thousand rows take moments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.kernel.errors import BudError, InvalidInput, NotFound
from core.simulation import architectures
from core.simulation.cleaning import devices_of
from core.simulation.scenarios import (
    ENGINES,
    MODES,
    PRECISIONS,
    SPECULATION,
    UNKNOWN,
    Floats,
    Ints,
    Scenarios,
    from_columns,
    version_number,
)
from core.simulation.subjects import Subjects

SIDES = ("prefill", "decode")
REQUIRED = (
    *("model", "system", "engine", "precision", "mode", "isl", "osl", "concurrency"),
    *("tp", "pp", "ep", "dp"),
)
_SIDE_COUNTS = ("workers", "tp", "pp", "ep", "dp")
OPTIONAL = (
    *("engine_version", "spec_decoding", "replicas"),
    *(f"{side}_{name}" for side in SIDES for name in _SIDE_COUNTS),
)

# What a figure may be, and what a blank one stands for (None: it may not be blank). More than
# any deployment there is, to catch a wrong unit or a slip.
_RANGES: Mapping[str, tuple[float, float, float | None]] = {
    "isl": (1, 10_000_000, None),
    "osl": (1, 10_000_000, None),
    "concurrency": (1, 1_000_000, None),
    "tp": (1, 1024, 1),
    "pp": (1, 64, 1),
    "ep": (0, 1024, 1),
    "dp": (0, 1024, 0),
    "replicas": (1, 10_000, 1),
    **{f"{side}_workers": (0, 10_000, 0) for side in SIDES},
    **{f"{side}_tp": (1, 1024, 0) for side in SIDES},
    **{f"{side}_pp": (1, 64, 1) for side in SIDES},
    **{f"{side}_ep": (0, 1024, 1) for side in SIDES},
    **{f"{side}_dp": (0, 1024, 0) for side in SIDES},
}
_MEANS = ("isl", "osl")  # the rest are whole numbers

# Words that name an engine in the data files: `dynamo-trt`, `sglang-disagg`, `Deepspeed-MII`.
_ENGINE_WORDS = {
    **{name: name for name in ENGINES},
    **dict.fromkeys(("trt", "tensorrt", "trtllm"), "trtllm"),
    **dict.fromkeys(("llamacpp", "llama", "xllamacpp"), "llama.cpp"),
}
_MODE_NAMES = {"": "agg", "agg": "agg", "aggregated": "agg"}
_MODE_NAMES |= dict.fromkeys(("disagg", "disaggregated", "pd"), "disagg")
_SPECULATION_NAMES = {"": "unknown", "unknown": "unknown"}
_SPECULATION_NAMES |= dict.fromkeys(("none", "no", "off", "false"), "none")
_SPECULATION_NAMES |= dict.fromkeys(("mtp", "nextn", "eagle", "eagle3", "on", "true"), "mtp")

Texts = npt.NDArray[np.object_]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Asked:
    """The rows of a table: what can be predicted, and what is to be said of each.

    `scenarios` has an entry for each True of `is_good`; the texts one for each row, "" for none.
    `is_startable` is False where no engine would start the configuration.
    """

    scenarios: Scenarios
    is_good: Booleans
    is_startable: Booleans
    errors: Texts
    notes: Texts


def join(texts: Texts, row: int, text: str) -> None:
    """Add a remark to those of a row."""
    texts[row] = f"{texts[row]}; {text}" if texts[row] else text


def plain_name(column: str) -> str:
    """A column's name, whatever its case and the spaces around it."""
    return column.strip().lower()


class _Reader:
    """Columns of text as numbers and indexes; what cannot be read becomes the row's error."""

    def __init__(self, table: pd.DataFrame, broken: Texts | None) -> None:
        self._columns = {plain_name(str(name)): table[name] for name in table.columns}
        self.rows = len(table)
        self.notes: Texts = np.full(self.rows, "", dtype=object)
        self.errors = self.notes.copy() if broken is None else broken.copy()

    def text(self, name: str) -> pd.Series[Any]:
        column = self._columns.get(name)
        if column is None:
            return pd.Series([""] * self.rows, dtype=object)
        return column.reset_index(drop=True).astype(str).str.strip()

    def indexes(self, name: str, find: Callable[[str], int]) -> Ints:
        """What `find` makes of each cell; it is called once for each different text."""
        codes, texts = pd.factorize(self.text(name))
        found: Ints = np.zeros(len(texts), dtype=np.int64)
        for code, text in enumerate(texts):
            try:
                found[code] = find(text)
            except BudError as error:
                self.fail(codes == code, str(error))
        indexes: Ints = found[codes]
        return indexes

    def numbers(self, name: str, relevant: Booleans | None = None) -> Floats:
        """Figures within their range; rows that are not `relevant` are not looked at."""
        least, most, blank = _RANGES[name]
        text = self.text(name)
        values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
        is_blank = (text == "").to_numpy()
        looked_at = np.full(self.rows, True) if relevant is None else relevant
        if blank is None:
            self.fail(is_blank & looked_at, f"{name} is blank")
        given = looked_at & ~is_blank
        is_number = np.isfinite(values)
        self._fail_each(given & ~is_number, f"{name} is no number", text)
        outside = given & is_number & ((values < least) | (values > most))
        self._fail_each(outside, f"{name} must be {least:,.0f} to {most:,.0f}", text)
        if name not in _MEANS:
            broken = given & is_number & ~outside & (values != np.floor(values))
            self._fail_each(broken, f"{name} must be a whole number", text)
        return np.where(given & is_number, values, 1.0 if blank is None else blank)

    def _fail_each(self, where: Booleans, what: str, text: pd.Series[Any]) -> None:
        for row in np.flatnonzero(where).tolist():
            join(self.errors, row, f"{what} (got: {text.iloc[row][:40]})")

    def fail(self, where: Booleans, what: str) -> None:
        for row in np.flatnonzero(where).tolist():
            join(self.errors, row, what)

    def note(self, where: Booleans, what: str) -> None:
        for row in np.flatnonzero(where).tolist():
            join(self.notes, row, what)


def ask(
    table: pd.DataFrame,
    subjects: Subjects,
    *,
    broken: Texts | None = None,
    counted_as_measured: bool = True,
) -> Asked:
    """What a table asks; see `answer`.

    Args:
        table: Text cells.
        subjects: What may be named.
        broken: What is wrong with a row besides its values.
        counted_as_measured: Whether tp × dp may name a device twice, as the measured files do.
    """
    reader = _Reader(table, broken)
    columns: dict[str, npt.NDArray[Any]] = {
        "model": reader.indexes("model", _named("model", subjects.find_model)),
        "system": reader.indexes("system", _named("system", subjects.find_system)),
        "engine": reader.indexes("engine", engine_index),
        "mode": reader.indexes("mode", lambda text: _choice("mode", text, _MODE_NAMES, MODES)),
        "speculation": reader.indexes(
            "spec_decoding",
            lambda text: _choice("spec_decoding", text, _SPECULATION_NAMES, SPECULATION),
        ),
        **{name: reader.numbers(name) for name in ("isl", "osl", "concurrency", "replicas")},
    }
    columns["precision"] = _precisions(reader)
    columns["engine_version"] = _versions(reader, columns["engine"])
    is_split = columns["mode"] == MODES.index("disagg")
    columns |= _aggregated(reader, is_split, counted_as_measured)
    columns |= _disaggregated(reader, is_split)
    is_good = reader.errors == ""
    scenarios = from_columns(columns).take(is_good)
    is_startable = np.full(reader.rows, True)
    is_startable[is_good] = _startable(reader, scenarios, subjects, np.flatnonzero(is_good))
    return Asked(scenarios, is_good, is_startable, reader.errors, reader.notes)


def _named(what: str, find: Callable[[str], int]) -> Callable[[str], int]:
    def find_named(text: str) -> int:
        if not text:
            raise InvalidInput(f"{what} is blank.")
        return find(text)

    return find_named


def engine_index(name: str) -> int:
    """The engine of a name, as one of ENGINES: `vLLM`, `dynamo-trt` and such.

    Raises:
        NotFound: There is none.
    """
    words = [name.strip().lower(), *re.split(r"[-_\s]+", name.strip().lower())]
    found = {_ENGINE_WORDS[word] for word in words if word in _ENGINE_WORDS}
    if len(found) != 1:
        raise NotFound(
            f"There is no engine {name[:60]!r}.", remedy=f"There are: {', '.join(ENGINES)}."
        )
    return ENGINES.index(found.pop())


def _choice(what: str, text: str, names: Mapping[str, str], choices: tuple[str, ...]) -> int:
    found = names.get(text.lower())
    if found is None:
        raise NotFound(
            f"There is no {what} {text[:60]!r}.", remedy=f"There are: {', '.join(choices)}."
        )
    return choices.index(found)


def precision_index(name: str) -> int:
    """The precision of a name such as `NVFP4` or `awq`, as one of PRECISIONS; "" is UNKNOWN.

    Raises:
        NotFound: There is none.
    """
    if name.lower() in ("", "unknown", "auto"):
        return UNKNOWN
    found = architectures.precision_hint(f"x-{name}")
    if found is None:
        raise NotFound(
            f"There is no precision {name[:60]!r}.", remedy=f"There are: {', '.join(PRECISIONS)}."
        )
    return PRECISIONS.index(found)


def _precisions(reader: _Reader) -> Ints:
    """As given; where blank, what the model's name says (`…-NVFP4`), else unknown."""
    given = reader.indexes("precision", precision_index)
    codes, names = pd.factorize(reader.text("model"))
    hints = [architectures.precision_hint(name) for name in names]
    hinted = np.array([PRECISIONS.index(hint) if hint else UNKNOWN for hint in hints])
    from_name = hinted[codes] if reader.rows else given
    return np.where(given == UNKNOWN, from_name, given)


def version_text(text: str) -> str:
    """An engine's version without what stands around it: `0.19.0` of `vllm/vllm-openai:v0.19.0`."""
    return text.strip().rsplit(":", 1)[-1].lower().lstrip("v")


def _versions(reader: _Reader, engine: Ints) -> Floats:
    """Versions as numbers; a container image's tag will do."""
    codes, texts = pd.factorize(reader.text("engine_version"))
    pairs, places = np.unique(np.stack([engine, codes]), axis=1, return_inverse=True)
    found = [version_number(ENGINES[number], version_text(texts[code])) for number, code in pairs.T]
    return np.array(found, dtype=np.float64)[places.reshape(-1)]


def _aggregated(
    reader: _Reader, is_split: Booleans, counted_as_measured: bool
) -> dict[str, Floats]:
    """tp, pp, ep and dp of aggregated rows; 1 in disaggregated ones."""
    is_whole = ~is_split
    tp, pp, ep, dp = (reader.numbers(name, is_whole) for name in ("tp", "pp", "ep", "dp"))
    ep = np.maximum(1.0, ep)
    written = _devices(tp, dp)
    devices = _as_measured(tp, dp, ep) if counted_as_measured else written
    for row in np.flatnonzero(is_whole & (written != devices)).tolist():
        text = f"{written[row]:.0f} devices count some twice: taken as {devices[row]:.0f}"
        join(reader.notes, row, text)
    return {
        "tp": np.where(is_split, 1.0, devices),
        "pp": np.where(is_split, 1.0, pp),
        "ep": np.where(is_split, 1.0, np.minimum(ep, devices)),
        "dp": np.where(is_split, 1.0, np.minimum(dp, devices)),
    }


def _devices(tp: Floats, dp: Floats) -> Floats:
    """Of one copy: tp = dp is one way to write that attention is data parallel over all."""
    ranks = np.maximum(1.0, dp)
    return np.where(tp == ranks, tp, tp * ranks)


def _as_measured(tp: Floats, dp: Floats, ep: Floats) -> Floats:
    """Devices as the cleaning of the measured files counts them, once a combination."""
    kinds, places = np.unique(np.stack([tp, dp, ep]), axis=1, return_inverse=True)
    found = [devices_of(*(int(value) for value in kind))[0] for kind in kinds.T]
    return np.array(found, dtype=np.float64)[places.reshape(-1)]


def _disaggregated(reader: _Reader, is_split: Booleans) -> dict[str, Floats]:
    """The columns of both sides; zeros in aggregated rows."""
    columns: dict[str, Floats] = {}
    for side in SIDES:
        workers, tp, pp, ep, dp = (
            reader.numbers(f"{side}_{name}", is_split) for name in _SIDE_COUNTS
        )
        reader.note(is_split & (tp == 0), f"{side}_tp is not given: taken as 1")
        tp, ep = np.maximum(1.0, tp), np.maximum(1.0, ep)
        attention = _devices(tp, dp)
        # Experts spread over more devices than attention names: every one is a rank of its own.
        devices = np.maximum(attention, ep)
        ranks = np.where(devices > attention, devices, np.clip(dp, 1.0, devices))
        # `8 devices, experts 2 x 4` is written `ep 4`; each device holds some experts of its own.
        ep = np.where((ep > 1) & (ep < devices), devices, ep)
        values = {"workers": workers, "tp": devices, "pp": pp, "ep": ep, "dp": ranks}
        columns |= {
            f"{side}_{name}": np.where(is_split, value, 0.0) for name, value in values.items()
        }
    return columns


def _startable(reader: _Reader, scenarios: Scenarios, subjects: Subjects, rows: Ints) -> Booleans:
    """Whether the attention heads can be shared out; notes on what cannot, and on long inputs."""
    table = subjects.models.columns
    heads = table["heads"][scenarios.model]
    is_startable = np.full(len(scenarios), True)
    for side in ("", "prefill_", "decode_"):
        tp, dp = (np.maximum(1.0, getattr(scenarios, f"{side}{name}")) for name in ("tp", "dp"))
        is_odd = (heads % np.maximum(1.0, tp / dp)) != 0
        is_startable &= ~is_odd
        for index in np.flatnonzero(is_odd).tolist():
            text = f"{side}tp {tp[index]:.0f} cannot share {heads[index]:.0f} attention heads"
            join(reader.notes, rows[index], f"{text}: no engine would start it")
    longest, tokens = table["max_context"][scenarios.model], scenarios.isl + scenarios.osl
    for index in np.flatnonzero((longest > 0) & (tokens > longest)).tolist():
        text = f"{tokens[index]:,.0f} tokens are over the model's {longest[index]:,.0f}"
        join(reader.notes, rows[index], text)
    return is_startable

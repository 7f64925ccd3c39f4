"""What looks at the bytes of one file, or of one member of an archive, as they pass by."""

from __future__ import annotations

import bz2
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, Protocol

from core.registry.scanners import archives, pickles
from core.registry.scanners.archives import Bomb, Unpacker, Unreadable, bomb
from core.registry.scanners.report import Finding, Severity
from core.registry.scanners.secrets import SecretReader

HEAD_BYTES = 8192
PICKLE_SUFFIXES = frozenset({
    ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".dat", ".data", ".pk",
    ".p", ".sav", ".t7", ".npy",
})  # fmt: skip
_NEVER_PICKLES = frozenset({".safetensors", ".gguf", ".onnx", ".pb", ".h5", ".hdf5"})
_NUMPY = b"\x93NUMPY"
_UNPACKERS: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(zlib.MAX_WBITS | 16)),
    (b"\x78\x01", zlib.decompressobj),
    (b"\x78\x5e", zlib.decompressobj),
    (b"\x78\x9c", zlib.decompressobj),
    (b"\x78\xda", zlib.decompressobj),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ", lzma.LZMADecompressor),
)
_UNREAD = {b"\x04\x22\x4d\x18": "LZ4", b"\x28\xb5\x2f\xfd": "Zstandard", b"7z\xbc\xaf": "7z",
           b"Rar!": "RAR"}  # fmt: skip
_MAX_JSON_BYTES = 4 << 20
_MAX_JSON_VALUES = 500_000


class Reader(Protocol):
    """A sink that knows what its bytes mean when they have all passed."""

    scanner: str

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""

    def close(self) -> None:
        """There are no more."""

    def findings(self, file: str) -> list[Finding]:
        """What was found."""

    def failure(self) -> str:
        """Why it could not look at everything; empty when it did."""

    def is_done(self) -> bool:
        """Whether more bytes would change nothing."""


def readers_for(name: str, head: bytes, *, is_weights: bool = False) -> list[Reader]:
    """The readers that a file needs, by its name and its first `HEAD_BYTES` bytes.

    Args:
        name: The file's name.
        head: Its beginning.
        is_weights: Whether it is a well-formed safetensors or GGUF file, which holds numbers only.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if is_weights or head.startswith(b"PK\x03\x04"):
        return []
    readers: list[Reader] = []
    if is_text(head):
        readers.append(Secrets())
        if suffix == ".json" and not name.endswith(("tokenizer.json", "vocab.json")):
            readers.append(Configuration(PurePosixPath(name).name))
        if "chat_template" in name or name.endswith("tokenizer_config.json"):
            readers.append(template())
    if suffix in (".h5", ".hdf5", ".keras", ".pb", ".onnx", ".json"):
        readers.append(Patterns(_OPERATORS))
    is_expected = suffix in PICKLE_SUFFIXES
    if is_expected or (suffix not in _NEVER_PICKLES and _may_be_pickle(name, head)):
        readers.append(Pickles(head, expected=is_expected))
    return readers


def _may_be_pickle(name: str, head: bytes) -> bool:
    """Whether a file whose name says nothing of it may be one."""
    if is_text(head):
        # Protocols 0 and 1 have no mark of their own; an import in them is `c`, two lines.
        return re.search(rb"[ci][A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n", head) is not None
    return not archives.is_archive(name, head)


def is_text(head: bytes) -> bool:
    """Whether the beginning of a file is text in UTF-8."""
    if b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # The last character may be cut in two.
        return error.start >= len(head) - 3 and len(head) >= HEAD_BYTES
    return True


class Secrets(SecretReader):
    """Keys and passwords in text."""

    scanner = "secrets"

    def close(self) -> None:
        """There are no more bytes."""

    def failure(self) -> str:
        """It always looks at everything."""
        return ""

    def is_done(self) -> bool:
        """A secret or a pattern may come at any place."""
        return False


class Pickles:
    """A file that may be a pickle, an array with objects, or either of them packed.

    Args:
        head: The beginning of the file.
        expected: Whether its name says that it is one; others are reported only when they are.
    """

    scanner = "pickles"

    def __init__(self, head: bytes, *, expected: bool) -> None:
        self._reader = pickles.PickleReader()
        self._expected = expected
        self._head = b"" if head.startswith(_NUMPY) else None
        self._is_plain_array = False
        self._unread = next((kind for magic, kind in _UNREAD.items() if head.startswith(magic)), "")
        make = next((make for magic, make in _UNPACKERS if head.startswith(magic)), None)
        self._unpacker = Unpacker(make) if make is not None else None
        self._bomb = ""
        self._broken = ""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if self._unread or self._bomb or self._broken:
            return
        if self._unpacker is None:
            self._take(chunk)
            return
        try:
            for piece in self._unpacker.pieces(chunk):
                self._take(piece)
        except Bomb as error:
            self._bomb = str(error)
        except Unreadable as error:
            self._broken = str(error)

    def _take(self, piece: bytes) -> None:
        if self._is_plain_array:
            return
        if self._head is None:
            self._reader.feed(piece)
            return
        self._head += piece
        start = _end_of_array_header(self._head)
        if start is not None:
            header, rest, self._head = self._head[:start], self._head[start:], None
            self._is_plain_array = re.search(rb"""['"][|<>=]?O\d*['"]""", header) is None
            self._take(rest)

    def close(self) -> None:
        """There are no more bytes."""
        self._reader.close()

    def findings(self, file: str) -> list[Finding]:
        """What its imports mean."""
        if self._bomb:
            return [bomb(file, self._bomb)]
        if not self._expected and not self._is_surely_pickle():
            return []
        found = pickles.findings(self._reader, file)
        if found and self._reader.error and not self._reader.pickles:
            found.append(
                Finding(
                    severity="medium",
                    kind="malformed",
                    file=file,
                    what=f"It begins as a pickle and breaks off: {self._reader.error}.",
                    remedy="Compare its checksum with the publisher's.",
                )
            )
        return found

    def is_done(self) -> bool:
        """Whether the pickle ended, or was none."""
        gave_up = bool(self._unread or self._bomb or self._broken or self._is_plain_array)
        return gave_up or self._reader.is_done

    def _is_surely_pickle(self) -> bool:
        imports = self._reader.plausible_imports
        if self._reader.pickles and imports:
            return True
        severities = map(pickles.severity_of, imports)
        return any(severity in ("critical", "high") for severity in severities)

    def failure(self) -> str:
        """Why not everything was followed."""
        if self._unread and (self._expected or self._unread in ("7z", "RAR")):
            return f"it is packed with {self._unread}, which is not read"
        if self._broken:
            return self._broken if self._expected else ""
        relevant = self._expected or self._reader.is_pickle
        if relevant and not self._reader.is_read:
            return str(self._reader.error)
        return ""


def _end_of_array_header(head: bytes) -> int | None:
    """Where the data of a .npy begins; None while bytes are missing (numpy.lib.format)."""
    if len(head) < 12:
        return None
    width = 2 if head[6] == 1 else 4
    end = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    return end if len(head) >= end else None


# --- patterns --------------------------------------------------------------------------------

_Pattern = tuple[re.Pattern[bytes], Severity, str, str, str]

# Jinja templates that climb from a value to the interpreter, CVE-2024-34359 among them.
_TEMPLATE_TRICKS: tuple[_Pattern, ...] = (
    (
        re.compile(rb"__(?:class|globals|subclasses|mro|bases|import|builtins|init)__|\|\s*attr\("),
        "critical",
        "template",
        "Its chat template reaches for the insides of Python ({found}).",
        "Do not use this template; take that of the original model.",
    ),
)
_OPERATORS: tuple[_Pattern, ...] = (
    (
        re.compile(rb'"class_name"\s*:\s*"(?:\w+>)?Lambda"'),
        "high",
        "keras-lambda",
        "It has a Keras Lambda layer, whose code runs when the model is loaded.",
        "Load it with safe_mode=True only, or ask for a version without that layer.",
    ),
    (
        # Field 2 (`op`) of a NodeDef in TensorFlow's graph.proto, with its length.
        re.compile(
            rb"\x12(?:\x08ReadFile|\x09WriteFile|\x06PyFunc|\x0bEagerPyFunc|\x0fPyFuncStateless"
            rb"|\x0dMatchingFiles|\x0eSaveSlicesFile)"
        ),
        "high",
        "tensorflow-operator",
        "Its graph has an operator that reads or writes files, or calls Python ({found}).",
        "Do not run it outside a sandbox.",
    ),
    (
        # `external_data` of a TensorProto in onnx.proto: key `location`, then the path.
        re.compile(rb"\x0a\x08location\x12.(?:/|[^\x00-\x1f]{0,80}\.\./)", re.DOTALL),
        "critical",
        "path-traversal",
        "Its tensors are to be read from a file outside the folder.",
        "Do not load this file.",
    ),
)
_PATTERN_OVERLAP_BYTES = 256


class Patterns:
    """Byte patterns, each reported once."""

    scanner = "contents"

    def __init__(self, patterns: tuple[_Pattern, ...]) -> None:
        self._patterns = patterns
        self._tail = b""
        self._found: dict[int, str] = {}

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        data = self._tail + chunk
        for number, (pattern, *_) in enumerate(self._patterns):
            if number not in self._found and (match := pattern.search(data)):
                printable = bytes(byte for byte in match[0] if 32 <= byte < 127)
                self._found[number] = printable.decode()[:60]
        self._tail = data[-_PATTERN_OVERLAP_BYTES:]

    def close(self) -> None:
        """There are no more bytes."""

    def findings(self, file: str) -> list[Finding]:
        """One finding a pattern."""
        return [
            Finding(
                severity=severity,
                kind=kind,
                file=file,
                what=what.format(found=self._found[number]),
                remedy=remedy,
            )
            for number, (_, severity, kind, what, remedy) in enumerate(self._patterns)
            if number in self._found
        ]

    def failure(self) -> str:
        """It always looks at everything."""
        return ""

    def is_done(self) -> bool:
        """A secret or a pattern may come at any place."""
        return False


def template() -> Patterns:
    """A reader of a chat template."""
    return Patterns(_TEMPLATE_TRICKS)


# --- configuration ---------------------------------------------------------------------------


class Configuration:
    """A JSON file: what it says is to be loaded, and whether it can be read at all."""

    scanner = "contents"

    def __init__(self, name: str) -> None:
        self._name = name
        self._text = b""
        self._is_long = False
        self._problem = ""
        self._value: Any = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._is_long = self._is_long or len(self._text) + len(chunk) > _MAX_JSON_BYTES
        self._text = b"" if self._is_long else self._text + chunk

    def close(self) -> None:
        """Parse what came."""
        if self._is_long:
            return
        try:
            self._value = json.loads(self._text)
        except RecursionError:
            self._problem = "it is nested too deeply"
        except ValueError as error:
            self._problem = f"it is no JSON: {error}"

    def findings(self, file: str) -> list[Finding]:
        """What it would have loaded."""
        if self._problem:
            return [
                Finding(
                    severity="medium",
                    kind="malformed",
                    file=file,
                    what=f"It cannot be read: {self._problem[:200]}.",
                    remedy="Compare its checksum with the publisher's.",
                )
            ]
        codes = sorted(set(_codes(self._value, self._name)))
        if not codes:
            return []
        return [
            Finding(
                severity="medium",
                kind="custom-code",
                file=file,
                what=f"The model brings code of its own ({', '.join(codes[:4])}), "
                "which runs only with trust_remote_code.",
                remedy="Read that code before you turn trust_remote_code on.",
            )
        ]

    def failure(self) -> str:
        """A long file is not parsed; no configuration is that long."""
        is_configuration = self._name.endswith("config.json")
        return "it is over 4 MB" if self._is_long and is_configuration else ""

    def is_done(self) -> bool:
        """Whether it is too long to be parsed."""
        return self._is_long


def _codes(value: Any, name: str) -> Iterator[str]:
    for holder in _objects(value):
        automatic = holder.get("auto_map")
        if isinstance(automatic, dict):
            yield from _texts(automatic.values())
        pipelines = holder.get("custom_pipelines")
        if isinstance(pipelines, dict):
            yield from (str(key)[:80] for key in pipelines)
        if holder.get("trust_remote_code") is True:
            yield "trust_remote_code"
        kind = holder.get("type")
        if name == "modules.json" and isinstance(kind, str) and not kind.startswith(
            "sentence_transformers."
        ):  # fmt: skip
            yield kind[:80]


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value, without recursion and within a limit."""
    waiting, seen = [value], 0
    while waiting and seen < _MAX_JSON_VALUES:
        current = waiting.pop()
        seen += 1
        if isinstance(current, dict):
            yield current
            waiting.extend(current.values())
        elif isinstance(current, list):
            waiting.extend(current)


def _texts(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value[:80]
        elif isinstance(value, list):
            yield from (item[:80] for item in value if isinstance(item, str))

"""Finds what a pickle imports, by following its opcodes without running any of them.

The stream is read piece by piece, so that a pickle of gigabytes costs no memory: only names stay.
Opcodes and their effect on the stack are those of Python's own `pickletools`. Which imports are
known to be dangerous says the package picklescan; docs/decisions tells why.
"""

from __future__ import annotations

import codecs
import io
import logging
import pickle
import pickletools
import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterable
from dataclasses import dataclass, field

from picklescan.scanner import SafetyLevel, scan_pickle_bytes

from core.registry.scanners.report import Finding, Severity

# It writes every dangerous import to the log; the report says it better.
logging.getLogger("picklescan").setLevel(logging.CRITICAL)

Import = tuple[str, str]

_MAX_NAME_BYTES = 512
_MAX_IMPORTS = 10_000
_MAX_MEMO = 32_000_000
_MAX_MEMO_NAMES = 300_000
_MAX_STACK = 2_000_000
# About a minute on one core; a checkpoint of a large model has under a million.
MAX_OPCODES = 100_000_000
# torch.save before version 1.6 writes five pickles and then bare numbers; the first is this one.
_TORCH_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_TORCH_PICKLES = 5

_MARK = object()
_OTHER = object()
_COMPUTED: Import = ("(computed while it loads)", "?")
_STRINGS = frozenset({
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING",
    "STRING",
})  # fmt: skip
_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: (1, False),
    pickletools.TAKEN_FROM_ARGUMENT4: (4, True),
    pickletools.TAKEN_FROM_ARGUMENT4U: (4, False),
    pickletools.TAKEN_FROM_ARGUMENT8U: (8, False),
}
_READS_ON = frozenset({"joblib.numpy_pickle", "sklearn.externals.joblib.numpy_pickle"})
_LINES = {"GLOBAL": 2, "INST": 2}


@dataclass(frozen=True)
class _Opcode:
    name: str
    fixed_bytes: int
    length: tuple[int, bool] | None
    lines: int
    pops: int
    pops_to_mark: bool
    pushes: int


def _opcode(info: pickletools.OpcodeInfo) -> _Opcode:
    size = info.arg.n if info.arg is not None else 0
    is_line = size == pickletools.UP_TO_NEWLINE
    before = info.stack_before
    to_mark = pickletools.markobject in before
    # What lies under the mark is popped too; what lies over it is dropped with it.
    pops = before.index(pickletools.markobject) if to_mark else len(before)
    return _Opcode(
        name=info.name,
        fixed_bytes=max(size, 0),
        length=_LENGTHS.get(size),
        lines=_LINES.get(info.name, 1) if is_line else 0,
        pops=pops,
        pops_to_mark=to_mark,
        pushes=len(info.stack_after),
    )


_OPCODES = {ord(info.code): _opcode(info) for info in pickletools.opcodes}


class NotAPickle(Exception):
    """The bytes do not go on as a pickle; what was imported before that still counts."""


class TooLong(Exception):
    """There is more than is read of one pickle."""


@dataclass
class PickleReader:
    """A sink that collects the imports of the pickles in a stream.

    Several pickles may follow each other. `imports` are those found so far, also when the rest
    cannot be read; `pickles` is how many ended properly. `error` says why reading ended early.
    """

    max_opcodes: int = MAX_OPCODES
    imports: dict[Import, None] = field(default_factory=dict)
    pickles: int = 0
    opcodes: int = 0
    error: Exception | None = None
    _buffer: bytes = b""
    _skip_bytes: int = 0
    _skip_lines: int = 0
    _stack: list[object] = field(default_factory=list)
    _memo: dict[int, str] = field(default_factory=dict)
    _memo_used: bytearray = field(default_factory=bytearray)
    _memo_count: int = 0
    _is_torch: bool = False
    _is_marked: bool = False
    _is_open: bool = False
    _is_last: bool = False

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes; after an error, or the last pickle of torch's, they are ignored."""
        if self.is_done:
            return
        if not self.opcodes and not self._buffer:
            self._is_torch = chunk[2:].startswith(_TORCH_MAGIC)
            self._is_marked = chunk.startswith(pickle.PROTO)
        if self._skip_bytes:
            dropped = min(self._skip_bytes, len(chunk))
            self._skip_bytes -= dropped
            chunk = chunk[dropped:]
        self._buffer += chunk
        try:
            self._follow()
        except (NotAPickle, TooLong) as error:
            self.error, self._buffer = error, b""

    def close(self) -> None:
        """The stream ended."""
        if self.is_done:
            return
        if self._buffer or self._skip_bytes:
            self.error = NotAPickle("it ends in the middle of an opcode")
        elif self._is_open:
            self.error = NotAPickle("it ends before its STOP")

    @property
    def is_done(self) -> bool:
        """Whether more bytes would change nothing."""
        return self.error is not None or self._is_last

    @property
    def is_pickle(self) -> bool:
        """Whether the beginning was one: it ended properly, or imported something."""
        return (self.pickles > 0 and self._is_certain) or bool(self.plausible_imports)

    @property
    def _is_certain(self) -> bool:
        return self._is_marked or (self.pickles > 0 and self.error is None)

    @property
    def plausible_imports(self) -> list[Import]:
        """The imports, without those that chance makes of bytes that are no pickle.

        One in fifty files of bare numbers begins with an import by chance. Names that are none
        count only in a stream that begins with the mark of a protocol, or is a pickle to its end.
        """
        if self._is_certain:
            return list(self.imports)
        return [name for name in self.imports if all(map(_NAME.fullmatch, name))]

    @property
    def is_read(self) -> bool:
        """Whether all that an unpickler would run was followed.

        Where the bytes stop being a pickle an unpickler stops too; not so joblib's, which takes
        the numbers of arrays out of the middle of the stream and goes on behind them.
        """
        return not isinstance(self.error, TooLong) and not (
            self.error is not None and any(module in _READS_ON for module, _ in self.imports)
        )

    def _follow(self) -> None:
        at = 0
        while not self._is_last:
            end = self._step(at)
            if end is None:
                break
            at = end
        self._buffer = self._buffer[at:]

    def _step(self, at: int) -> int | None:
        """Follow the opcode at `at`; where the next one begins, None when bytes are missing."""
        buffer = self._buffer
        if at >= len(buffer):
            return None
        opcode = _OPCODES.get(buffer[at])
        if opcode is None:
            raise NotAPickle(f"byte {buffer[at]:#04x} is no opcode")
        start = at + 1
        if opcode.lines:
            return self._line(opcode, start)
        if opcode.length is None:
            end = start + opcode.fixed_bytes
            if end > len(buffer):
                return None
            self._apply(opcode, buffer[start:end])
            return end
        width, signed = opcode.length
        start += width
        if start > len(buffer):
            return None
        size = int.from_bytes(buffer[start - width : start], "little", signed=signed)
        if size < 0:
            raise NotAPickle("a negative length")
        if size > _MAX_NAME_BYTES:
            self._apply(opcode, None)
            return self._pass_over(start, size)
        if start + size > len(buffer):
            return None
        self._apply(opcode, buffer[start : start + size])
        return start + size

    def _pass_over(self, start: int, size: int) -> int:
        have = min(size, len(self._buffer) - start)
        self._skip_bytes = size - have
        return start + have

    def _line(self, opcode: _Opcode, start: int) -> int | None:
        end = start
        for _ in range(opcode.lines):
            end = self._buffer.find(b"\n", end) + 1
            if not end:
                if len(self._buffer) - start > 1 << 20 and opcode.name in _LINES:
                    raise NotAPickle("an import with a name of a megabyte")
                if len(self._buffer) - start > 64 << 20:
                    raise TooLong("a line of 64 MB")
                return None
        self._apply(opcode, self._buffer[start : end - 1])
        return end

    def _apply(self, opcode: _Opcode, argument: bytes | None) -> None:
        self.opcodes += 1
        if self.opcodes > self.max_opcodes:
            raise TooLong(f"it has more than {self.max_opcodes:,} opcodes")
        self._is_open = True
        special = _SPECIAL.get(opcode.name)
        if special is not None:
            special(self, opcode, argument)
            return
        self._pop(opcode)
        for _ in range(opcode.pushes):
            self._push(_OTHER)

    def _pop(self, opcode: _Opcode) -> None:
        # Where there is too little on the stack, an unpickler stops.
        stack = self._stack
        if opcode.pops_to_mark:
            while stack and stack.pop() is not _MARK:
                pass
        if opcode.pops > len(stack):
            raise NotAPickle(f"{opcode.name} finds nothing on the stack")
        if opcode.pops:
            del stack[-opcode.pops :]

    def _push(self, value: object) -> None:
        if len(self._stack) >= _MAX_STACK:
            raise TooLong(f"it keeps more than {_MAX_STACK:,} values on its stack")
        self._stack.append(value)

    def _top(self) -> object:
        return self._stack[-1] if self._stack else _OTHER

    def _found(self, name: Import) -> None:
        if len(self.imports) >= _MAX_IMPORTS:
            raise TooLong(f"it has more than {_MAX_IMPORTS:,} imports")
        self.imports[name] = None

    # --- the opcodes that carry names ----------------------------------------------------------

    def _mark(self, _opcode: _Opcode, _argument: bytes | None) -> None:
        self._push(_MARK)

    def _string(self, opcode: _Opcode, argument: bytes | None) -> None:
        if argument is None:
            self._push(_OTHER)
            return
        self._push(_text(opcode.name, argument))

    def _duplicate(self, _opcode: _Opcode, _argument: bytes | None) -> None:
        self._push(self._top())

    def _global(self, _opcode: _Opcode, argument: bytes | None) -> None:
        module, _, name = (argument or b"").decode("utf-8", "replace").partition("\n")
        self._found((module.rstrip("\r"), name.rstrip("\r")))
        self._push(_OTHER)

    def _instance(self, opcode: _Opcode, argument: bytes | None) -> None:
        self._pop(opcode)
        self._global(opcode, argument)

    def _stack_global(self, opcode: _Opcode, _argument: bytes | None) -> None:
        names = self._stack[-2:]
        self._pop(opcode)
        if all(isinstance(name, str) for name in names):
            self._found((str(names[0]), str(names[1])))
        else:
            self._found(_COMPUTED)
        self._push(_OTHER)

    def _extension(self, opcode: _Opcode, _argument: bytes | None) -> None:
        self._found(("(an extension)", opcode.name))
        self._push(_OTHER)

    def _memoize(self, _opcode: _Opcode, _argument: bytes | None) -> None:
        self._remember(self._memo_count)

    def _put(self, opcode: _Opcode, argument: bytes | None) -> None:
        self._remember(_index(opcode, argument))

    def _remember(self, index: int) -> None:
        if index >= _MAX_MEMO:
            raise TooLong(f"it remembers more than {_MAX_MEMO:,} values")
        used = self._memo_used
        if index >= len(used):
            used.extend(bytes(index + 1 - len(used)))
        # MEMOIZE writes at the number of places in use, so that number has to be exact.
        self._memo_count += not used[index]
        used[index] = 1
        value = self._top()
        if not isinstance(value, str):
            self._memo.pop(index, None)
        elif index in self._memo or len(self._memo) < _MAX_MEMO_NAMES:
            self._memo[index] = value

    def _get(self, opcode: _Opcode, argument: bytes | None) -> None:
        self._push(self._memo.get(_index(opcode, argument), _OTHER))

    def _stop(self, opcode: _Opcode, _argument: bytes | None) -> None:
        self._pop(opcode)
        self.pickles += 1
        self._is_open = False
        self._stack.clear()
        self._memo.clear()
        self._memo_used.clear()
        self._memo_count = 0
        self._is_last = self._is_torch and self.pickles == _TORCH_PICKLES


def _index(opcode: _Opcode, argument: bytes | None) -> int:
    if not opcode.lines:
        return int.from_bytes(argument or b"", "little")
    try:
        return max(int(argument or b""), 0)
    except ValueError:
        raise NotAPickle("a memo index that is no number") from None


def _text(opcode: str, argument: bytes) -> str:
    """A string as the unpickler reads it: two of its forms may hide letters behind escapes."""
    try:
        if opcode == "UNICODE":
            return argument.decode("raw-unicode-escape")
        if opcode == "STRING":
            return codecs.escape_decode(argument.strip()[1:-1])[0].decode("utf-8", "replace")
    except ValueError as error:
        raise NotAPickle(f"a text that cannot be decoded: {error}") from None
    return argument.decode("utf-8", "replace")


_SPECIAL = {
    **dict.fromkeys(_STRINGS, PickleReader._string),
    "MARK": PickleReader._mark,
    "DUP": PickleReader._duplicate,
    "GLOBAL": PickleReader._global,
    "INST": PickleReader._instance,
    "STACK_GLOBAL": PickleReader._stack_global,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), PickleReader._extension),
    "MEMOIZE": PickleReader._memoize,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), PickleReader._put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), PickleReader._get),
    "STOP": PickleReader._stop,
}


# --- judging ---------------------------------------------------------------------------------

# What checkpoints and arrays are made of; calling any of these only builds a value.
_HARMLESS: dict[str, frozenset[str]] = {
    "collections": frozenset({"OrderedDict", "defaultdict", "deque", "Counter"}),
    "builtins": frozenset({
        "set", "frozenset", "list", "dict", "tuple", "int", "float", "complex", "bool", "str",
        "bytes", "bytearray", "slice", "range", "object",
    }),
    "copyreg": frozenset({"_reconstructor"}),
    "_codecs": frozenset({"encode"}),
    "datetime": frozenset({"date", "datetime", "time", "timedelta", "timezone"}),
    "decimal": frozenset({"Decimal"}),
    "fractions": frozenset({"Fraction"}),
    "argparse": frozenset({"Namespace"}),
    "types": frozenset({"SimpleNamespace"}),
    "pathlib": frozenset({"Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath"}),
    "uuid": frozenset({"UUID"}),
    "numpy": frozenset({"dtype", "ndarray"}),
    "numpy.dtypes": frozenset({"Float32DType", "Float64DType", "Int64DType", "Int32DType"}),
    **dict.fromkeys(
        ("numpy.core.multiarray", "numpy._core.multiarray"), frozenset({"_reconstruct", "scalar"})
    ),
    **dict.fromkeys(
        ("numpy.core.numeric", "numpy._core.numeric"), frozenset({"_frombuffer"})
    ),
    "torch": frozenset({
        "Size", "device", "Tensor", "float32", "float16", "bfloat16", "float64", "int8", "uint8",
        "int16", "int32", "int64", "bool", "float8_e4m3fn", "float8_e5m2", "strided",
    }),
    "torch._utils": frozenset({
        "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
        "_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_sparse_tensor",
        "_rebuild_meta_tensor_no_storage", "_rebuild_device_tensor_from_numpy",
    }),
    "torch._tensor": frozenset({"_rebuild_from_type_v2"}),
    "torch.nn.parameter": frozenset({"Parameter", "Buffer", "UninitializedParameter"}),
    "torch.storage": frozenset({"UntypedStorage", "TypedStorage"}),
    "torch.serialization": frozenset({"_get_layout"}),
    "joblib.numpy_pickle": frozenset({"NumpyArrayWrapper"}),
}  # fmt: skip
# What loads or runs something else, and picklescan 1.0.5 does not list.
_RUNS_MORE = frozenset({
    "importlib", "imp", "marshal", "code", "codeop", "multiprocessing", "_posixsubprocess",
    "zipimport", "site", "types", "concurrent", "threading", "_thread", "torch.hub", "dill",
    "cloudpickle", "shelve",
})  # fmt: skip
_LOADS_MORE = frozenset({
    ("torch", "load"), ("torch.jit", "load"), ("torch.storage", "_load_from_bytes"),
    ("numpy", "load"), ("pandas", "read_pickle"), ("joblib", "load"),
    ("joblib.numpy_pickle", "load"),
})  # fmt: skip
_TORCH_STORAGE = re.compile(r"[A-Za-z0-9]+Storage")
# Ways from any object to the interpreter's insides.
_INSIDES = re.compile(
    r"__(globals|builtins|subclasses|bases|mro|import|code|loader|getattribute|dict|class)__"
)
_NAME = re.compile(r"[A-Za-z_][\w.<>]*")


def severity_of(name: Import) -> Severity:
    """How dangerous an import of a pickle is.

    Critical is what runs commands or code, or cannot be told; high, what else of Python's
    standard library no model needs; medium, a class or function of a package, about which
    nothing is known; safe, what checkpoints are made of.
    """
    # With protocol 2 and older, Python reads the names of Python 2 as those of today.
    module, attribute = NAME_MAPPING.get(name, (IMPORT_MAPPING.get(name[0], name[0]), name[1]))
    if name == _COMPUTED or not (_NAME.fullmatch(module) and _NAME.fullmatch(attribute)):
        return "critical"
    if _is_harmless(module, attribute):
        return "safe"
    path = attribute.split(".")
    # `torch.serialization` + `os.system` goes through the module to another one.
    reached = [(path[at - 1], ".".join(path[at:])) for at in range(1, len(path))]
    if _INSIDES.search(attribute) or any(map(_is_dangerous, [name, (module, attribute), *reached])):
        return "critical"
    if module.partition(".")[0] in sys.stdlib_module_names:
        return "high"
    return "medium"


def _is_harmless(module: str, attribute: str) -> bool:
    is_storage = module in ("torch", "torch.cuda") and _TORCH_STORAGE.fullmatch(attribute)
    return bool(is_storage) or attribute in _HARMLESS.get(module, ())


def _is_dangerous(name: Import) -> bool:
    """Whether it runs or loads something else; picklescan is asked with a pickle of its name."""
    module, attribute = name
    above = {module, module.partition(".")[0], ".".join(module.split(".")[:2])}
    if above & _RUNS_MORE or name in _LOADS_MORE:
        return True
    minimal = b"c" + f"{module}\n{attribute}\n".encode() + b"."
    found = scan_pickle_bytes(io.BytesIO(minimal), "import").globals
    return any(imported.safety is SafetyLevel.Dangerous for imported in found)


_WHAT: dict[Severity, str] = {
    "critical": "It runs code when it is loaded: it imports {names}.",
    "high": "It imports {names} of Python's standard library, which no model needs.",
    "medium": "It imports {names}; what that does when loaded is not known.",
}
_REMEDY: dict[Severity, str] = {
    "critical": "Do not load this file. Use the model's safetensors or GGUF files.",
    "high": "Do not load this file unless you know why it needs that.",
    "medium": "Load it only if you trust its author, or use safetensors.",
}
_NAMED = 5


def findings(reader: PickleReader, file: str) -> list[Finding]:
    """What the imports of a pickle mean: one finding a severity."""
    by_severity: dict[Severity, list[Import]] = {}
    for name in reader.plausible_imports:
        by_severity.setdefault(severity_of(name), []).append(name)
    found = [
        Finding(
            severity=severity,
            kind="pickle-import",
            file=file,
            what=what.format(names=_names(by_severity[severity])),
            remedy=_REMEDY[severity],
        )
        for severity, what in _WHAT.items()
        if severity in by_severity
    ]
    if found or not reader.is_pickle:
        return found
    return [
        Finding(
            severity="low",
            kind="pickle",
            file=file,
            what="It is a pickle, with imports that only build values.",
            remedy="Prefer safetensors, which cannot run anything.",
        )
    ]


def _names(imports: Iterable[Import]) -> str:
    names = sorted(f"{module}.{name}"[:120] for module, name in imports)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(repr(name)[1:-1] for name in names[:_NAMED]) + more

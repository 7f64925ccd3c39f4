"""Reads the header of a GGUF file, without trusting it.

Source: the GGUF specification, version 3 (docs/gguf.md of the ggml project). Every length is
checked against the file's size before it is used, so that a broken or hostile file costs
neither memory nor time.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from core.kernel.errors import InvalidInput

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_ENTRIES = 100_000
_MAX_KEPT_ARRAY = 16
_MAX_STRING_BYTES = 4_000_000
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}

# `general.file_type`, as llama.cpp's enum llama_ftype names it.
FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
}

Value = int | float | bool | str | list[int | float | bool | str] | None


@dataclass(frozen=True)
class GgufHeader:
    """What the header says; `parameters` is the exact sum over the tensors' shapes."""

    version: int
    metadata: dict[str, Value]
    array_lengths: dict[str, int]
    tensor_count: int
    parameters: int

    @property
    def architecture(self) -> str:
        """Such as `llama`, `qwen2`, `bert`."""
        return str(self.metadata.get("general.architecture") or "unknown")

    @property
    def quantization(self) -> str:
        """Such as `Q4_K_M`; `unknown` when the file does not say."""
        file_type = self.metadata.get("general.file_type")
        return FILE_TYPES.get(file_type, "unknown") if isinstance(file_type, int) else "unknown"

    def of_architecture(self, key: str) -> int | None:
        """An integer such as `block_count`, under the architecture's own prefix.

        Some models give one number a layer; then it is the largest of them.
        """
        value = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(value, list):
            numbers = [number for number in value if isinstance(number, int)]
            return max(numbers, default=None)
        return value if isinstance(value, int) else None


class _Reader:
    """A cursor over the file that refuses to go past its end."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._left = path.stat().st_size

    def fail(self, why: str) -> InvalidInput:
        return InvalidInput(
            f"{self._path.name} is not a readable GGUF file: {why}.",
            remedy="Download it again and compare its checksum with the publisher's.",
        )

    def take(self, count: int) -> bytes:
        if count > self._left:
            raise self.fail("it ends in the middle of its header")
        self._left -= count
        return self._file.read(count)

    def skip(self, count: int) -> None:
        if count > self._left:
            raise self.fail("it ends in the middle of its header")
        self._left -= count
        self._file.seek(count, 1)

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def string(self) -> str:
        length = self.number("<Q")
        if length > _MAX_STRING_BYTES:
            raise self.fail(f"a text of {length} bytes in its header")
        return self.take(length).decode("utf-8", "replace")

    def scalar(self, kind: int) -> int | float | bool | str:
        if kind == _STRING:
            return self.string()
        form = _SCALARS.get(kind)
        if form is None:
            raise self.fail(f"an unknown value type {kind}")
        value: int | float | bool = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def array(self) -> tuple[list[int | float | bool | str], int]:
        """The array when it is short, else an empty list; and its length."""
        kind, length = self.number("<I"), self.number("<Q")
        if length <= _MAX_KEPT_ARRAY or (kind in _SCALARS and length <= 1024):
            return [self.scalar(kind) for _ in range(length)], length
        if kind in _SCALARS:
            self.skip(length * struct.calcsize(_SCALARS[kind]))
        elif kind == _STRING:
            for _ in range(length):
                self.skip(self.number("<Q"))
        else:
            raise self.fail(f"an array of type {kind}")
        return [], length

    def entry_count(self, what: str) -> int:
        count = self.number("<Q")
        if count > _MAX_ENTRIES:
            raise self.fail(f"it claims {count} {what}")
        return count


def read_header(path: Path) -> GgufHeader:
    """Read the header of `path`.

    Raises:
        InvalidInput: The file is missing, is no GGUF, or is broken; says where.
    """
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}.", remedy="Check the path.")
    with path.open("rb") as file:
        return _read(_Reader(file, path))


def _read(reader: _Reader) -> GgufHeader:
    if reader.take(4) != _MAGIC:
        raise reader.fail("it does not begin with GGUF")
    version = reader.number("<I")
    if version not in _VERSIONS:
        raise reader.fail(f"version {version} is not supported (2 and 3 are)")
    tensor_count, entry_count = reader.entry_count("tensors"), reader.entry_count("entries")
    metadata: dict[str, Value] = {}
    array_lengths: dict[str, int] = {}
    for _ in range(entry_count):
        key, kind = reader.string(), reader.number("<I")
        if kind == _ARRAY:
            metadata[key], array_lengths[key] = reader.array()
        else:
            metadata[key] = reader.scalar(kind)
    parameters = sum(_tensor_elements(reader) for _ in range(tensor_count))
    return GgufHeader(version, metadata, array_lengths, tensor_count, parameters)


def _tensor_elements(reader: _Reader) -> int:
    reader.string()
    dimensions = reader.number("<I")
    if not 1 <= dimensions <= 4:
        raise reader.fail(f"a tensor with {dimensions} dimensions")
    elements = 1
    for _ in range(dimensions):
        elements *= reader.number("<Q")
    reader.skip(struct.calcsize("<IQ"))
    return elements

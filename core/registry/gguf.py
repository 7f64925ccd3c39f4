"""Reads the header of a GGUF file, without trusting it.

Source: the GGUF specification, version 3 (docs/gguf.md of the ggml project); names and sizes of
the types from llama.cpp (include/llama.h, gguf-py/gguf/constants.py). Every length is checked
before it is used, so that a broken or hostile file costs neither memory nor time, and the
tensors must lie within the file, so that a half download is not taken for a model.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from core.kernel.errors import InvalidInput

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_BIG_ENDIAN_VERSIONS = tuple(
    int.from_bytes(version.to_bytes(4, "big"), "little") for version in _VERSIONS
)
_MAX_ENTRIES = 100_000
_MAX_KEPT_ARRAY = 1024
_MAX_KEPT_STRINGS = 16
_MAX_STRING_BYTES = 4_000_000
# The largest vocabularies (260,000 tokens and twice as many merges) need about 15 MB.
_MAX_HEADER_BYTES = 128 << 20
_MAX_LISTED_STRINGS = 2_000_000
_MAX_ELEMENTS = 1 << 50
_DEFAULT_ALIGNMENT = 32
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
    39: "NVFP4",
    40: "Q1_0",
}
# llama.cpp sets this bit when it had to guess the file type.
_GUESSED = 1024

# Tensor type: elements in a block, bytes of a block.
_BLOCKS = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
    34: (256, 54),  # TQ1_0
    35: (256, 66),  # TQ2_0
    39: (32, 17),  # MXFP4
    40: (64, 36),  # NVFP4
    41: (128, 18),  # Q1_0
}

Value = int | float | bool | str | list[int | float | bool | str] | None


@dataclass(frozen=True)
class GgufHeader:
    """What the header says; `parameters` is the exact sum over the tensors' shapes.

    `expert_parameters` are those of them in routed experts, of which a token uses some.
    """

    version: int
    metadata: dict[str, Value]
    array_lengths: dict[str, int]
    tensor_count: int
    parameters: int
    expert_parameters: int = 0

    @property
    def architecture(self) -> str:
        """Such as `llama`, `qwen2`, `bert`."""
        return str(self.metadata.get("general.architecture") or "unknown")

    @property
    def quantization(self) -> str:
        """Such as `Q4_K_M`; `unknown` when the file does not say."""
        file_type = self.metadata.get("general.file_type")
        if not isinstance(file_type, int):
            return "unknown"
        return FILE_TYPES.get(file_type & ~_GUESSED, "unknown")

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
    """A cursor over the header that refuses to go past its end."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self.size_bytes = os.fstat(file.fileno()).st_size
        self.position = 0
        self._listed_strings = 0

    def fail(self, why: str) -> InvalidInput:
        return InvalidInput(
            f"{self._path.name} is not a readable GGUF file: {why}.",
            remedy="Download it again and compare its checksum with the publisher's.",
        )

    def take(self, count: int) -> bytes:
        self._advance(count)
        return self._file.read(count)

    def skip(self, count: int) -> None:
        self._advance(count)
        self._file.seek(count, os.SEEK_CUR)

    def _advance(self, count: int) -> None:
        self.position += count
        if self.position > self.size_bytes:
            raise self.fail("it ends in the middle of its header")
        if self.position > _MAX_HEADER_BYTES:
            raise self.fail(f"its header is over {_MAX_HEADER_BYTES >> 20} MB")

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
        if length <= (_MAX_KEPT_ARRAY if kind in _SCALARS else _MAX_KEPT_STRINGS):
            return [self.scalar(kind) for _ in range(length)], length
        if kind in _SCALARS:
            self.skip(length * struct.calcsize(_SCALARS[kind]))
        elif kind == _STRING:
            self._listed_strings += length
            if self._listed_strings > _MAX_LISTED_STRINGS:
                raise self.fail(f"it lists {self._listed_strings} texts in its header")
            self._skip_strings(length)
        else:
            raise self.fail(f"an array of type {kind}")
        return [], length

    def _skip_strings(self, count: int) -> None:
        # A vocabulary with its merges has some 400,000, so no call is made for each.
        read, seek = self._file.read, self._file.seek
        end = min(self.size_bytes, _MAX_HEADER_BYTES)
        for _ in range(count):
            length = int.from_bytes(read(8), "little")
            self.position += 8 + length
            if self.position > end:
                break
            seek(length, os.SEEK_CUR)
        self._advance(0)

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
    try:
        with path.open("rb") as file:
            return _read(_Reader(file, path))
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror}.",
            remedy="Let the account that runs Bud read it.",
        ) from error


def _read(reader: _Reader) -> GgufHeader:
    if reader.take(4) != _MAGIC:
        raise reader.fail("it does not begin with GGUF")
    version = reader.number("<I")
    if version in _BIG_ENDIAN_VERSIONS:
        raise reader.fail("it was made for big-endian machines")
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
    tensors = [_tensor(reader) for _ in range(tensor_count)]
    _check_data(reader, metadata.get("general.alignment"), tensors)
    parameters = sum(tensor.elements for tensor in tensors)
    in_experts = sum(tensor.elements for tensor in tensors if tensor.is_expert)
    return GgufHeader(version, metadata, array_lengths, tensor_count, parameters, in_experts)


@dataclass(frozen=True)
class _Tensor:
    elements: int
    kind: int
    offset: int
    is_expert: bool

    @property
    def end(self) -> int:
        """The first byte after it, from the start of the data; of unknown types its start."""
        elements, size_bytes = _BLOCKS.get(self.kind, (1, 0))
        return self.offset + -(-self.elements // elements) * size_bytes


def _tensor(reader: _Reader) -> _Tensor:
    name = reader.string()
    dimensions = reader.number("<I")
    if not 1 <= dimensions <= 4:
        raise reader.fail(f"a tensor with {dimensions} dimensions")
    elements = math.prod(reader.number("<Q") for _ in range(dimensions))
    if elements > _MAX_ELEMENTS:
        raise reader.fail(f"a tensor of {elements} elements")
    # llama.cpp keeps the experts of a layer in one tensor: `blk.0.ffn_up_exps.weight`.
    return _Tensor(elements, reader.number("<I"), reader.number("<Q"), "_exps." in name)


def _check_data(reader: _Reader, alignment: Value, tensors: list[_Tensor]) -> None:
    if not isinstance(alignment, int) or alignment < 1:
        alignment = _DEFAULT_ALIGNMENT
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.end)):
        if tensor.offset < end:
            raise reader.fail("two of its tensors share their bytes")
        end = tensor.end
    start = -(-reader.position // alignment) * alignment
    needed_bytes = max((start + tensor.end for tensor in tensors), default=0)
    if needed_bytes > reader.size_bytes:
        raise reader.fail(
            f"it is cut off: its tensors need {needed_bytes} bytes, "
            f"and the file has {reader.size_bytes}"
        )

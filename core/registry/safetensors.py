"""Reads the headers of safetensors files, without trusting them.

Format: eight bytes with the length of the header, the header as JSON, then the tensors' bytes
without holes (https://github.com/huggingface/safetensors, README "Format"; the rule that the data
must be covered exactly is that of its reference reader).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeGuard

from core.kernel.errors import InvalidInput

# The format allows 100 MB, which costs 1 GB to parse; 250,000 tensors fit into this.
_MAX_HEADER_BYTES = 32_000_000
_MAX_DIMENSIONS = 16
_MAX_TENSORS = 1_000_000

# Bits of one element, as safetensors' enum Dtype names them.
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
    "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class Tensor(NamedTuple):
    """One tensor; `start` and `end` are bytes from the beginning of the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        """The product of its shape."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class SafetensorsHeader:
    """The tensors of one file by name, and the publisher's own `metadata`."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    data_start: int


def read_header(path: Path) -> SafetensorsHeader:
    """Read and check the header of `path`.

    Raises:
        InvalidInput: The file is missing, is no safetensors, is cut off, or its header lies:
            tensors that overlap, leave holes, or do not fit their shapes.
    """
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}.", remedy="Check the path.")
    try:
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size_bytes < 8 or length > size_bytes - 8:
                _fail(path, f"its header claims {length:,} bytes of {size_bytes:,}")
            if length > _MAX_HEADER_BYTES:
                _fail(path, f"its header claims {length:,} bytes, over the limit of 32 MB")
            text = file.read(length)
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror}.",
            remedy="Let the account that runs Bud read it.",
        ) from error
    entries = _parse(path, text)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        _fail(path, "its __metadata__ is no object")
    if len(entries) > _MAX_TENSORS:
        _fail(path, f"it lists {len(entries):,} tensors")
    tensors = {name: _tensor(path, name, entry) for name, entry in entries.items()}
    _check_data(path, tensors, size_bytes - 8 - length)
    kept = {key: value for key, value in metadata.items() if isinstance(value, str)}
    return SafetensorsHeader(tensors, kept, 8 + length)


def _fail(path: Path, why: str) -> NoReturn:
    raise InvalidInput(
        f"{path.name} is not a readable safetensors file: {why}.",
        remedy="Download it again and compare its checksum with the publisher's.",
    )


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        _fail(path, "its header does not begin with {")
    try:
        entries = json.loads(text, object_pairs_hook=_without_doubles)
    except RecursionError:
        _fail(path, "its header is nested too deeply")
    except ValueError as error:
        _fail(path, f"its header is no JSON ({str(error)[:120]})")
    if not isinstance(entries, dict):
        _fail(path, "its header is no object")
    return entries


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _tensor(path: Path, name: str, entry: Any) -> Tensor:
    shown = name[:80]
    if not isinstance(entry, dict):
        _fail(path, f"tensor {shown!r} is no object")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        _fail(path, f"tensor {shown!r} has the unknown type {str(dtype)[:40]!r}")
    if not _are_sizes(shape) or len(shape) > _MAX_DIMENSIONS:
        _fail(path, f"tensor {shown!r} has no proper shape")
    if not _are_sizes(offsets) or len(offsets) != 2:
        _fail(path, f"tensor {shown!r} has no proper offsets")
    tensor = Tensor(dtype, tuple(shape), *offsets)
    if (tensor.end - tensor.start) * 8 != tensor.elements * DTYPE_BITS[dtype]:
        _fail(
            path,
            f"tensor {shown!r} has {tensor.end - tensor.start:,} bytes for "
            f"{tensor.elements:,} elements of {dtype}",
        )
    return tensor


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 1 << 63 for value in values
    )


def _check_data(path: Path, tensors: Mapping[str, Tensor], data_bytes: int) -> None:
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != end:
            what = "overlaps another" if tensor.start < end else "leaves a hole before it"
            _fail(path, f"tensor {name[:80]!r} {what}")
        end = tensor.end
    if end > data_bytes:
        _fail(path, f"it is cut off: its tensors need {end:,} bytes, and it has {data_bytes:,}")
    if end < data_bytes:
        _fail(path, f"{data_bytes - end:,} bytes after its tensors belong to none of them")


# --- shards ----------------------------------------------------------------------------------


def read_shards(paths: Sequence[Path], index: Path | None) -> dict[Path, SafetensorsHeader]:
    """The headers of all the files of one model, checked against their index.

    Args:
        paths: Every shard.
        index: `model.safetensors.index.json`, or None for a model in one file.

    Raises:
        InvalidInput: A shard is missing or broken, two hold the same tensor, or the index names
            a tensor that its shard does not hold.
    """
    headers = {path: read_header(path) for path in paths}
    owners: dict[str, str] = {}
    for path, header in headers.items():
        for name in header.tensors:
            if name in owners:
                _fail(path, f"tensor {name[:80]!r} is in {owners[name]} too")
            owners[name] = path.name
    if index is not None:
        for name, shard in read_index(index).items():
            if owners.get(name) != shard:
                raise InvalidInput(
                    f"{index.name} says that {name[:80]!r} is in {shard}, and it is "
                    f"{'in ' + owners[name] if name in owners else 'in no shard'}.",
                    remedy="Download the model again: its parts are of different versions.",
                )
    return headers


def read_index(path: Path) -> dict[str, str]:
    """Which shard holds which tensor, from a `….index.json`.

    Raises:
        InvalidInput: It cannot be read, or names a file outside its folder.
    """
    try:
        index = json.loads(path.read_bytes()) if path.stat().st_size < _MAX_HEADER_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path.name} cannot be read: {str(error)[:200]}.") from error
    found = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(found, dict) or not found:
        raise InvalidInput(f"{path.name} has no weight_map.", remedy="Download it again.")
    for shard in found.values():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise InvalidInput(f"{path.name} names a shard outside its folder.", value=shard)
    return found


# --- counting --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """How many weights the tensors hold.

    `active` are those that one token uses when `experts_per_token` of `experts` are asked; None
    for a model without experts. `by_dtype` counts weights by the type they are stored in.
    """

    parameters: int
    is_estimated: bool
    active: int | None
    by_dtype: dict[str, int]


# What belongs to a quantised tensor and is no weight, and buffers that are computed.
_AUXILIARY = re.compile(
    r"\.(?:qzeros|scales|g_idx|absmax|nested_absmax|quant_map|nested_quant_map|quant_state\..*"
    r"|SCB|weight_format|weight_scale(?:_inv|_2)?|weight_scale_\w+|weight_zero_point|weight_shape"
    r"|weight_g_idx|weight_global_scale|input_(?:scale|global_scale|zero_point)(?:_inv)?|[kvq]_scale"
    r"|output_scale|activation_scale|scale_inv|\w+_scales|\w+_weight_scale(?:_2|_inv)?"
    r"|\w+_input_scale|inv_freq|position_ids|num_batches_tracked|e_score_correction_bias)$"
)
_PACKED = re.compile(r"\.(?:qweight|weight_packed|\w+_blocks|\w*weight|\w+_proj)$")
_EXPERT = re.compile(r"\.experts\.")
# FP4 comes two in a byte: NVFP4, MXFP4, and bitsandbytes' NF4 and FP4.
_TWO_IN_A_BYTE = frozenset({"nvfp4", "mxfp4", "bitsandbytes-4bit", "modelopt"})
_PACKED_IN_WORDS = frozenset({"gptq", "awq", "compressed-tensors", "auto-round", "autoround"})
_INTEGERS = frozenset({"U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL"})


def count(
    headers: Mapping[Path, SafetensorsHeader],
    *,
    method: str | None = None,
    bits: int | None = None,
    experts: int | None = None,
    experts_per_token: int | None = None,
) -> Count:
    """Count the weights in the tensors of a model.

    Packed tensors are counted as the weights they hold: of `bits` each in words of 32 (GPTQ,
    AWQ, compressed-tensors), or two in a byte (NVFP4, MXFP4, NF4). Scales, zero points and
    buffers are no weights. compressed-tensors writes the true shape beside each packed tensor,
    and that one is read. A tensor of integers that fits none of this is counted by its elements,
    and makes the count an estimate.

    Args:
        headers: All files of the model.
        method: The `quant_method`, in lower case; None for a model that is not quantised.
        bits: Bits of one packed weight.
        experts: Experts of a layer.
        experts_per_token: How many of them one token uses.
    """
    total, routed, is_estimated = 0, 0, False
    by_dtype: dict[str, int] = {}
    for path, header in headers.items():
        for name, tensor in header.tensors.items():
            weights, is_exact = _weights(path, header, name, method, bits)
            is_estimated |= not is_exact
            total += weights
            routed += weights if _EXPERT.search(name) else 0
            if weights:
                by_dtype[tensor.dtype] = by_dtype.get(tensor.dtype, 0) + weights
    active = None
    if routed and experts and experts_per_token and experts_per_token <= experts:
        active = total - routed + routed * experts_per_token // experts
    return Count(total, is_estimated, active, by_dtype)


def _weights(
    path: Path, header: SafetensorsHeader, name: str, method: str | None, bits: int | None
) -> tuple[int, bool]:
    """The weights of one tensor, and whether that is exact."""
    tensor = header.tensors[name]
    if _AUXILIARY.search(f".{name}"):
        return 0, True
    if tensor.dtype not in _INTEGERS:
        return tensor.elements, True
    if method is None:
        # Positions, masks and counters; a model that is not quantised has no other integers.
        return 0, True
    if method in _TWO_IN_A_BYTE and tensor.dtype == "U8" and _PACKED.search(f".{name}"):
        return tensor.elements * 2, True
    if method in _PACKED_IN_WORDS and tensor.dtype == "I32" and _PACKED.search(f".{name}"):
        shape = header.tensors.get(name.removesuffix("_packed") + "_shape")
        if shape is not None and name.endswith("_packed"):
            return _stored_product(path, header, shape), True
        return (tensor.elements * 32 // bits, True) if bits else (tensor.elements, False)
    if method in ("compressed-tensors", "nvfp4") and name.endswith("weight_packed"):
        return tensor.elements * 2, tensor.dtype == "U8"
    if tensor.dtype == "I8" and _PACKED.search(f".{name}"):
        return tensor.elements, True
    if tensor.dtype in ("I64", "BOOL"):
        return 0, True
    return tensor.elements, False


def _stored_product(path: Path, header: SafetensorsHeader, shape: Tensor) -> int:
    """The product of the numbers in a small tensor of integers."""
    width = DTYPE_BITS[shape.dtype] // 8
    if shape.elements > _MAX_DIMENSIONS:
        _fail(path, "a tensor's shape has too many numbers")
    with path.open("rb") as file:
        file.seek(header.data_start + shape.start)
        data = file.read(shape.end - shape.start)
    numbers = (data[at : at + width] for at in range(0, len(data), width))
    return math.prod(int.from_bytes(number, "little") for number in numbers)

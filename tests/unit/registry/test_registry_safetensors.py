from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.kernel.errors import InvalidInput
from core.registry import safetensors

_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "U8": 1, "I8": 1, "F8_E4M3": 1, "I32": 4, "I64": 8}


def write_safetensors(
    path: Path,
    tensors: Mapping[str, tuple[str, list[int]]],
    data: Mapping[str, bytes] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A valid file with these types and shapes; zeros where `data` gives nothing."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    body = b""
    for name, (dtype, shape) in tensors.items():
        size = _BYTES[dtype]
        for dimension in shape:
            size *= dimension
        header[name] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(body), len(body) + size],
        }
        body += (data or {}).get(name, bytes(size))
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def _raw(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def _of(offsets: list[int], shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape or [2], "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "claims 0 bytes of 0"),
        (b"abc", "its header claims"),
        (_raw({}, length=1 << 60), "its header claims 1,152,921,504,606,846,976 bytes of 10"),
        (_raw(b"PK"), "does not begin with {"),
        (_raw(b"{ not json"), "no JSON"),
        (_raw(b'{"a":' + b"[" * 200_000), "nested too deeply"),
        (_raw(b'{"a": {}, "a": {}}'), "stands in it twice"),
        (_raw({"a": 1}), "is no object"),
        (_raw({"a": _of([0, 8], dtype="PICKLE")}, bytes(8)), "unknown type 'PICKLE'"),
        (_raw({"a": _of([0, 8], [-2])}, bytes(8)), "no proper shape"),
        (_raw({"a": _of([0, 8], [True])}, bytes(8)), "no proper shape"),
        (_raw({"a": _of([0, 1 << 62])}, bytes(8)), "for 2 elements of F32"),
        (_raw({"a": _of([0, 8]), "b": _of([4, 12])}, bytes(12)), "overlaps another"),
        (_raw({"a": _of([0, 8]), "b": _of([0, 8])}, bytes(8)), "overlaps another"),
        (_raw({"a": _of([0, 8]), "b": _of([16, 24])}, bytes(24)), "leaves a hole"),
        (_raw({"a": _of([0, 8])}, bytes(7)), "cut off: its tensors need 8 bytes"),
        (_raw({"a": _of([0, 8])}, bytes(9)), "1 bytes after its tensors"),
    ],
)
def test_a_lying_header_is_refused_by_name(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="broken.safetensors is not a readable") as caught:
        safetensors.read_header(path)
    assert why in str(caught.value)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(position=st.integers(0, 120), value=st.binary(min_size=1, max_size=9))
def test_a_damaged_header_is_read_or_refused(tmp_path: Path, position: int, value: bytes) -> None:
    path = write_safetensors(tmp_path / "f.safetensors", {"a": ("F32", [2, 3]), "b": ("U8", [4])})
    content = bytearray(path.read_bytes())
    content[position : position + len(value)] = value
    path.write_bytes(bytes(content))
    try:
        assert sum(t.elements for t in safetensors.read_header(path).tensors.values()) < 1 << 30
    except InvalidInput as error:
        assert "f.safetensors" in str(error)


def test_empty_tensors_and_scalars_are_allowed(tmp_path: Path) -> None:
    path = write_safetensors(
        tmp_path / "a.safetensors", {"empty": ("F32", [0, 4]), "scalar": ("F32", [])},
        metadata={"format": "pt"},
    )  # fmt: skip
    header = safetensors.read_header(path)
    assert [tensor.elements for tensor in header.tensors.values()] == [0, 1]
    assert header.metadata == {"format": "pt"}


# 4,096 weights of each, packed the way each quantiser does it, with its own scales beside them.
_LINEAR = {
    "plain": (None, None, {"l.weight": ("BF16", [64, 64]), "l.bias": ("BF16", [0])}),
    "fp8": ("fp8", 8, {"l.weight": ("F8_E4M3", [64, 64]), "l.weight_scale_inv": ("F32", [1, 1])}),
    "gptq": (
        "gptq", 4,
        {"l.qweight": ("I32", [8, 64]), "l.qzeros": ("I32", [1, 8]), "l.scales": ("F16", [1, 64]),
         "l.g_idx": ("I32", [64])},
    ),
    "gptq 3 bits": ("gptq", 3, {"l.qweight": ("I32", [6, 64]), "l.scales": ("F16", [1, 64])}),
    "awq": ("awq", 4, {"l.qweight": ("I32", [64, 8]), "l.qzeros": ("I32", [1, 8]),
                       "l.scales": ("F16", [1, 64])}),
    "nvfp4": (
        "nvfp4", 4,
        {"l.weight": ("U8", [64, 32]), "l.weight_scale": ("F8_E4M3", [64, 4]),
         "l.weight_scale_2": ("F32", []), "l.input_scale": ("F32", [])},
    ),
    "nvfp4 of llm-compressor": (
        "nvfp4", 4,
        {"l.weight_packed": ("U8", [64, 32]), "l.weight_scale": ("F8_E4M3", [64, 4]),
         "l.weight_global_scale": ("F32", [1]), "l.input_global_scale": ("F32", [1])},
    ),
    "mxfp4": (
        "mxfp4", 4,
        {"l.experts.down_proj_blocks": ("U8", [2, 32, 2, 16]),
         "l.experts.down_proj_scales": ("U8", [2, 32, 2])},
    ),
    "nf4": (
        "bitsandbytes-4bit", 4,
        {"l.weight": ("U8", [2048, 1]), "l.weight.absmax": ("U8", [64]),
         "l.weight.quant_map": ("F32", [16]), "l.weight.nested_absmax": ("F32", [1]),
         "l.weight.quant_state.bitsandbytes__nf4": ("U8", [90])},
    ),
    "int8": ("bitsandbytes-8bit", 8, {"l.weight": ("I8", [64, 64]), "l.SCB": ("F32", [64]),
                                      "l.weight_format": ("U8", [])}),
    "w8a8": ("compressed-tensors", 8, {"l.weight": ("I8", [64, 64]),
                                       "l.weight_scale": ("BF16", [64, 1])}),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(_LINEAR))
def test_packed_tensors_count_as_the_weights_they_hold(tmp_path: Path, kind: str) -> None:
    method, bits, tensors = _LINEAR[kind]
    path = write_safetensors(tmp_path / "a.safetensors", {**tensors, "pos.inv_freq": ("F32", [32])})
    headers = {path: safetensors.read_header(path)}
    counted = safetensors.count(headers, method=method, bits=bits)
    assert (counted.parameters, counted.is_estimated) == (4096, False)


def test_a_shape_that_is_written_down_is_taken_and_padding_is_not(tmp_path: Path) -> None:
    # 60 columns of 4 bits need 7.5 words, so each row is padded to 8.
    path = write_safetensors(
        tmp_path / "a.safetensors",
        {"l.weight_packed": ("I32", [64, 8]), "l.weight_shape": ("I64", [2])},
        data={"l.weight_shape": struct.pack("<QQ", 64, 60)},
    )
    counted = safetensors.count(
        {path: safetensors.read_header(path)}, method="compressed-tensors", bits=4
    )
    assert (counted.parameters, counted.is_estimated) == (64 * 60, False)


def test_an_unknown_packing_is_an_estimate(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "a.safetensors", {"l.codes": ("I32", [8, 8])})
    headers = {path: safetensors.read_header(path)}
    assert safetensors.count(headers, method="aqlm", bits=2).is_estimated


def test_of_the_experts_those_that_a_token_uses_are_active(tmp_path: Path) -> None:
    tensors = {f"m.experts.{n}.up.weight": ("BF16", [10, 10]) for n in range(8)}
    tensors |= {"m.shared_experts.up.weight": ("BF16", [10, 10]), "embed": ("BF16", [50])}
    path = write_safetensors(tmp_path / "a.safetensors", tensors)
    counted = safetensors.count(
        {path: safetensors.read_header(path)}, experts=8, experts_per_token=2
    )
    assert (counted.parameters, counted.active) == (950, 350)


def test_shards_must_be_those_of_the_index(tmp_path: Path) -> None:
    one = write_safetensors(tmp_path / "m-1.safetensors", {"a": ("F32", [2])})
    two = write_safetensors(tmp_path / "m-2.safetensors", {"b": ("F32", [3])})
    index = tmp_path / "model.safetensors.index.json"

    def read(weight_map: object) -> int:
        index.write_text(json.dumps({"weight_map": weight_map}))
        return safetensors.count(safetensors.read_shards([one, two], index)).parameters

    assert read({"a": "m-1.safetensors", "b": "m-2.safetensors"}) == 5
    with pytest.raises(InvalidInput, match="'b' is in m-1.safetensors, and it is in m-2"):
        read({"a": "m-1.safetensors", "b": "m-1.safetensors"})
    with pytest.raises(InvalidInput, match="'c' is in m-1.safetensors, and it is in no shard"):
        read({"c": "m-1.safetensors"})
    with pytest.raises(InvalidInput, match="outside its folder"):
        read({"a": "../m-1.safetensors"})
    with pytest.raises(InvalidInput, match="no weight_map"):
        read([])
    write_safetensors(two, {"a": ("F32", [3])})
    with pytest.raises(InvalidInput, match="'a' is in m-1.safetensors too"):
        safetensors.read_shards([one, two], None)

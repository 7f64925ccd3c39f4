from __future__ import annotations

import os
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.kernel.errors import InvalidInput
from core.registry import extraction, services
from core.registry.gguf import read_header
from tests.machine import slowness

TWO_BY_THREE_F32 = struct.pack("<IQQIQ", 2, 2, 3, 0, 0)


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _entry(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value


def gguf_bytes(
    architecture: str = "llama",
    extra: bytes = b"",
    entries: int = 0,
    tensor: bytes = TWO_BY_THREE_F32,
) -> bytes:
    """A tiny valid file with one tensor of 2 × 3, and `entries` more entries in `extra`."""
    metadata = [
        _entry("general.architecture", 8, _text(architecture)),
        _entry(f"{architecture}.block_count", 4, struct.pack("<I", 2)),
        _entry(f"{architecture}.context_length", 4, struct.pack("<I", 512)),
        _entry(f"{architecture}.embedding_length", 4, struct.pack("<I", 64)),
        _entry(f"{architecture}.attention.head_count", 4, struct.pack("<I", 4)),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(metadata) + entries)
    body = head + b"".join(metadata) + extra + _text("token_embd.weight") + tensor
    return body + bytes(-len(body) % 32) + bytes(24)


def test_the_starter_model_says_what_it_is() -> None:
    header = read_header(services._starter_path())
    assert header.architecture == "llama"
    assert header.quantization == "Q4_1"
    assert header.of_architecture("block_count") == 30
    assert header.of_architecture("context_length") == 8192
    assert header.array_lengths["tokenizer.ggml.tokens"] == 49152
    assert header.parameters == 134_515_008


def test_the_starter_model_ends_exactly_where_its_tensors_do(tmp_path: Path) -> None:
    # So the sizes of its tensor types and the alignment are right: one byte less is noticed.
    whole = services._starter_path()
    head = whole.read_bytes()[: 4 << 20]
    for missing, fits in ((0, True), (1, False)):
        path = tmp_path / f"missing-{missing}.gguf"
        path.write_bytes(head)
        os.truncate(path, whole.stat().st_size - missing)
        if fits:
            assert read_header(path).tensor_count == 272
        else:
            with pytest.raises(InvalidInput, match="cut off: its tensors need 98362432 bytes"):
                read_header(path)


def test_parameters_are_summed_from_the_shapes(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(gguf_bytes())
    assert read_header(tmp_path / "a.gguf").parameters == 6


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "ends in the middle"),
        (b"PK\x03\x04" + bytes(100), "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<I", 99) + bytes(100), "version 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 2**40), "claims"),
        (gguf_bytes()[:60], "ends in the middle"),
        (gguf_bytes()[:-1], "cut off: its tensors need"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(100), "big-endian"),
        (gguf_bytes(extra=_entry("a", 77, b""), entries=1), "unknown value type 77"),
        (gguf_bytes(extra=_entry("a", 9, struct.pack("<IQ", 9, 20)), entries=1), "array of type 9"),
        (gguf_bytes(extra=_entry("a", 9, struct.pack("<IQ", 10, 2**61)), entries=1), "ends in the"),
        (gguf_bytes(extra=_entry("a", 9, struct.pack("<IQ", 8, 2**61)), entries=1), "lists 23"),
        (gguf_bytes(tensor=struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0)), "elements"),
        (gguf_bytes(tensor=struct.pack("<IQQIQ", 2, 2, 3, 0, 2**60)), "cut off"),
        (gguf_bytes(tensor=struct.pack("<IQQIQ", 9, 2, 3, 0, 0)), "9 dimensions"),
        (gguf_bytes(extra=struct.pack("<Q", 2**50), entries=1), "a text of"),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="broken.gguf is not a readable GGUF") as caught:
        read_header(path)
    assert why in str(caught.value)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(position=st.integers(0, 200), value=st.binary(min_size=1, max_size=9))
def test_a_damaged_header_never_costs_memory_or_another_error(
    tmp_path: Path, position: int, value: bytes
) -> None:
    content = bytearray(gguf_bytes())
    content[position : position + len(value)] = value
    path = tmp_path / "fuzzed.gguf"
    path.write_bytes(bytes(content))
    try:
        assert read_header(path).tensor_count >= 0
    except InvalidInput as error:
        assert "fuzzed.gguf" in str(error)


def test_a_sparse_file_of_gigabytes_costs_neither_time_nor_memory(tmp_path: Path) -> None:
    listed = _entry("a", 9, struct.pack("<IQ", 8, 2**40)), "lists 1099511627776 texts"
    numbers = _entry("a", 9, struct.pack("<IQ", 10, 2**30)), "header is over 128 MB"
    for entry, why in (listed, numbers):
        content = gguf_bytes(extra=entry, entries=1)
        path = tmp_path / "zeros.gguf"
        path.write_bytes(content[: content.index(_text("token_embd.weight"))])
        os.truncate(path, 40 << 30)
        tracemalloc.start()
        began_s = time.process_time()
        with pytest.raises(InvalidInput, match=why):
            read_header(path)
        assert time.process_time() - began_s < 1 * slowness()
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (_entry("general.type", 8, _text("adapter")), "it says it is 'adapter'"),
        (_entry("llama.attention.head_count_kv", 10, struct.pack("<Q", 2**63)), "impossible"),
        (_entry("llama.block_count", 4, struct.pack("<I", 0)), "no model that can run"),
        (_entry("general.architecture", 8, _text("../../etc")), "no model that can run"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, entry: bytes, why: str) -> None:
    path = tmp_path / "strange.gguf"
    path.write_bytes(gguf_bytes(extra=entry, entries=1))
    with pytest.raises(InvalidInput, match=why):
        extraction.describe([path])


def test_numbers_that_differ_by_layer_give_the_largest(tmp_path: Path) -> None:
    per_layer = struct.pack("<IQ", 5, 3) + struct.pack("<iii", 2, 8, 4)
    path = tmp_path / "layers.gguf"
    path.write_bytes(
        gguf_bytes(extra=_entry("llama.attention.head_count_kv", 9, per_layer), entries=1)
    )
    found = extraction.describe([path])
    assert (found["kv_heads"], found["key_length"], found["heads"]) == (8, 16, 4)


@pytest.mark.parametrize(
    ("architecture", "entry", "capabilities"),
    [
        ("bert", _entry("bert.pooling_type", 4, struct.pack("<I", 1)), ["embedding"]),
        ("bert", _entry("bert.pooling_type", 4, struct.pack("<I", 4)), ["rerank"]),
        ("nomic-bert", _entry("general.name", 8, _text("n")), ["embedding"]),
        ("llama", _entry("general.name", 8, _text("n")), ["completion", "embedding"]),
        (
            "llama",
            _entry("tokenizer.chat_template", 8, _text("{{ messages }}")),
            ["chat", "completion", "embedding"],
        ),
    ],
)
def test_what_a_model_can_do(
    tmp_path: Path, architecture: str, entry: bytes, capabilities: list[str]
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(architecture, extra=entry, entries=1))
    assert extraction.describe([path])["capabilities"] == capabilities


def test_the_quantisation_has_its_usual_name(tmp_path: Path) -> None:
    for number, name in ((15, "Q4_K_M"), (1024 + 7, "Q8_0"), (999, "unknown")):
        path = tmp_path / f"{number}.gguf"
        entry = _entry("general.file_type", 4, struct.pack("<I", number))
        path.write_bytes(gguf_bytes(extra=entry, entries=1))
        assert read_header(path).quantization == name

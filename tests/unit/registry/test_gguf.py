from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.kernel.errors import InvalidInput
from core.registry import services
from core.registry.gguf import read_header


def gguf_bytes(architecture: str = "llama", extra: bytes = b"", entries: int = 0) -> bytes:
    """A tiny valid header with one tensor of 2 × 3."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    metadata = [
        text("general.architecture") + struct.pack("<I", 8) + text(architecture),
        text(f"{architecture}.block_count") + struct.pack("<II", 4, 2),
        text(f"{architecture}.context_length") + struct.pack("<II", 4, 512),
        text(f"{architecture}.embedding_length") + struct.pack("<II", 4, 64),
        text(f"{architecture}.attention.head_count") + struct.pack("<II", 4, 4),
    ]
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 2, 3, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(metadata) + entries)
    return head + b"".join(metadata) + extra + tensor + bytes(64)


def test_the_starter_model_says_what_it_is() -> None:
    header = read_header(services._starter_path())
    assert header.architecture == "llama"
    assert header.quantization == "Q4_1"
    assert header.of_architecture("block_count") == 30
    assert header.of_architecture("context_length") == 8192
    assert header.array_lengths["tokenizer.ggml.tokens"] == 49152
    assert header.parameters == 134_515_008


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

from __future__ import annotations

import time
from pathlib import Path

import pytest

from core.registry import model_card
from tests.machine import slowness

# Shortened from the cards of Qwen3, Llama 3.1 quantisations and bge-m3 on the Hugging Face hub.
_CARD = """---
license: other
license_name: qwen-research
license_link: https://huggingface.co/Qwen/Qwen2.5-3B/blob/main/LICENSE
language:
- en
- zh
- no
base_model:
- Qwen/Qwen2.5-3B
base_model_relation: quantized
datasets: HuggingFaceFW/fineweb
pipeline_tag: text-generation
library_name: transformers
tags: [chat, code, chat]
model-index:
- name: x
  results: [{task: {type: Retrieval}}]
---

# Qwen2.5 3B *Instruct*

Text with --- in it.
"""


def _read(tmp_path: Path, text: str | bytes) -> tuple[dict[str, object], str]:
    path = tmp_path / "README.md"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return model_card.read(path)


@pytest.mark.parametrize("change", ["", "bom", "crlf", "blank lines before"])
def test_the_front_matter_of_a_card(tmp_path: Path, change: str) -> None:
    text = {"": _CARD, "bom": f"\ufeff{_CARD}", "crlf": _CARD.replace("\n", "\r\n"),
            "blank lines before": f"\n\n{_CARD}"}[change]  # fmt: skip
    found, note = _read(tmp_path, text)
    assert note == ""
    assert found == {
        "title": "Qwen2.5 3B *Instruct*",
        "licence": "other",
        "licence_name": "qwen-research",
        "licence_link": "https://huggingface.co/Qwen/Qwen2.5-3B/blob/main/LICENSE",
        "languages": ("en", "zh", "no"),
        "datasets": ("HuggingFaceFW/fineweb",),
        "base_models": ("Qwen/Qwen2.5-3B",),
        "base_model_relation": "quantized",
        "pipeline_tag": "text-generation",
        "library": "transformers",
        "tags": ("chat", "code"),
    }


@pytest.mark.parametrize(
    ("front", "why"),
    [
        ("license: [apache-2.0\nlanguage: en", "is no YAML in line 3"),
        ("license: a: b", "is no YAML in line 2"),
        ("\tlicense: mit", "is no YAML"),
        ("just words", "holds no fields"),
        ("a: " + "[" * 100_000, "nested too deeply"),
        ("a: !!python/object/apply:os.system ['touch x']", "is no YAML in line 2"),
        ("a: \x00", "is no YAML"),
    ],
)
def test_a_broken_card_is_a_note_and_the_title_stays(tmp_path: Path, front: str, why: str) -> None:
    found, note = _read(tmp_path, f"---\n{front}\n---\n# Name\n")
    assert why in note
    assert note.startswith("README.md: ")
    assert found == {"title": "Name"}


def test_a_front_matter_without_end_is_a_note(tmp_path: Path) -> None:
    assert "has no end" in _read(tmp_path, "---\nlicense: mit\n# Name\n")[1]
    assert _read(tmp_path, "# Only text\n") == ({"title": "Only text"}, "")
    assert _read(tmp_path, b"\xff\xfe# \x00") == ({"title": None}, "")


def test_a_bomb_of_aliases_costs_nothing(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    began_s = time.process_time()
    found, note = _read(tmp_path, "---\n" + "\n".join([*lines, "language: *a39"]) + "\n---\n")
    assert time.process_time() - began_s < 1 * slowness()
    assert note == ""
    assert found["languages"] == ()


def test_values_of_the_wrong_type_are_unknown(tmp_path: Path) -> None:
    front = "license: 3\nlanguage: {a: b}\nbase_model: [1, org/name]\nbase_model_relation: copy"
    found, _ = _read(tmp_path, f"---\n{front}\n---\n")
    assert (found["licence"], found["languages"]) == (None, ())
    assert (found["base_models"], found["base_model_relation"]) == (("org/name",), None)

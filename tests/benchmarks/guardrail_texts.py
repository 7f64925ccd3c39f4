"""The labelled texts of `tests/data/guardrails`: read, with what stands for secrets drawn anew."""

from __future__ import annotations

import base64
import random
import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "data" / "guardrails"
NOTHING = "-"
_PLACE = re.compile(r"\{(\w+)(?::([^}]*))?\}")
_LETTERS = {
    "alnum": string.ascii_letters + string.digits,
    "hex": "0123456789abcdef",
    "upper": string.ascii_uppercase + "234567",
    "digits": string.digits,
    "b64": string.ascii_letters + string.digits + "+/",
    "url64": string.ascii_letters + string.digits + "-_",
    "bech32": "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
}
_SIGNS = {"zwsp": "\u200b", "cyr_o": "\u043e", "cyr_a": "\u0430"}


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text, what should be found in it ("-": nothing), and its line from 1."""

    line: int
    label: str
    text: str

    @property
    def is_positive(self) -> bool:
        """Whether something should be found."""
        return self.label != NOTHING


def read(kind: str) -> list[Labelled]:
    """The texts of pii, secrets or injection."""
    found = []
    lines = (FOLDER / f"{kind}.tsv").read_text().splitlines()
    for number, line in enumerate(lines, 1):
        label, _, text = line.partition("\t")
        found.append(Labelled(number, label, _written(text, random.Random(f"{kind} {number}"))))
    return found


def _written(text: str, draw: random.Random) -> str:
    text = text.replace("\\\\n", "\0").replace("\\n", "\n").replace("\0", "\\n")
    return _PLACE.sub(_writer(draw), text)


def _writer(draw: random.Random) -> Callable[[re.Match[str]], str]:
    def written(found: re.Match[str]) -> str:
        name, argument = found[1], found[2]
        if name in _SIGNS:
            return _SIGNS[name]
        if name in _LETTERS and argument:
            return "".join(draw.choices(_LETTERS[name], k=int(argument)))
        if name == "base64":
            return base64.b64encode(argument.encode()).decode()
        if name == "tags":
            return "".join(chr(0xE0000 + ord(letter)) for letter in argument)
        return found[0]  # a text of its own

    return written

"""The texts in the JSON of requests and answers, at the places where they can be masked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from core.detection.examination import Passage
from core.detection.finding import Found
from core.detection.masking import as_plain_json, masked, masked_json

# Names and numbers of the API itself. An object that is called so is none of these: a tool's
# parameter may be.
_NO_TEXT = frozenset(
    {
        *("role", "type", "id", "tool_call_id", "call_id", "index", "object", "finish_reason"),
        *("stop_reason", "model", "detail", "token_ids", "encrypted_content"),
        *("signature", "file_data"),
    }
)
# Whatever they hold.
_NEVER_TEXT = frozenset({"logprobs", "input_audio", "b64_json"})
# Where media may stand as a `data:` URL.
_URLS = frozenset({"url", "image_url"})
_DEVELOPERS = "developer"
_USERS = "user"
_MODELS = "assistant"
# In which a request asks for more than a text: beside those, everything is the developer's.
_PROMPTS = frozenset({"prompt", "input", "suffix", "query", "documents"})
_DEEPEST = 64


@dataclass(slots=True)
class Placed(Passage):
    """A text at its place in a document.

    Attributes:
        holder: The object or array that it stands in.
        key: Where in that.
        is_json: The text is JSON, which stays JSON when it is masked.
    """

    holder: Any = None
    key: Any = None
    is_json: bool = False

    def mask(self, found: Sequence[Found]) -> None:
        """Put marks in the place of what was found."""
        self.text = masked_json(self.text, found) if self.is_json else masked(self.text, found)
        self.holder[self.key] = self.text


def of_request(document: dict[str, Any]) -> list[Placed]:
    """What a request asks, in OpenAI's form."""
    found: list[Placed] = []
    for name, value in document.items():
        if name == "messages" and isinstance(value, list):
            for place, message in enumerate(value):
                found += _walk(value, place, message, _role(message))
        elif _may_be_text(name, value):
            found += _walk(document, name, value, _USERS if name in _PROMPTS else _DEVELOPERS)
    return found


def of_form(names: Sequence[str], values: list[str]) -> list[Placed]:
    """What the fields of a form say."""
    return [
        passage
        for place, name in enumerate(names)
        for passage in _walk(
            values, place, values[place], _USERS if name in _PROMPTS else _DEVELOPERS
        )
    ]


def of_value(holder: Any, key: Any) -> list[Placed]:
    """What stands at one place of an answer."""
    found = not isinstance(key, str) or _may_be_text(key, holder[key])
    return list(_walk(holder, key, holder[key], _MODELS)) if found else []


def has_token_ids(document: dict[str, Any]) -> bool:
    """Whether a prompt is given in numbers, which only its model can read."""
    left = [document.get("prompt"), document.get("input")]
    while left:
        value = left.pop()
        if isinstance(value, int | float):
            return True
        if isinstance(value, list):
            left += value
    return False


def of_choice(choice: dict[str, Any]) -> list[Placed]:
    """What one choice of a whole answer says."""
    found: list[Placed] = []
    for name, value in choice.items():
        if _may_be_text(name, value):
            found += _walk(choice, name, value, _MODELS)
    message = choice.get("message")
    for each in found:
        is_content = each.holder is message and each.key == "content"
        each.is_answer = is_content or (each.holder is choice and each.key == "text")
    return found


def forget_tokens(choice: dict[str, Any]) -> None:
    """Take out what says the same once more, token by token: its text was masked."""
    if choice.get("logprobs") is not None:
        choice["logprobs"] = None
    choice.pop("token_ids", None)


def in_pieces(choice: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """What an event adds to a choice: the place of each text, the same in all events, then where.

    Parts of arrays are known by their `index`, where they have one.
    """
    for name, value in choice.items():
        if _may_be_text(name, value):
            yield from _pieces((name,), choice, name, value)


def _role(message: Any) -> str:
    role = message.get("role") if isinstance(message, dict) else ""
    return role if isinstance(role, str) else ""


def _walk(holder: Any, key: Any, value: Any, role: str, depth: int = 0) -> Iterator[Placed]:
    if isinstance(value, str):
        if value and not (key in _URLS and value.startswith("data:")):
            plain = as_plain_json(value)
            yield Placed(value if plain is None else plain, role, False, holder, key,
                         plain is not None)  # fmt: skip
    elif depth < _DEEPEST:
        for name, below in _below(value):
            yield from _walk(value, name, below, role, depth + 1)


def _pieces(
    place: tuple[Any, ...], holder: Any, key: Any, value: Any
) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    if isinstance(value, str):
        if value:
            yield place, holder, key
    elif len(place) < _DEEPEST:
        for name, below in _below(value):
            index = below.get("index") if isinstance(below, dict) else name
            yield from _pieces(
                (*place, index if isinstance(index, int) else name), value, name, below
            )


def _may_be_text(name: str, value: Any) -> bool:
    return name not in _NEVER_TEXT and (name not in _NO_TEXT or isinstance(value, dict))


def _below(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return [(name, below) for name, below in value.items() if _may_be_text(name, below)]
    return list(enumerate(value)) if isinstance(value, list) else []

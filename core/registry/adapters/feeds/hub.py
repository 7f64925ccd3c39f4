"""The Hugging Face hub: what it says of the catalogue's open models, and new ones of their makers.

`GET /api/models?author=…&expand[]=…`, a list in pages; `GET /api/models/<id>?expand[]=…` for one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from core.kernel.errors import NotFound
from core.kernel.settings import settings
from core.registry import makers
from core.registry.adapters.feeds.reading import Feed, Watch, fetch, format_changed, pages
from core.registry.catalogue_files import Entry, Fact, entry
from core.registry.identity import parse

_SETTING = "BUD_HUB_URL"
GROUP = "Hugging Face"
_EXPANDED = ("cardData", "createdAt", "downloads", "gated", "lastModified", "pipeline_tag",
             "safetensors")  # fmt: skip
_PAGE = 1000
# Of these the catalogue says what they take and give; repositories of other tasks are not added.
_TASKS = {
    "text-generation": (("text",), ("text",)),
    "image-text-to-text": (("text", "image"), ("text",)),
    "any-to-any": (("text", "image", "audio"), ("text",)),
    "feature-extraction": (("text",), ("embedding",)),
    "sentence-similarity": (("text",), ("embedding",)),
    "text-ranking": (("text",), ("ranking",)),
    "automatic-speech-recognition": (("audio",), ("text",)),
    "text-to-speech": (("text",), ("audio",)),
    "text-to-image": (("text",), ("image",)),
    "text-to-video": (("text",), ("video",)),
}
# Whole numbers that hold several packed weights: counting them is not counting parameters.
_PACKED = ("I32", "U32", "I8", "U8", "I16", "U16")
_NO_LICENCE = ("other", "unknown", "")


def _entries(watch: Watch, known: Sequence[str], day: str) -> Iterator[Entry]:
    by_author: dict[str, dict[str, str]] = defaultdict(dict)
    for hub_id in known:
        by_author[hub_id.partition("/")[0]][hub_id.lower()] = hub_id
    for done, (author, wanted) in enumerate(sorted(by_author.items())):
        watch.update(done / len(by_author), author)
        yield from _of_author(watch, author, wanted, f"Hugging Face ({day})")


def _of_author(watch: Watch, author: str, wanted: dict[str, str], source: str) -> Iterator[Entry]:
    left = dict(wanted)
    if len(wanted) > 1 or makers.is_maker(author.lower()):
        for repository in _listed(watch, author):
            if left.pop(_id(repository).lower(), None) or _is_new(repository):
                yield _entry(repository, source)
    # Repositories that were moved are found by their old id only.
    for hub_id in left.values():
        yield _looked_up(watch, hub_id, source)


def _listed(watch: Watch, author: str) -> Iterator[Mapping[str, Any]]:
    query = [("author", author), ("limit", str(_PAGE)), *_expanded()]
    try:
        yield from pages(f"{_api()}?{urlencode(query)}", _SETTING, watch, _headers())
    except NotFound:
        return


def _looked_up(watch: Watch, hub_id: str, source: str) -> Entry:
    """What the hub says of one repository; that it has none is said as well."""
    url = f"{_api()}/{quote(hub_id)}?{urlencode(_expanded())}"
    try:
        found = _entry(fetch(url, _SETTING, watch, _headers()), source)
    except NotFound:
        gone = entry(hub_id, "", GROUP, 1, {}, 1, source, is_hub=True)
        gone.facts["hub_id"] = Fact(None, 1, source)
        return gone
    found.moved_from = hub_id if found.published.name.lower() != hub_id.lower() else ""
    return found


def _entry(repository: Mapping[str, Any], source: str) -> Entry:
    card = repository.get("cardData") or {}
    takes, gives = _TASKS.get(str(repository.get("pipeline_tag")), ((), ()))
    facts = {
        "hub_id": _id(repository),
        "open_weights": True,
        "licence_note": _licence(card),
        "base_model_id": _base(card),
        "parameters": _parameters(repository.get("safetensors") or {}),
        "modalities_in": takes,
        "modalities_out": gives,
        "release_date": str(repository.get("createdAt") or "")[:10],
        "downloads": repository.get("downloads"),
        "gated": str(repository.get("gated") or "no"),
        "hub_changed": str(repository.get("lastModified") or "")[:10],
    }
    return entry(_id(repository), "", GROUP, 1, facts, 1, source, is_hub=True)


def _licence(card: Mapping[str, Any]) -> str:
    """The name of the licence; that of its own where the card says "other"."""
    stated = card.get("license")
    stated = stated[0] if isinstance(stated, list) and stated else stated
    text = str(stated or "").lower()
    return str(card.get("license_name") or "") if text in _NO_LICENCE else text


def _base(card: Mapping[str, Any]) -> str | None:
    """The repository that it was made from; None of a merge, which has several."""
    stated = card.get("base_model")
    named = stated if isinstance(stated, list) else [stated]
    return named[0] if len(named) == 1 and isinstance(named[0], str) else None


def _parameters(safetensors: Mapping[str, Any]) -> int | None:
    counts = safetensors.get("parameters") or {}
    return None if any(kind in counts for kind in _PACKED) else safetensors.get("total")


def _is_new(repository: Mapping[str, Any]) -> bool:
    """Whether it is a maker's own model, of a family and a task that the catalogue knows."""
    identity = parse(_id(repository))
    family = makers.family_of(identity.words)
    is_own = family is not None and identity.maker == family.maker
    return is_own and repository.get("pipeline_tag") in _TASKS


def _id(repository: Mapping[str, Any]) -> str:
    try:
        return str(repository["id"])
    except (KeyError, TypeError) as error:
        raise format_changed("Hugging Face", "ids of models") from error


def _api() -> str:
    return f"{settings().hub_url.rstrip('/')}/api/models"


def _expanded() -> list[tuple[str, str]]:
    return [("expand[]", each) for each in _EXPANDED]


def _headers() -> dict[str, str]:
    token = settings().huggingface_token
    return {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}


FEED = Feed(
    "Hugging Face",
    "licence, base model, parameters, downloads, last change and gate of the catalogue's open "
    "models, and new models of their makers",
    _SETTING,
    "",
    _entries,
)

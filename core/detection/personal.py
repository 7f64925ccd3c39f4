"""Personal data that has a form: addresses and numbers. Names have none, and are not found."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import get_args

from core.contracts.guardrails import PersonalEntity
from core.detection import numbers
from core.detection.finding import Form, FormFinder

ENTITIES: tuple[PersonalEntity, ...] = get_args(PersonalEntity)
# What stands behind a dot there is a kind of file, not a country: `icon@2x.png`.
_FILE_ENDINGS = frozenset(
    {
        *("png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "tsx", "jsx", "py", "go"),
        *("java", "json", "yaml", "yml", "toml", "txt", "html", "lock", "so", "dll", "exe", "whl"),
        *("gz", "zip", "min", "map", "woff"),
    }
)
_DIGITS_OF_PHONES = range(7, 16)
_NO_NINO = frozenset({"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"})


def finder(entities: Iterable[PersonalEntity] = ()) -> FormFinder:
    """Finds these kinds of personal data; all, when none is named."""
    wanted = set(entities) or set(ENTITIES)
    return FormFinder([form for form in _FORMS if form.entity in wanted])


def _stands_alone(text: str, start: int) -> bool:
    """Whether a number is no part of a longer one, such as a decimal or a version."""
    before = text[start - 1] if start else ""
    return not (before.isalnum() or before in tuple("._-+/#@"))


def _whole(holds: Callable[[str], bool]) -> Callable[[str, int, int], int]:
    """Accepts all of a match when a check holds for its letters and digits."""

    def accept(text: str, start: int, end: int) -> int:
        plain = "".join(filter(str.isalnum, text[start:end]))
        return end if _stands_alone(text, start) and holds(plain) else 0

    return accept


def _email(text: str, start: int, end: int) -> int:
    before = text[start - 1] if start else ""
    if before.isalnum() or before in tuple("._%+-"):
        return 0
    local, _, domain = text[start:end].rpartition("@")
    if local == "git" or domain.rpartition(".")[2].lower() in _FILE_ENDINGS:
        return 0
    return 0 if local.startswith(".") or ".." in local else end


def _phone(text: str, start: int, end: int) -> int:
    before = text[start - 1] if start else ""
    if before.isalnum() or before in tuple("._-+/#*$"):
        return 0
    groups = numbers.ends_of_groups(text, start, end)
    return next((stop for digits, stop in groups if len(digits) in _DIGITS_OF_PHONES), 0)


def _us_phone(text: str, start: int, end: int) -> int:
    marks = {each for each in text[start:end] if each in ".-"}
    return _phone(text, start, end) if len(marks) < 2 else 0


def _card(text: str, start: int, end: int) -> int:
    if not _stands_alone(text, start):
        return 0
    groups = numbers.ends_of_groups(text, start, end)
    return next(
        (stop for digits, stop in groups if len(digits) > 12 and numbers.is_card(digits)), 0
    )


def _iban(text: str, start: int, end: int) -> int:
    length = numbers.iban_length(text[start:end].upper())
    for letters, stop in numbers.ends_of_groups(text, start, end):
        if len(letters) == length:
            return stop if numbers.is_iban(letters.upper()) else 0
    return 0


def _ipv4(text: str, start: int, end: int) -> int:
    before = text[start - 1] if start else ""
    if before.isalnum() or before in (".", "-", "_") or text[end : end + 1] in ("-", "_"):
        return 0
    return end if _is_somewhere(text[start:end]) else 0


def _ipv6(text: str, start: int, end: int) -> int:
    shown = text[start:end].rstrip(":")
    if start and (text[start - 1].isalnum() or text[start - 1] == ":"):
        return 0
    enough = sum(each != ":" for each in shown) >= 8
    return start + len(shown) if enough and _is_somewhere(shown) else 0


def _is_somewhere(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    reserved = found.is_loopback or found.is_unspecified or found.is_multicast or found.is_reserved
    return not reserved


def _nino(letters: str) -> bool:
    return letters[:2] not in _NO_NINO


def _aadhaar(digits: str) -> bool:
    return len(digits) == 12 and numbers.is_aadhaar(digits)


def _ssn(text: str, start: int, end: int) -> int:
    same = text[start + 3] == text[start + 6]
    return _whole(numbers.is_us_ssn)(text, start, end) if same else 0


_SAYS_PHONE = (
    r"(?i:\b(?:tel|phone|telephone|telefon|fon|mobile?|handy|cell|fax|whatsapp|tél|téléphone|"
    r"teléfono|telefono|móvil|portable|rufnummer|call me (?:at|on))(?:nummer| number| no)?"
    r"[.:]{0,2} {0,2}(?:is |ist |est |es |lautet |at |on |unter |au )?)"
)
_FORMS: tuple[Form, ...] = (
    Form(
        "email",
        # The letters of Europe's scripts; other ones have no spaces between words.
        r"[A-Za-z0-9._%+\x{c0}-\x{52f}-]+@[A-Za-z0-9.\x{c0}-\x{52f}-]+\.[A-Za-z]{2,24}\b",
        _email,
    ),
    Form(
        "phone",
        r"\+[0-9]{1,3}[ ./-]?(?:\([0-9]{1,4}\)[ ./-]?)?[0-9]{1,4}(?:[ ./-]?[0-9]{2,4}){1,5}\b",
        _phone,
    ),
    Form(
        "phone",
        r"(?:\([2-9][0-9]{2}\) ?|\b[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}\b",
        _us_phone,
    ),
    Form("phone", r"\(0[0-9]{1,5}\)[ -]?[0-9]{2,8}(?:[ -]?[0-9]{2,4}){0,4}\b", _phone),
    Form("phone", r"\b0[1-9](?: [0-9]{2}){4}\b|\b0[1-9](?:\.[0-9]{2}){4}\b", _phone),
    Form("phone", rf"{_SAYS_PHONE}(?P<value>[0-9(][0-9 ()/.-]{{5,18}}[0-9])\b", _phone),
    Form("card", r"\b[0-9](?:[ -]?[0-9]){12,18}\b", _card),
    Form("iban", r"(?i:\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)\b", _iban),
    Form("ip_address", r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?:\.[0-9]{1,3})*\b", _ipv4),
    Form("ip_address", r"\b[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}", _ipv6),
    Form("us_ssn", r"\b[0-9]{3}[ -][0-9]{2}[ -][0-9]{4}\b", _ssn),
    Form(
        "uk_nino",
        r"\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]\b",
        _whole(_nino),
    ),
    Form("es_dni", r"\b[0-9XYZ][0-9]{7}-?[A-HJ-NP-TV-Z]\b", _whole(numbers.is_dni)),
    Form(
        "fr_nir",
        r"\b[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]) ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}\b",
        _whole(numbers.is_nir),
    ),
    Form("br_cpf", r"\b[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}\b", _whole(numbers.is_cpf)),
    Form(
        "in_aadhaar",
        r"\b[2-9][0-9]{3}(?: [0-9]{4}){2,4}\b|\b[2-9][0-9]{3}(?:-[0-9]{4}){2,4}\b",
        _whole(_aadhaar),
    ),
)

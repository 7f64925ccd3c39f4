"""Check digits and ranges of the numbers that people and banks are known by."""

from __future__ import annotations

from collections.abc import Iterator

# Length of an IBAN by country: the registry of SWIFT (ISO 13616), 2025.
_IBAN_LENGTHS = {
    **dict.fromkeys(("NO",), 15), **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FI", "FO", "GL", "NL", "FK", "SD"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "XK"), 20), "MN": 20,
    **dict.fromkeys(("CH", "CR", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "BH", "DE", "GB", "GE", "IE", "ME", "RS", "VA"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "OM", "SO", "TL"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25), **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("BI", "DJ", "FR", "GR", "IT", "MC", "MR", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "GT", "HN", "HU", "LB", "NI", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU", "YE"), 30), **dict.fromkeys(("MT", "SC"), 31),
    "LC": 32, "RU": 33,
}  # fmt: skip
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_VERHOEFF_PRODUCT = [
    [(a + b) % 5 if b < 5 else (a + b) % 5 + 5 for b in range(10)]
    if a < 5
    else [5 + (a - b) % 5 if b < 5 else (a - b) % 5 for b in range(10)]
    for a in range(10)
]
_VERHOEFF_PERMUTATION = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]


def luhn(digits: str) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812)."""
    doubled = [2 * int(each) - 9 * (int(each) > 4) for each in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def is_card(digits: str) -> bool:
    """Whether it is the number of a payment card: its issuer's range, its length, and Luhn."""
    return len(digits) in _card_lengths(digits) and len(set(digits)) > 1 and luhn(digits)


def _card_lengths(digits: str) -> tuple[int, ...]:
    """The lengths that numbers of this range have."""
    two, four = int(digits[:2]), int(digits[:4])
    if digits[0] == "4":
        return (13, 16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return (16,)
    if two in (34, 37):
        return (15,)
    if two in (36, 38, 39) or 3000 <= four <= 3059:
        return (14, 16, 19)
    if two in (35, 62, 65) or four == 6011 or 6440 <= four <= 6499:
        return (16, 17, 18, 19)
    if four in (5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763):
        return tuple(range(13, 20))
    return ()


def iban_length(text: str) -> int:
    """How many characters an IBAN of the country that a text begins with has; 0: none."""
    return _IBAN_LENGTHS.get(text[:2], 0)


def is_iban(text: str) -> bool:
    """Whether the two digits behind the country check the rest (ISO 7064, mod 97)."""
    moved = text[4:] + text[:4]
    return int("".join(str(int(each, 36)) for each in moved)) % 97 == 1


def is_us_ssn(digits: str) -> bool:
    """Whether the Social Security Administration gives such numbers out."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def is_dni(text: str) -> bool:
    """Whether the letter behind a Spanish DNI or NIE checks it."""
    digits = text[:-1].translate(str.maketrans("XYZ", "012"))
    return _DNI_LETTERS[int(digits) % 23] == text[-1]


def is_nir(text: str) -> bool:
    """Whether the key behind a French social security number checks it."""
    number = text[:-2].replace("2A", "19").replace("2B", "18")
    return 97 - int(number) % 97 == int(text[-2:])


def is_cpf(digits: str) -> bool:
    """Whether the two digits behind a Brazilian CPF check it."""
    return len(set(digits)) > 1 and all(
        int(digits[size]) == _cpf_check(digits[:size]) for size in (9, 10)
    )


def _cpf_check(digits: str) -> int:
    weights = range(len(digits) + 1, 1, -1)
    total = sum(int(each) * weight for each, weight in zip(digits, weights, strict=True))
    return total * 10 % 11 % 10


def is_aadhaar(digits: str) -> bool:
    """Whether the last digit of an Indian Aadhaar number checks it (Verhoeff)."""
    check = 0
    for place, each in enumerate(reversed(digits)):
        check = _VERHOEFF_PRODUCT[check][_permuted(int(each), place)]
    return check == 0


def _permuted(digit: int, times: int) -> int:
    for _ in range(times % 8):
        digit = _VERHOEFF_PERMUTATION[digit]
    return digit


def ends_of_groups(text: str, start: int, end: int) -> Iterator[tuple[str, int]]:
    """The beginnings of a number that end with one of its groups, the longest first.

    Gives each one's letters and digits, and where it ends.
    """
    for stop in range(end, start, -1):
        if stop == end or (text[stop - 1].isalnum() and not text[stop].isalnum()):
            yield "".join(filter(str.isalnum, text[start:stop])), stop

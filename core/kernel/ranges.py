"""Numbers out of their range, refused in the same words everywhere."""

from __future__ import annotations

from core.kernel.errors import InvalidInput


def require_within(label: str, value: float, least: float, most: float) -> None:
    """Whether a number that a person gave lies between two others, both included.

    Args:
        label: What it is, as the person sees it: `Input tokens`, `Total (s)`.
        value: What was given.
        least: The lowest that is taken.
        most: The highest.

    Raises:
        InvalidInput: It does not; says the number and the range.
    """
    if not least <= value <= most:
        raise out_of_range(label, value, f"{told(least)} to {told(most)}")


def out_of_range(label: str, value: float, range_words: str) -> InvalidInput:
    """The error for a number that is not in `range_words`, such as `1 to 64`."""
    return InvalidInput(f"{label}: {told(value)} is out of range.", remedy=f"Give {range_words}.")


def told(number: float) -> str:
    """A number in words for people: `1,000,000`, `0.05`."""
    return f"{number:,}" if isinstance(number, int) else f"{number:,.15g}"

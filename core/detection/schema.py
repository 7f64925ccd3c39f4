"""Whether a text is JSON that a schema allows.

The schema's patterns run on RE2 and references stay inside of it: neither can a text take for ever,
nor a schema make this machine fetch something.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import msgspec

from core.kernel import clock

LONGEST_TEXT = 1_000_000
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


class TimeUp(Exception):
    """The walk through a text took too long."""


class SchemaReader:
    """A schema, ready.

    Args:
        schema: JSON Schema, draft 2020-12 unless its `$schema` says another.

    Raises ValueError: it is none, or it leads elsewhere.
    """

    def __init__(self, schema: str) -> None:
        # Loaded only where an answer must be JSON: 9 MB.
        import jsonschema
        import referencing
        from jsonschema import validators

        try:
            document = msgspec.json.decode(schema)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"it is no JSON: {error}") from None
        if not isinstance(document, dict):
            raise ValueError("a schema is a JSON object")
        for found in _references(document):
            if not found.startswith("#"):
                raise ValueError(f"the reference {found!r} leads out of it: copy that in")
        dialect = validators.validator_for(document, default=jsonschema.Draft202012Validator)
        own = {"pattern": _pattern, "patternProperties": _properties}
        checks = {**dialect.VALIDATORS, **own}
        kind = validators.extend(
            dialect, {name: self._timed(check) for name, check in checks.items()}
        )
        try:
            kind.check_schema(document)
        except jsonschema.SchemaError as error:
            raise ValueError(f"{error.json_path}: {error.message[:200]}") from None
        for pattern in _patterns(document):
            _compiled(pattern)
        self._validator = kind(document, registry=referencing.Registry())
        self._deadlines = threading.local()

    def problem(self, text: str, within_s: float = math.inf) -> str:
        """Why a text is not allowed, in words without any of it; "" when it is. Raises TimeUp."""
        import referencing.exceptions

        if len(text) > LONGEST_TEXT:
            return f"it has over {LONGEST_TEXT:,} characters"
        try:
            document = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return "it is no JSON"
        self._deadlines.at_s = clock.monotonic_s() + within_s
        try:
            error = next(self._validator.iter_errors(document), None)
        except (RecursionError, referencing.exceptions.Unresolvable):
            return "the schema cannot be applied to it"
        return "" if error is None else f"{_place(error)} breaks {error.validator!r}"

    def _timed(self, check: Any) -> Any:
        def timed(*given: Any) -> Any:
            if clock.monotonic_s() > self._deadlines.at_s:
                raise TimeUp
            return check(*given)

        return timed


def _place(error: Any) -> str:
    """Where it breaks the rule, by the schema: names in the answer are its text."""
    path = "/".join(str(part) for part in error.absolute_schema_path)
    return f"what #/{path} is about"[:200]


def _references(schema: Any) -> Iterator[str]:
    for each in _objects(schema):
        yield from (str(each[name]) for name in _REFERENCES if isinstance(each.get(name), str))


def _patterns(schema: Any) -> Iterator[str]:
    for each in _objects(schema):
        if isinstance(each.get("pattern"), str):
            yield each["pattern"]
        if isinstance(each.get("patternProperties"), dict):
            yield from each["patternProperties"]


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for each in schema:
            yield from _objects(each)


def _compiled(pattern: str) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error:
        raise ValueError(f"{pattern!r} is no pattern in RE2's syntax") from None


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and _compiled(pattern).search(instance) is None:
        yield ValidationError("no match")


def _properties(validator: Any, properties: Any, instance: Any, _schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for pattern, below in properties.items():
        compiled = _compiled(pattern)
        for name, value in instance.items():
            if compiled.search(name) is not None:
                yield from validator.descend(value, below, path=name, schema_path=pattern)

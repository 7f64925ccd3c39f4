"""Secrets that have a form: keys as their issuers document them, and passwords that are named so.

The forms are those that issuers publish, such as GitHub's token prefixes. What is made of one
letter or says of itself that it is an example is no secret.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import get_args

from core.contracts.guardrails import SecretEntity
from core.detection.finding import Form, FormFinder

ENTITIES: tuple[SecretEntity, ...] = get_args(SecretEntity)
# Bits of a character; letters and digits drawn at random have more, words and repetitions less.
_RANDOM_BITS = 2.8
_PLACEHOLDERS = (
    "example", "placeholder", "changeme", "change_me", "change-me", "dummy", "xxxx", "your_",
    "your-", "yourkey", "redacted", "insert", "replace", "todo", "****", "....", "<", "{", "}",
    "abcdefghijklmnop", "1234567890abcdef", "0123456789",
)  # fmt: skip
# What code and documents put in the place of a password.
_NO_VALUES = frozenset(
    {
        *("true", "false", "null", "none", "nil", "undefined", "string", "str", "text", "bytes"),
        *("int", "number", "required", "optional", "value", "secret", "password", "passwd", "pwd"),
        *("token", "key", "apikey", "api_key", "my_secret", "my_password", "mypassword", "the"),
        *("self", "this", "env", "environ", "getenv", "input", "prompt", "read", "hidden"),
        *("masked", "empty"),
    }
)


def finder(entities: Iterable[SecretEntity] = ()) -> FormFinder:
    """Finds these kinds of secrets; all, when none is named."""
    wanted = set(entities) or set(ENTITIES)
    return FormFinder([form for form in _FORMS if form.entity in wanted])


def bits_per_character(text: str) -> float:
    """Shannon's entropy of the characters of a text; 0 for one that is empty."""
    counts = Counter(text).values()
    return -sum(each / len(text) * math.log2(each / len(text)) for each in counts)


def _is_placeholder(text: str) -> bool:
    lowered = text.lower()
    return any(each in lowered for each in _PLACEHOLDERS)


def _key(text: str, start: int, end: int) -> int:
    key = text[start:end]
    before = text[start - 1] if start else ""
    if before.isalnum() or before == "_" or _is_placeholder(key):
        return 0
    drawn = key[-max(len(key) - 8, 12) :]
    has_digit = any(each.isdigit() for each in drawn)
    return end if has_digit and bits_per_character(drawn) >= _RANDOM_BITS else 0


def _jwt(text: str, start: int, end: int) -> int:
    return 0 if start and text[start - 1].isalnum() else end


def _in_url(text: str, start: int, end: int) -> int:
    password = text[start:end]
    is_name = password.startswith(("$", "%")) or password.lower() in _NO_VALUES
    return 0 if is_name or _is_placeholder(password) else end


def _header(text: str, start: int, end: int) -> int:
    token = text[start:end]
    if _is_placeholder(token) or not any(each.isdigit() for each in token):
        return 0
    return end if bits_per_character(token) >= _RANDOM_BITS else 0


def _assigned(text: str, start: int, end: int) -> int:
    """A value that stands behind the name of a secret: is it one, or the name of one?"""
    quoted = start > 0 and text[start - 1] in "\"'`"
    value = text[start:end]
    if not quoted:
        value = value.rstrip(".!?:")
        end = start + len(value)
    plain = value.lower().strip("_-")
    if len(value) < 6 or plain in _NO_VALUES or _is_placeholder(value):
        return 0
    if value.startswith(("$", "%", "&", "/", "http:", "https:")) or "(" in value or "[" in value:
        return 0
    if _is_name(value):
        return 0
    kinds = [any(test(each) for each in value) for test in (str.isalpha, str.isdigit, _is_sign)]
    return end if quoted or sum(kinds) > 1 else 0


def _is_name(value: str) -> bool:
    """Whether it is a name of code or a word with dots, such as `settings.api_key`."""
    parts = value.replace("-", "_").replace(".", "_").split("_")
    return len(parts) > 1 and all(part.isalpha() for part in parts if part)


def _is_sign(letter: str) -> bool:
    return not letter.isalnum()


# Keys that begin with their issuer's own letters.
_KEYS = (
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",  # AWS
    r"gh[pousr]_[A-Za-z0-9]{36,}",  # GitHub
    r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{50,}",
    r"gl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_-]{20,}",  # GitLab
    r"xox[abeprs]-[A-Za-z0-9-]{20,}",  # Slack
    r"xapp-[0-9]-[A-Za-z0-9-]{20,}",
    r"https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/]{30,}",
    r"[sr]k_(?:live|test|prod)_[A-Za-z0-9]{16,}",  # Stripe
    r"whsec_[A-Za-z0-9+/=]{24,}",
    r"sk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]{3,8}-|or-v1-|lf-)?[A-Za-z0-9_-]{20,}",  # OpenAI …
    r"AIza[A-Za-z0-9_-]{35}",  # Google
    r"ya29\.[A-Za-z0-9_-]{20,}",
    r"GOCSPX-[A-Za-z0-9_-]{28}",
    r"(?:hf|api_org)_[A-Za-z0-9]{34,40}",  # Hugging Face
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}",
    r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",  # SendGrid
    r"SK[0-9a-f]{32}\b",  # Twilio
    r"do[opr]_v1_[a-f0-9]{64}",  # DigitalOcean
    r"dapi[a-f0-9]{32}(?:-[0-9])?\b",  # Databricks
    r"gsk_[A-Za-z0-9]{40,}",  # Groq
    r"xai-[A-Za-z0-9]{60,}",
    r"nvapi-[A-Za-z0-9_-]{60,}",
    r"r8_[A-Za-z0-9]{37}",  # Replicate
    r"pplx-[A-Za-z0-9]{40,}",  # Perplexity
    r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}",  # Telegram
    r"AccountKey=[A-Za-z0-9+/]{86}==",  # Azure storage
    r"[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}",  # Azure Entra ID
    r"hv[sb]\.[A-Za-z0-9_-]{24,}",  # HashiCorp Vault
    r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,}",  # Terraform
    r"dckr_pat_[A-Za-z0-9_-]{27}",
    r"dp\.(?:pt|st|ct|sa)\.[A-Za-z0-9._-]{40,}",  # Doppler
    r"lin_api_[A-Za-z0-9]{40}",
    r"(?:ntn|secret)_[A-Za-z0-9]{43,}",  # Notion
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",  # Shopify
    r"ATATT3[A-Za-z0-9_=-]{60,}",  # Atlassian
    r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}",  # Postman
    r"gl(?:sa|c)_[A-Za-z0-9+/_]{32,}",  # Grafana
    r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}",
    r"bud-[A-Za-z0-9]{32,}",
)
# What all of them are made of.
_WORD = r"[A-Za-z0-9_~.][A-Za-z0-9_~.+/=:-]*"
_NAMES = (
    r"(?i:(?:password|passwort|passwd|passphrase|pwd|mot de passe|contraseña|kennwort|secret|"
    r"api[_ -]?key|access[_ -]?key|secret[_ -]?key|private[_ -]?key|client[_ -]?secret|"
    r"auth[_ -]?token|access[_ -]?token|refresh[_ -]?token|bearer[_ -]?token|[a-z]_token|"
    r"[a-z]_secret|[a-z]_key|[a-z]_password))"
)
_FORMS: tuple[Form, ...] = (
    Form(
        "private_key",
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:\\[rn]|[A-Za-z0-9+/=\s:.,()-]){0,}?(?:-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"|\z)",
    ),
    *(Form("api_key", key, _key, _WORD) for key in _KEYS),
    Form("jwt", r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{10,}", _jwt),
    Form(
        "url_password",
        r"\b[a-zA-Z][a-zA-Z0-9+.-]{1,24}://[^\s:/@\"'<>?#]*:(?P<value>[^\s/@\"'<>]{3,})@"
        r"[A-Za-z0-9_.\[-]",
        _in_url,
    ),
    Form(
        "bearer",
        r"(?i:\b(?:bearer|basic|authorization: ?token|x-api-key:) {1,2})"
        r"(?P<value>[A-Za-z0-9._~+/-]{20,}={0,2})",
        _header,
    ),
    Form(
        "password",
        _NAMES
        + r"\\?[\"'`]?\s{0,4}(?::=|=>|[:=]|(?i: is| ist| est| es| lautet)\b:?)\s{0,4}\\?[\"'`]?"
        r"(?P<value>[^\s\"'`,;\\]+)",
        _assigned,
    ),
)

"""Finds keys and passwords that were left in text; what it reports is masked."""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.registry.scanners.report import Finding

# How each begins, and how it goes on, as its issuer documents it. Only forms that can hardly be a
# word are taken. The beginnings are searched first: that is 15 times faster than one pattern.
_FORMS: tuple[tuple[str, tuple[bytes, ...], bytes], ...] = (
    ("an AWS access key", (b"AKIA", b"ASIA"), rb"[0-9A-Z]{16}\b"),
    ("a Hugging Face token", (b"hf_", b"api_org_"), rb"[A-Za-z]{34,40}\b"),
    ("an Anthropic key", (b"sk-ant-",), rb"[a-z0-9]{3,8}-[\w\-]{32}"),
    ("an OpenRouter key", (b"sk-or-v1-",), rb"[0-9a-f]{64}"),
    ("an OpenAI key", (b"sk-",), rb"[\w\-]{16,200}T3BlbkFJ[\w\-]{16}"),
    ("a GitHub token", (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"), rb"[A-Za-z0-9]{36}"),
    ("a GitHub token", (b"github_pat_",), rb"\w{50}"),
    ("a GitLab token", (b"glpat-",), rb"[\w\-]{20}"),
    ("a Google API key", (b"AIza",), rb"[\w\-]{35}"),
    ("a Google OAuth token", (b"ya29.",), rb"[\w\-]{40}"),
    ("a Slack token", (b"xoxa-", b"xoxb-", b"xoxp-", b"xoxr-", b"xoxs-"), rb"[0-9A-Za-z\-]{20}"),
    ("a Stripe key", (b"sk_live_", b"rk_live_"), rb"[0-9a-zA-Z]{24}"),
    ("a SendGrid key", (b"SG.",), rb"[\w\-]{22}\.[\w\-]{43}"),
    ("an npm token", (b"npm_",), rb"[A-Za-z0-9]{36}"),
    ("a PyPI token", (b"pypi-AgEIcHlwaS5vcmc",), rb"[\w\-]{50}"),
    ("a Groq key", (b"gsk_",), rb"[A-Za-z0-9]{48}"),
    ("an NVIDIA key", (b"nvapi-",), rb"[\w\-]{60}"),
    ("an Azure storage key", (b"AccountKey=",), rb"[A-Za-z0-9+/]{86}=="),
    ("a private key", (b"-----BEGIN ",), rb"(?:[A-Z]{2,10} )?PRIVATE KEY-----"),
    ("a JSON Web Token", (b"eyJ",), rb"[\w\-]{16,400}\.eyJ[\w\-]{16,4000}\.[\w\-]{32}"),
    ("a password in an address", (b"://",),
     rb"[^\s/:@\"'<>{}$]{1,64}:[^\s/:@\"'<>{}$]{6,64}@[a-z0-9\-]+[.:/]"),
)  # fmt: skip
_PATTERNS = tuple(
    (what, beginning, re.compile(rest)) for what, all_, rest in _FORMS for beginning in all_
)
_WORD = re.compile(rb"[A-Za-z0-9]")
# The longest of them; a key may lie over the border of two chunks.
_OVERLAP_BYTES = 4096
_MAX_REPORTED = 20


class SecretReader:
    """A sink that collects what looks like a secret, with its line."""

    def __init__(self) -> None:
        self._tail = b""
        self._line = 1
        self._found: dict[tuple[int, str], str] = {}

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of a text."""
        text = self._tail + chunk
        for what, start, beginning in _matches(text):
            line = self._line + text.count(b"\n", 0, start)
            if len(self._found) < _MAX_REPORTED:
                # What lies in the overlap of two chunks is seen twice.
                self._found.setdefault((line, what), beginning)
        kept = text[-_OVERLAP_BYTES:]
        self._line += text.count(b"\n", 0, len(text) - len(kept))
        self._tail = kept

    def findings(self, file: str) -> list[Finding]:
        """One finding a secret; its text is never in it."""
        return [
            Finding(
                severity="high",
                kind="secret",
                file=file,
                what=f"Line {line} holds what looks like {what} ({beginning}…).",
                remedy="Revoke it where it was made, and take it out of the file.",
            )
            for (line, what), beginning in self._found.items()
        ]


def _matches(text: bytes) -> Iterator[tuple[str, int, str]]:
    """What each secret is, where it begins, and its first letters, which only name its kind."""
    for what, beginning, rest in _PATTERNS:
        at = text.find(beginning)
        while at >= 0:
            follows_word = at > 0 and beginning[0:1].isalnum() and _WORD.match(text, at - 1)
            if not follows_word and rest.match(text, at + len(beginning)):
                yield what, at, beginning.decode()
            at = text.find(beginning, at + 1)

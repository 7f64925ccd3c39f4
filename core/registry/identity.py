"""What a published model name says: its maker, family, size, tuning, snapshot and setting.

A *model* is one set of weights as its maker ships it. A dated snapshot is a model of its own, a
quantisation is a child of its model, and an effort level, a prompt format or a host is a setting
of the same model. See `docs/identity.md`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from core.registry import makers

_BEDROCK_REGION = re.compile(r"^(us-gov|us|eu|apac|global|jp|au|ca|sa)\.(?=[a-z])")
_DOTTED_MAKER = re.compile(r"^([a-z0-9]+)\.(?=[a-z])")
_BEDROCK_REVISION = re.compile(r"-v?(\d+):(\d+)(:\d+k|:mm)?$")
_HOST_AFTER_AT = re.compile(r"@(?!\d)[\w-]+$")
_PARENTHESES = re.compile(r"[\(\[]([^()\[\]]*)[\)\]]")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH_YEAR = re.compile(rf"\b({'|'.join(_MONTHS)})[a-z]*\.?-?(\d{{4}})\b")

_QUANTISATION = re.compile(
    r"(?<![a-z0-9])((?:nv|mx)?fp[48](?:-dynamic|-block|-throughput)?|int[48]|w\d+a\d+|awq|gptq(?:-int[48])?"
    r"|i?q\d(?:[-_][k0-9])?(?:[-_](?:xs|xxs|s|m|l|xl))?|[468]-?bit|bnb-[48]bit|exl2|mlx(?:-\d-?bit)?|gguf|quantized|qat)(?![a-z0-9])"
)
_DATES = (
    (re.compile(r"(?<!\d)(20[12]\d)-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(?!\d)"), "ymd"),
    (re.compile(r"(?<!\d)(20[12]\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?!\d)"), "ymd"),
    (re.compile(r"(?<!\d)(20[12]\d)(0[1-9]|1[0-2])(?!\d)"), "ym"),
    (re.compile(r"(?<!\d)(2[2-6])(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?!\d)"), "ymd"),
    (re.compile(r"(?<![\d.])(0[1-9]|1[0-2])-(20[12]\d)(?!\d)"), "my"),
    (re.compile(r"(?<![\d.])(20[12]\d)-(0[1-9]|1[0-2])(?![\d-])"), "ym"),
    (re.compile(r"(?<![\d.])(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(?![\d.a-z])"), "md"),
    (re.compile(r"(?<![\d.a-z])(2[2-6])(0[1-9]|1[0-2])(?![\d.a-z])"), "ym"),
    (re.compile(r"(?<![\d.a-z])(?!1024)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?![\d.a-z])"), "md"),
    (re.compile(r"(?<![\d.a-z])(2[2-6])[.](0[1-9]|1[0-2])(?![\d.a-z])"), "ym"),
    (re.compile(r"(?<![\d.a-z])(0[1-9]|1[0-2])-(2[4-6])(?![\d.a-z])"), "my"),
)
_ACTIVE = re.compile(r"(?<![a-z0-9])a(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")
_EXPERTS = re.compile(r"(?<![a-z0-9.])(\d+)e(?![a-z0-9])")
_SIZE = re.compile(
    r"(?<![\d.])(?<![a-df-z]v)((?:\d+x)?e?\d+(?:\.\d+)?)-?([bmt])(?:illion)?(?![a-z0-9])"
)
_REVISION = re.compile(r"(?<![\d.])00[1-9](?!\d)")

_TUNING = {
    "instruct": "instruct",
    "instruction": "instruct",
    "instructed": "instruct",
    "inst": "instruct",
    "it": "instruct",
    "chat": "chat",
    "base": "base",
}
# An ollama tag such as `llama3:70b` does not say which tuning it serves.
_SIZE_TAG = re.compile(r":\d+(?:\.\d+)?b$")
_NOISE = frozenset(
    (
        *("hf", "bf16", "fp16", "f16", "float16", "f32", "the", "official", "version", "original"),
        *("free", "maas", "tee", "cloud", "cs", "spot", "api", "default", "serverless", "nitro"),
        *("exacto", "us", "eu"),
    )
)
_SETTING_WORDS = frozenset(
    (
        *("fc", "prompt", "prompting", "diff", "udiff", "whole", "greedy", "concise", "verbose"),
        *("nothinking", "nothink", "enabled", "disabled", "architect"),
    )
)
_EFFORTS = frozenset(("minimal", "low", "medium", "high", "xhigh", "none"))
_EFFORT_FAMILY = re.compile(r"^(gpt[5-9]|gptoss|o[134]$|grok3$|grok4)")
_THINKING = frozenset(("thinking", "think", "extended"))
_DENIALS = frozenset(("no", "non"))
_THINKING_FAMILY = re.compile(
    r"^(claude|gemini2\.5|gemini[3-9]|glm4\.[5-9]|glm[5-9]|deepseek3\.[1-9]|deepseek[4-9]"
    r"|k2\.[5-9]|k[3-9]|qwen3\.[5-9]|grok4)"
)
_BUDGET = re.compile(
    r"\b(thinking|think)-(?:\d+k|1024|2048|4096|8000|8192|16000|16384|32000|32768|64000)\b"
    r"|\b\d+k-(thinking|think)\b"
)
_RUN_NOTE = re.compile(
    r"^(?:(?:thinking|think|reasoning|no|non|default|minimal|low|medium|high|xhigh|fc|prompt|diff|udiff"
    r"|whole|free|tokens|deprecated|unsloth|\d+k)[\s,+-]*)+$"
)
_RUN_NOTES = re.compile(r"^(.+?)(?:,| with | on | via )(.*)$")
_DIMENSIONS = re.compile(r"(?:embed-dim|output-dtype)=[a-z0-9]+")
_HOST_PREFIXES = frozenset(
    ("databricks", "ollama", "azure", "fw", "venice", "amazon", "c4ai", "tee", "groq")
)
_HOST_SUFFIX = re.compile(r"-(?:free|tee|maas|default|exacto|nitro|fc|original)$")
_ENDPOINTS = re.compile(r"^(?:edit|(?:text|image|reference|video)-to-(?:image|video)|.*-frame.*)$")
_ENDPOINT_HOSTS = frozenset(("fal_ai", "fal-ai", "aiml"))
_COMPOUNDS = (
    (re.compile(r"\bgpt-?3\.?5\b"), "gpt-3.5"),
    (re.compile(r"\bgrok-4-20\b"), "grok-4.20"),
    (re.compile(r"\bgrok-([34])([1-9])\b"), r"grok-\1.\2"),
    (re.compile(r"\bl31-"), "l3.1-"),
    (re.compile(r"\bgemini-([1-9])(5)-"), r"gemini-\1.\2-"),
    (re.compile(r"\bflux[.-]1-kontext\b"), "flux-kontext"),
    (re.compile(r"\b(ernie-4\.5[\w.-]*?)-(?:pt|paddle)$"), r"\1"),
    (re.compile(r"(20\d\d-\d\d-\d\d)-v\d$"), r"\1"),
    (re.compile(r"-dspy-[a-z0-9-]+$"), ""),
    (re.compile(r"\b(nova-(?:2-)?[a-z]+)-v?1(?:\.0)?$"), r"\1"),
    (re.compile(r"\b(claude-(?:opus|sonnet|haiku)-[\d.-]+)-v1$"), r"\1"),
    (re.compile(r"\bgpt-([45])([1-9])(?=-|$)"), r"gpt-\1.\2"),
    (re.compile(r"\bgpt-oss\b"), "gptoss"),
    (re.compile(r"\bgpt-(neox|neo|j)\b"), r"gpt\1"),
    (re.compile(r"^duo-chat-(?=haiku|opus|sonnet)"), "claude-"),
    (re.compile(r"^duo-chat-"), ""),
    (re.compile(r"\bcode-?llama\b"), "codellama"),
    (re.compile(r"\bcommand-r\+"), "command-r-plus"),
    (re.compile(r"\bchat-gpt\b"), "chatgpt"),
    (re.compile(r"\bwizard-(lm|coder|math)\b"), r"wizard\1"),
    (re.compile(r"\bdeepseekv(?=\d)"), "deepseek-v"),
    (re.compile(r"\bdeepseek-chat-v(?=\d)"), "deepseek-v"),
    (re.compile(r"\bdeepseek-v(\d(?:\.\d)?)-chat\b"), r"deepseek-v\1"),
    (re.compile(r"\bclaude-v(?=\d)"), "claude-"),
    (re.compile(r"\bclaude-(opus|sonnet|haiku)-(\d)(\d)$"), r"claude-\1-\2.\3"),
    (re.compile(r"\b(smol|star|open)-(lm|coder|chat)\b"), r"\1\2"),
    (re.compile(r"β"), "beta"),
    (re.compile(r"\bmeta-?llama-?(?=\d)"), "llama-"),
    (re.compile(r"\bzhipu-glm|\bchat-?glm-?(?=4)"), "glm-"),
)
_TIERS = {
    "claude": frozenset(["opus", "sonnet", "haiku", "instant"]),
    "gemini": frozenset(["pro", "flash", "ultra", "nano"]),
    "mistral": frozenset(["large", "medium", "small", "tiny"]),
    "embed": frozenset(["english", "multilingual", "light"]),
}


@dataclass(frozen=True)
class Snapshot:
    """A date or revision in a name; parts that the name leaves out are None."""

    year: int | None = None
    month: int | None = None
    day: int | None = None
    revision: str = ""

    def fits(self, other: Snapshot) -> bool:
        """Whether both can be the same snapshot: no part that both give differs."""
        if self.revision or other.revision:
            return self.revision == other.revision
        return all(None in pair or pair[0] == pair[1] for pair in self._pairs(other))

    def completed(self, other: Snapshot) -> Snapshot:
        """Both in one, where they fit."""
        year, month, day = (
            mine if mine is not None else theirs for mine, theirs in self._pairs(other)
        )
        return Snapshot(year, month, day, self.revision)

    def _pairs(self, other: Snapshot) -> tuple[tuple[int | None, int | None], ...]:
        return (self.year, other.year), (self.month, other.month), (self.day, other.day)

    @property
    def known_parts(self) -> int:
        """How much the name gives, to prefer the fullest."""
        given = (self.year, self.month, self.day)
        return sum(part is not None for part in given) + bool(self.revision)

    def __str__(self) -> str:
        if self.revision:
            return self.revision
        year = "" if self.year is None else f"{self.year}"
        rest = [f"{part:02d}" for part in (self.month, self.day) if part is not None]
        return "-".join(filter(None, [year, *rest]))


@dataclass(frozen=True)
class Identity:
    """One published name, taken apart.

    Attributes:
        maker: Id of who made the weights; empty when nothing says.
        stated_maker: The maker that the name or its organisation gave, before the family was asked.
        words: What is left of the name, as a sorted bag (`("claude4.5", "sonnet")`).
        size, active: Parameters as published (`70b`, `8x7b`); active ones of a mixture.
        experts: As in `16e`.
        tuning: `instruct`, `chat`, `base` or empty.
        quantisation: `fp8`, `awq`, `q4-k-m` … or empty.
        snapshot: Date or revision, if the name gives one.
        setting: Effort, prompt format, host …: how the model was run.
        slug: The name without host and setting, fit for an id.
        family: The maker's own name of the family, or empty.
    """

    maker: str
    stated_maker: str
    words: tuple[str, ...]
    size: str
    active: str
    experts: str
    tuning: str
    quantisation: str
    snapshot: Snapshot | None
    setting: str
    slug: str
    family: str

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for names of one model, up to the snapshot."""
        return (
            *(self.maker, " ".join(self.words), self.size, self.active),
            *(self.experts, self.tuning, self.quantisation),
        )

    def made_by(self, maker: str) -> Identity:
        """The same name as another maker's."""
        return replace(self, maker=maker)


@lru_cache(maxsize=100_000)
def parse(name: str, organisation: str = "") -> Identity:
    """Take a published name apart; never fails, and never looks at other names.

    Args:
        name: As published: `us.anthropic.claude-sonnet-4-5-20250929-v1:0`, `Qwen/Qwen3-8B`.
        organisation: Maker as the source states it, or empty.
    """
    named = unicodedata.normalize("NFKC", name).strip().lower()
    text, notes, setting = _without_notes(named)
    text, stated = _without_host(text)
    stated = stated or makers.maker_id(organisation)
    slug_text = text = _spelled(text)
    text, snapshot = _snapshot(_spelled(f"{text} {notes}") if notes else text)
    text, quantisation = _take(_QUANTISATION, text, lambda match: match[1].replace("_", "-"))
    text, active = _take(_ACTIVE, text, lambda match: match[1] + match[2])
    text, experts = _take(_EXPERTS, text, lambda match: match[1] + "e")
    text, size = _size(text)
    chunks = [chunk for chunk in re.split(r"[^a-z0-9.+]+", text) if chunk.strip(".+")]
    chunks, settings = _without_setting(chunks)
    tuning = " ".join(sorted({_TUNING[chunk] for chunk in chunks if chunk in _TUNING}))
    if not tuning and _SIZE_TAG.search(named):
        tuning = "tag"
    chunks = [chunk for chunk in chunks if chunk not in _TUNING and chunk not in _NOISE]
    chunks, lead, stated = _without_leading_maker(chunks, stated)
    words = _hoist(_glue(_without_latest(chunks)))
    family = makers.family_of(words)
    return Identity(
        maker=stated or (family.maker if family else ""),
        stated_maker=stated,
        words=tuple(sorted(words)),
        size=size,
        active=active,
        experts=experts,
        tuning=tuning,
        quantisation=quantisation,
        snapshot=snapshot,
        setting=" ".join(dict.fromkeys([*settings, *setting])),
        slug=_slug(slug_text, lead),
        family=family.name if family else "",
    )


def _without_host(text: str) -> tuple[str, str]:
    """The last part of a path without the host's own marks, and the maker that the path names."""
    *folders, text = [part for part in re.sub(r"^(hf:|~)", "", text).split("/") if part] or [""]
    if folders and text == "community":
        text = folders.pop()
    if folders and folders[0] in _ENDPOINT_HOSTS:
        folders, text = _product(folders, text)
    named = [makers.maker_id_in_path(folder) for folder in reversed(folders) if folder != text]
    stated = next(filter(None, named), "")
    text = _BEDROCK_REGION.sub("", text)
    dotted = _DOTTED_MAKER.match(text)
    if dotted and makers.is_maker(dotted[1]):
        stated = makers.maker_id(dotted[1])
        rest = text[dotted.end() :]
        # `deepseek.v3.2`: the maker's name is the family's too.
        text = rest if makers.family_of(_glue(rest.split("-"))) else f"{dotted[1]}-{rest}"
    revision = _BEDROCK_REVISION.search(text)
    if revision:
        text = text[: revision.start()] + _kept_revision(text, revision)
    text = _HOST_AFTER_AT.sub("", text)
    return text.replace("@", "-").replace(":", "-").replace("_", "-"), stated


def _product(folders: list[str], text: str) -> tuple[list[str], str]:
    """`flux-pro/v1.1/edit` as folders without the endpoint, and `flux-pro-v1.1`."""
    parts = [part for part in (*folders, text) if not _ENDPOINTS.match(part)]
    known = [part for part in parts if makers.is_host(part) or makers.is_maker(part)]
    return known, "-".join(part for part in parts if part not in known) or text


def _kept_revision(text: str, revision: re.Match[str]) -> str:
    major, minor = revision[1], revision[2]
    if major == "0":
        return f"-v0.{minor}"
    if (major, minor) == ("1", "0") or re.search(r"20\d{6}", text):
        return "-v1" if "titan" in text else ""
    return f"-v{major}" if minor == "0" else f"-v{major}.{minor}"


def _without_notes(text: str) -> tuple[str, str, list[str]]:
    """The name, what stands in its parentheses, and what these say of how it was run."""
    found = [
        note.strip().replace(":", "-").replace("_", "-") for note in _PARENTHESES.findall(text)
    ]
    setting = [_slug(note, "") for note in found if _RUN_NOTE.match(note)]
    notes = " ".join(note for note in found if not _RUN_NOTE.match(note))
    text = _PARENTHESES.sub(" ", text).strip()
    setting += _DIMENSIONS.findall(notes)
    run = _RUN_NOTES.match(text)
    if run:
        text, setting = run[1], [*setting, _slug(run[2], "")]
    return text, _DIMENSIONS.sub("", notes), setting


def _spelled(text: str) -> str:
    text = re.sub(r"[\s]+", "-", text.strip())
    text = re.sub(r"(?<=\d)p(?=\d)", ".", text)
    text = _BUDGET.sub(lambda found: found[1] or found[2], text)
    for pattern, written in _COMPOUNDS:
        text = pattern.sub(written, text)
    return text


def _snapshot(text: str) -> tuple[str, Snapshot | None]:
    month = _MONTH_YEAR.search(text.replace(" ", "-"))
    if month:
        text = text.replace(" ", "-")
        snapshot = Snapshot(year=int(month[2]), month=_MONTHS.index(month[1]) + 1)
        return _cut(text, month), snapshot
    for pattern, parts in _DATES:
        found = pattern.search(text)
        if found:
            numbers = dict(zip(parts, (int(part) for part in found.groups()), strict=True))
            year = numbers.get("y")
            year = year + 2000 if year is not None and year < 100 else year
            return _cut(text, found), Snapshot(year, numbers.get("m"), numbers.get("d"))
    revision = _REVISION.search(text)
    if revision:
        return _cut(text, revision), Snapshot(revision=revision[0])
    return text, None


def _cut(text: str, found: re.Match[str]) -> str:
    return f"{text[: found.start()]} {text[found.end() :]}"


def _take(
    pattern: re.Pattern[str], text: str, written: Callable[[re.Match[str]], str]
) -> tuple[str, str]:
    found = pattern.search(text)
    return (_cut(text, found), written(found)) if found else (text, "")


def _size(text: str) -> tuple[str, str]:
    """The parameters; of `7M … 70B` the billions, as the millions are then samples."""
    found = list(_SIZE.finditer(text))
    if not found:
        return text, ""
    chosen = next((match for match in found if match[2] != "m"), found[0])
    return _cut(text, chosen), _plain_number(chosen[1]) + chosen[2]


def _plain_number(text: str) -> str:
    return re.sub(r"\.0$", "", text)


def _without_setting(chunks: list[str]) -> tuple[list[str], list[str]]:
    """Take out effort, thinking and prompt format where the family has them as a setting."""
    lead = _hoist(_glue([chunk for chunk in chunks if chunk not in _TUNING]))
    efforts = any(_EFFORT_FAMILY.match(word) for word in lead)
    thinks = any(_THINKING_FAMILY.match(word) for word in lead)
    thinks = thinks and not {"live", "extended"} <= set(chunks)
    kept: list[str] = []
    setting: list[str] = []
    for before, chunk, after in zip(["", *chunks], chunks, [*chunks[1:], ""], strict=False):
        is_effort = efforts and (chunk in _EFFORTS or (chunk == "reasoning" and "effort" in chunks))
        is_effort = is_effort or (thinks and chunk in _EFFORTS and before in _THINKING)
        is_denied = chunk in _DENIALS and after in _THINKING
        is_thinking = chunk in _THINKING and (thinks or before in _DENIALS)
        if chunk in _SETTING_WORDS or is_effort or is_denied or is_thinking or chunk == "effort":
            setting.append(chunk)
        else:
            kept.append(chunk)
    return kept, setting


def _without_latest(chunks: list[str]) -> list[str]:
    """`latest` says nothing beside a version; alone it points at whatever is newest."""
    is_versioned = any(character.isdigit() for chunk in chunks for character in chunk)
    return [chunk for chunk in chunks if chunk != "latest"] if is_versioned else chunks


def _without_leading_maker(chunks: list[str], stated: str) -> tuple[list[str], str, str]:
    """The chunks without the maker's or host's name before its own family; what was cut; maker."""
    for length in (2, 1):
        lead, rest = "-".join(chunks[:length]), chunks[length:]
        family = makers.family_of(_glue(rest)) if rest else None
        if family is None:
            continue
        if lead in _HOST_PREFIXES:
            return _without_leading_maker(rest, stated)[0], lead, stated
        repeats = not makers.family_of([lead]) or rest[0].startswith(lead)
        if makers.is_maker(lead) and makers.maker_id(lead) == family.maker and repeats:
            return rest, lead, stated or family.maker
    return chunks, "", stated


def _glue(chunks: list[str]) -> list[str]:
    """Numbers joined to the word before them: `claude 3 5 sonnet` is `claude3.5`, `sonnet`."""
    words: list[str] = []
    for chunk in chunks:
        number = re.sub(r"^v(?=\d)", "", chunk)
        if not number[0].isdigit() or not words:
            words.append(_plain_version(number))
        elif re.fullmatch(r"\d", number) and re.search(r"[a-z]\d{1,2}$", words[-1]):
            words[-1] = _plain_version(f"{words[-1]}.{number}")
        elif words[-1][-1].isdigit():
            words.append(number)
        else:
            words[-1] = _plain_version(words[-1] + number)
    return words


def _plain_version(word: str) -> str:
    word = re.sub(r"(?<=[a-z])v(?=\d+\.\d)", "", word) if not word.startswith("v") else word
    return re.sub(r"(?<=\d)\.0(?!\d)", "", word)


def _hoist(words: list[str]) -> list[str]:
    """`claude sonnet4.5` as `claude4.5 sonnet`: makers change the order of tier and version."""
    for position, word in enumerate(words):
        tiers = _TIERS.get(word)
        for other, candidate in enumerate(words):
            tier = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", candidate)
            if tiers and tier and tier[1] in tiers:
                changed = list(words)
                changed[position], changed[other] = word + tier[2], tier[1]
                return changed
    return words


def _slug(text: str, lead: str) -> str:
    slug = re.sub(r"[^a-z0-9.+]+", "-", text).strip("-.").replace("gptoss", "gpt-oss")
    if lead:
        slug = re.sub(rf"^{re.escape(lead)}-+", "", slug)
    while _HOST_SUFFIX.search(slug):
        slug = _HOST_SUFFIX.sub("", slug)
    return slug

"""The Hugging Face hub, through huggingface_hub."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.kernel.errors import (
    BudError,
    InvalidInput,
    NotFound,
    PermissionDenied,
    Unavailable,
    UpstreamFailed,
)
from core.kernel.settings import settings
from core.registry import files
from core.registry.adapters.download import CHUNK_BYTES, ConnectionBroke, over_http, transfer

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 10.0
# GGUF files beside a model that are none: image projectors, and data for quantising.
_COMPANIONS = ("mmproj", "imatrix")


@dataclass(frozen=True)
class HubFile:
    """One file of a repository; of a file in LFS the SHA-256 is known, else git's SHA-1."""

    name: str
    size_bytes: int | None
    sha256: str | None
    git_sha1: str | None = None


@dataclass(frozen=True)
class HubRepository:
    """A repository as it was at `revision`, a commit."""

    repo_id: str
    revision: str
    licence: str | None
    files: list[HubFile]


def look_up(repo_id: str, revision: str | None = None) -> HubRepository:
    """What a repository holds at a branch, tag or commit; None is the newest of `main`.

    Raises:
        Unavailable: The hub cannot be reached.
        NotFound: There is no such repository, or no such revision of it.
        PermissionDenied: It is gated, and the token does not open it.
    """
    from huggingface_hub import HfApi

    try:
        # `False` keeps a token of the account that happens to run Bud out of it.
        info = HfApi(token=_token() or False).model_info(
            repo_id, revision=revision, files_metadata=True, timeout=_TIMEOUT_S
        )
    except Exception as error:
        raise _translated(error, repo_id) from error
    card = info.card_data
    licence = card and (getattr(card, "license_name", None) or getattr(card, "license", None))
    found = [
        HubFile(
            file.rfilename,
            file.size,
            file.lfs.sha256 if file.lfs else None,
            file.blob_id if _is_sha1(file.blob_id) and not file.lfs else None,
        )
        for file in info.siblings or []
    ]
    commit = info.sha or revision or "main"
    return HubRepository(repo_id, commit, licence if isinstance(licence, str) else None, found)


def _is_sha1(blob_id: str | None) -> bool:
    return blob_id is not None and len(blob_id) == 40


def pick(repository: HubRepository, wanted: str | None) -> list[HubFile]:
    """The files of the model to download.

    Of a repository with GGUF files the wanted one, else Q4_K_M, else the smallest, with all its
    parts; of another one the weights with what belongs to them (see `files.of_one_model`).

    Raises:
        InvalidInput: There is none; names what there is.
    """
    models = _models(repository)
    if wanted is not None:
        for parts in models.values():
            if any(wanted in (part.name, Path(part.name).name) for part in parts):
                return parts
        single = [file for file in repository.files if file.name == wanted]
        if wanted.endswith(".safetensors") and single:
            return single
        raise InvalidInput(
            f"{repository.repo_id} has no GGUF file {wanted}.", remedy=_there_is(repository)
        )
    whole = [parts for name, parts in models.items() if not _is_companion(name)]
    if not whole:
        by_name = {file.name: file for file in repository.files}
        return [by_name[name] for name in files.of_one_model(list(by_name), repository.repo_id)]
    preferred = [parts for parts in whole if "q4_k_m" in parts[0].name.lower()]
    return preferred[0] if preferred else min(whole, key=_size)


def _models(repository: HubRepository) -> dict[str, list[HubFile]]:
    """The GGUF files by model; a split one has several, in order."""
    found: dict[str, list[HubFile]] = {}
    for file in sorted(repository.files, key=lambda file: file.name):
        if file.name.lower().endswith(".gguf"):
            path = Path(file.name)
            found.setdefault(str(path.with_name(files.display_name(path.name))), []).append(file)
    return found


def _is_companion(name: str) -> bool:
    return any(word in Path(name).name.lower() for word in _COMPANIONS)


def _there_is(repository: HubRepository) -> str:
    names = [file.name for file in repository.files]
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    shown = ggufs or names
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return f"It has: {', '.join(shown[:12]) or 'no files'}{more}."


def _size(parts: Sequence[HubFile]) -> float:
    sizes = [part.size_bytes for part in parts]
    return sum(size if size is not None else float("inf") for size in sizes)


def download(
    repository_id: str,
    revision: str,
    file: HubFile,
    target: Path,
    on_bytes: Callable[[int], None],
    wait: Callable[[float], None],
) -> str:
    """Download one file to `target`, going on after what is there already, and check it.

    Args:
        repository_id: `owner/name`.
        revision: The commit that was looked at, so that every part is of the same one.
        file: Which file.
        target: Where it goes.
        on_bytes: Called with the number of bytes of each chunk; negative when what was there
            already is of no use. May raise to stop.
        wait: Waits so many seconds before the next try; may raise to stop.

    Returns:
        The SHA-256 of the file, as hex.

    Raises:
        InvalidInput: What came is not what the hub has.
        Unavailable: The hub cannot be reached, or breaks off again and again.
        UpstreamFailed: It answers with an error.
    """
    import httpx
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(repository_id, file.name, revision=revision)
    sent = {"Accept-Encoding": "identity"}
    if _token():
        sent["Authorization"] = f"Bearer {_token()}"
    try:
        with httpx.Client(timeout=_TIMEOUT_S, follow_redirects=True) as client:
            attempt = over_http(
                lambda headers: client.stream("GET", url, headers=sent | headers),
                _require_success,
            )
            sha256 = transfer(attempt, target, file.size_bytes, on_bytes, wait)
    except (httpx.HTTPError, ConnectionBroke) as error:
        raise _translated(error, repository_id) from error
    found, expected = sha256, file.sha256
    if expected is None and file.git_sha1 is not None:
        found, expected = _git_sha1(target), file.git_sha1
    if expected not in (None, found):
        target.unlink()
        raise InvalidInput(
            f"{target.name} arrived damaged: its hash is {found[:12]}…, "
            f"the hub says {str(expected)[:12]}….",
            remedy="Retry the job; it downloads the file again.",
        )
    return sha256


def _require_success(answer: httpx.Response) -> None:
    answer.raise_for_status()


def _git_sha1(target: Path) -> str:
    """The id that git gives a file; the hub has no other hash of a file outside LFS."""
    digest = hashlib.sha1(b"blob %d\0" % target.stat().st_size, usedforsecurity=False)
    with target.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _token() -> str | None:
    token = settings().huggingface_token
    return token.get_secret_value() if token is not None else None


def _translated(error: Exception, repo_id: str) -> BudError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    name = type(error).__name__
    if name == "HFValidationError":
        return InvalidInput(
            "This is not a Hugging Face id.", value=repo_id, remedy="Use owner/name."
        )
    if name == "GatedRepoError" or status == 403:
        return PermissionDenied(
            f"{repo_id} is gated on Hugging Face.",
            remedy="Accept its terms there, then set BUD_HUGGINGFACE_TOKEN.",
        )
    if name == "RevisionNotFoundError":
        return NotFound(
            f"{repo_id} has no such revision on Hugging Face.",
            remedy="Name a branch, a tag or a whole commit of it, or none for the newest.",
        )
    if status in (401, 404):
        return NotFound(
            f"Hugging Face has no model {repo_id}, or it is private.",
            remedy="Check the id; for a private model set BUD_HUGGINGFACE_TOKEN.",
        )
    if status is not None:
        return UpstreamFailed(
            f"Hugging Face answered {status} for {repo_id}.",
            remedy="Retry the job in a few minutes; it goes on where it was.",
        )
    return Unavailable(
        f"Hugging Face cannot be reached for {repo_id}.",
        remedy="Check the network of this machine, or add the model from a local file.",
    )

"""The Hugging Face hub, through huggingface_hub."""

from __future__ import annotations

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

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 10.0
_CHUNK_BYTES = 1 << 20
_MAX_STALLS = 3
# GGUF files beside a model that are none: image projectors, and data for quantising.
_COMPANIONS = ("mmproj", "imatrix")


@dataclass(frozen=True)
class HubFile:
    """One file of a repository; `sha256` is None for files that are not in LFS."""

    name: str
    size_bytes: int | None
    sha256: str | None


@dataclass(frozen=True)
class HubRepository:
    """A repository as it was at `revision`, a commit."""

    repo_id: str
    revision: str
    licence: str | None
    files: list[HubFile]


def look_up(repo_id: str) -> HubRepository:
    """What a repository holds.

    Raises:
        Unavailable: The hub cannot be reached.
        NotFound: There is no such repository.
        PermissionDenied: It is gated, and the token does not open it.
    """
    from huggingface_hub import HfApi

    try:
        # `False` keeps a token of the account that happens to run Bud out of it.
        info = HfApi(token=_token() or False).model_info(
            repo_id, files_metadata=True, timeout=_TIMEOUT_S
        )
    except Exception as error:
        raise _translated(error, repo_id) from error
    card = info.card_data
    licence = card and (getattr(card, "license_name", None) or getattr(card, "license", None))
    found = [
        HubFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else None)
        for file in info.siblings or []
    ]
    revision = info.sha or "main"
    return HubRepository(repo_id, revision, licence if isinstance(licence, str) else None, found)


def pick(repository: HubRepository, wanted: str | None) -> list[HubFile]:
    """The parts of the model to download: the wanted one, else Q4_K_M, else the smallest.

    Raises:
        InvalidInput: There is none; names what there is.
    """
    models = _models(repository)
    if wanted is not None:
        for parts in models.values():
            if any(wanted in (part.name, Path(part.name).name) for part in parts):
                return parts
        raise InvalidInput(
            f"{repository.repo_id} has no GGUF file {wanted}.", remedy=_there_is(repository)
        )
    whole = [parts for name, parts in models.items() if not _is_companion(name)]
    if not whole:
        raise InvalidInput(
            f"{repository.repo_id} has no GGUF file.",
            remedy=f"{_there_is(repository)} Choose a repository with GGUF files, "
            "often named …-GGUF.",
        )
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
) -> None:
    """Download one file to `target`, going on after what is there already.

    A connection that breaks is made again, as long as bytes come.

    Args:
        repository_id: `owner/name`.
        revision: The commit that was looked at, so that every part is of the same one.
        file: Which file.
        target: Where it goes.
        on_bytes: Called with the number of bytes of each chunk; negative when what was there
            already is of no use. May raise to stop.
        wait: Waits so many seconds before the next try; may raise to stop.

    Raises:
        Unavailable: The hub cannot be reached, or breaks off again and again.
        UpstreamFailed: It answers with an error.
    """
    import httpx

    received, stalls = False, 0
    while True:
        before_bytes = _size_of(target)
        try:
            _fetch(repository_id, revision, file, target, on_bytes)
            return
        except httpx.TransportError as error:
            grew = _size_of(target) > before_bytes
            received, stalls = received or grew, 0 if grew else stalls + 1
            # Out of reach from the beginning is not worth waiting for.
            if not received or stalls > _MAX_STALLS:
                raise _translated(error, repository_id) from error
            wait(float(2**stalls))
        except httpx.HTTPError as error:
            raise _translated(error, repository_id) from error


def _fetch(
    repository_id: str,
    revision: str,
    file: HubFile,
    target: Path,
    on_bytes: Callable[[int], None],
) -> None:
    import httpx
    from huggingface_hub import hf_hub_url

    have_bytes = _size_of(target)
    if have_bytes == file.size_bytes:
        return None
    headers = {"Accept-Encoding": "identity"}
    if have_bytes:
        headers["Range"] = f"bytes={have_bytes}-"
    if _token():
        headers["Authorization"] = f"Bearer {_token()}"
    url = hf_hub_url(repository_id, file.name, revision=revision)
    with (
        httpx.Client(timeout=_TIMEOUT_S, follow_redirects=True) as client,
        client.stream("GET", url, headers=headers) as answer,
    ):
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            # There is more here than there: what is here is of another file.
            on_bytes(-have_bytes)
            target.unlink()
            return _fetch(repository_id, revision, file, target, on_bytes)
        answer.raise_for_status()
        resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
        if not resumed:
            on_bytes(-have_bytes)
        return _write(answer, target, "ab" if resumed else "wb", on_bytes)


def _write(
    answer: httpx.Response, target: Path, mode: str, on_bytes: Callable[[int], None]
) -> None:
    with target.open(mode) as file:
        for chunk in answer.iter_raw(_CHUNK_BYTES):
            file.write(chunk)
            on_bytes(len(chunk))


def _size_of(target: Path) -> int:
    return target.stat().st_size if target.exists() else 0


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

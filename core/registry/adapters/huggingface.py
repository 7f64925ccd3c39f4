"""The Hugging Face hub, through huggingface_hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.kernel.errors import BudError, InvalidInput, NotFound, PermissionDenied, Unavailable
from core.kernel.settings import settings

_TIMEOUT_S = 10.0
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class HubFile:
    """One file of a repository; `sha256` is None for files that are not in LFS."""

    name: str
    size_bytes: int | None
    sha256: str | None


def list_gguf(repo_id: str) -> list[HubFile]:
    """The GGUF files of a repository.

    Raises:
        Unavailable: The hub cannot be reached.
        NotFound: There is no such repository.
        PermissionDenied: It is gated, and the token does not open it.
    """
    from huggingface_hub import HfApi

    try:
        info = HfApi(token=_token()).model_info(repo_id, files_metadata=True, timeout=_TIMEOUT_S)
    except Exception as error:
        raise _translated(error, repo_id) from error
    return [
        HubFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else None)
        for file in info.siblings or []
        if file.rfilename.lower().endswith(".gguf")
    ]


def download(
    repo_id: str, name: str, target: Path, on_progress: Callable[[int, int | None], None]
) -> None:
    """Download one file to `target`, going on after what is there already.

    `on_progress(done_bytes, total_bytes)` is called for each megabyte and may raise to stop.
    """
    import httpx
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(repo_id, name)
    have = target.stat().st_size if target.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    if _token():
        headers["Authorization"] = f"Bearer {_token()}"
    try:
        with (
            httpx.Client(timeout=_TIMEOUT_S, follow_redirects=True) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return
            answer.raise_for_status()
            resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
            done = have if resumed else 0
            length = answer.headers.get("content-length")
            total = done + int(length) if length else None
            with target.open("ab" if resumed else "wb") as file:
                for chunk in answer.iter_bytes(_CHUNK_BYTES):
                    file.write(chunk)
                    done += len(chunk)
                    on_progress(done, total)
    except (httpx.HTTPError, OSError) as error:
        raise _translated(error, repo_id) from error


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
    if isinstance(error, OSError) and error.errno is not None and status is None:
        return Unavailable(
            f"The download of {repo_id} failed: {error.strerror}.", remedy="Free disk and retry."
        )
    return Unavailable(
        f"Hugging Face cannot be reached for {repo_id}.",
        remedy="Check the network of this machine, or add the model from a local file.",
    )


def pick(files: list[HubFile], repo_id: str, wanted: str | None) -> HubFile:
    """The file to download: the wanted one, else Q4_K_M, else the smallest.

    Raises:
        InvalidInput: There is none; names what there is.
    """
    names = [file.name for file in files]
    if wanted is not None:
        for file in files:
            if file.name == wanted:
                return file
        raise InvalidInput(
            f"{repo_id} has no file {wanted}.", remedy=f"It has: {', '.join(names) or 'no GGUF'}."
        )
    whole = [file for file in files if "-of-0" not in file.name]
    if not whole:
        raise InvalidInput(
            f"{repo_id} has no GGUF file in one part.",
            remedy="Choose a repository with GGUF files (often named …-GGUF), "
            "or download the parts and add their folder.",
        )
    preferred = [file for file in whole if "q4_k_m" in file.name.lower()]
    return preferred[0] if preferred else min(whole, key=_size)


def _size(file: HubFile) -> Any:
    return file.size_bytes if file.size_bytes is not None else float("inf")

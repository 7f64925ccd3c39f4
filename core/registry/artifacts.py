"""Where the files of versions are kept: in the data folder, or in an object store as well.

With `BUD_ARTIFACTS=s3://bucket/prefix` the files of each version lie below `<prefix>/<version id>`;
what this machine has of them is a copy that can be fetched again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from core.kernel.errors import InvalidInput, UpstreamFailed
from core.kernel.settings import settings
from core.registry import files
from core.registry.adapters import object_store
from core.registry.adapters.object_store import Location
from core.registry.schemas import FileView


def location_of(version_id: str) -> Location | None:
    """Where the store keeps a version; None when the data folder is the store.

    Raises:
        InvalidInput: BUD_ARTIFACTS names neither.
    """
    chosen = settings().artifacts
    if not chosen:
        return None
    if not chosen.startswith("s3://"):
        raise InvalidInput(
            "BUD_ARTIFACTS is no address in an object store.",
            value=chosen,
            remedy="Use s3://bucket/prefix, or leave it empty for the data folder.",
        )
    return object_store.parse(chosen).below(version_id)


def is_inside(location: Location) -> bool:
    """Whether a location is in Bud's own store, where the models of other projects lie."""
    store = location_of("")
    if store is None or store.bucket != location.bucket:
        return False
    own, asked = (each.prefix.strip("/") for each in (store, location))
    return not own or not asked or asked == own or asked.startswith(f"{own}/")


def keep(version_id: str, kept: Sequence[FileView], rate: files.Rate) -> str | None:
    """Put a version's files into the store; the URI of where they are, None for this machine.

    What is there already is not sent again.
    """
    location = location_of(version_id)
    if location is None:
        return None
    for file in kept:
        source = files.folder_of(version_id) / file.name
        object_store.upload(source, location.below(file.name), file.sha256, rate.add)
    return location.uri


def fetch(
    version_id: str,
    uri: str,
    kept: Sequence[FileView],
    rate: files.Rate,
    wait: Callable[[float], None],
) -> None:
    """Bring the files of a version to this machine that are not here yet, and check them.

    Args:
        version_id: The version.
        uri: Where the store keeps it.
        kept: Its files.
        rate: Reports how many bytes are done.
        wait: Waits so many seconds before the next try; may raise to stop.

    Raises:
        UpstreamFailed: What the store has is not what was put there.
    """
    location = object_store.parse(uri)
    there = {each.name: each for each in object_store.list_objects(location)}
    folder = files.folder_of(version_id)
    files.check_disk(sum(file.size_bytes for file in kept), folder)
    for file in kept:
        target = folder / files.checked_name(file.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        rate.already(target.stat().st_size if target.exists() else 0)
        found = there.get(file.name)
        with files.disk_errors():
            sha256 = found and object_store.download(location, found, target, rate.add, wait)
        if sha256 != file.sha256:
            target.unlink(missing_ok=True)
            raise UpstreamFailed(
                f"{file.name} in the object store is not what was put there, or is gone.",
                value=uri,
                remedy="Restore it there, or add the model again.",
            )


def is_here(version_id: str, kept: Sequence[FileView]) -> bool:
    """Whether this machine has every file of a version, by size."""
    folder = files.folder_of(version_id)
    return all(
        (folder / file.name).is_file() and (folder / file.name).stat().st_size == file.size_bytes
        for file in kept
    )


def remove(version_id: str, uri: str | None) -> None:
    """Remove a version's files from the store and from this machine."""
    files.remove(version_id)
    location = object_store.parse(uri) if uri else location_of(version_id)
    if location is not None:
        object_store.remove(location)

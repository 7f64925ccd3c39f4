"""Jobs of the registry: adding a model, step by step.

The files of a model that is being added lie in `<data folder>/models/<model id>`; each step can
run again, and the copy goes on after the bytes that are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.jobs import Progress, Run, Step, workflow
from core.kernel import clock, database
from core.kernel.errors import BudError, Conflict, InvalidInput
from core.registry import crud, extraction, files
from core.registry.adapters import huggingface
from core.registry.gguf import read_header
from core.registry.models import Model


def _discard(model_id: str, **_arguments: Any) -> None:
    with database.transaction() as tx:
        model = crud.model(tx, model_id)
        if model is not None:
            tx.delete(model)
    files.remove(model_id)


@workflow(
    "model.add_local",
    steps=(
        Step("validate", "Check the file", typical_s=0.5),
        Step("copy", "Copy", typical_s=5),
        Step("verify", "Compare the checksum", typical_s=2),
        Step("save", "Read the header and save", typical_s=0.5),
    ),
    on_cancel=_discard,
)
def add_local(run: Run, model_id: str, registration: dict[str, Any], path: str) -> None:
    """Add a model from files of this machine."""
    with _adding(model_id, registration):
        sources = run.step("validate", _validate, model_id, path)
        names = [Path(source).name for source in sources]
        sha256 = run.step("copy", _copy, model_id, sources)
        run.step("verify", _verify, model_id, names, sha256)
        run.step("save", _save, model_id, names, sha256, None)


@workflow(
    "model.add_from_hub",
    steps=(
        Step("choose", "Choose the file", typical_s=2),
        Step("download", "Download", typical_s=60),
        Step("verify", "Compare the checksum", typical_s=5),
        Step("save", "Read the header and save", typical_s=0.5),
    ),
    on_cancel=_discard,
)
def add_from_hub(
    run: Run, model_id: str, registration: dict[str, Any], repo_id: str, file: str | None
) -> None:
    """Add a model from Hugging Face."""
    with _adding(model_id, registration):
        chosen = run.step("choose", _choose, model_id, repo_id, file)
        run.step("download", _download, model_id, repo_id, chosen)
        names = [Path(part["name"]).name for part in chosen["parts"]]
        sha256 = run.step("verify", _verify_download, model_id, chosen)
        run.step("save", _save, model_id, names, sha256, chosen["licence"])


@contextmanager
def _adding(model_id: str, registration: dict[str, Any]) -> Iterator[None]:
    """Keep the model's row true: there while its job works, with the reason when it fails."""
    with database.transaction() as tx:
        model = crud.model(tx, model_id)
        if model is None:
            # The job before this one was cancelled, or the failed model deleted.
            tx.add(new_model(model_id, **registration))
        elif model.state == "failed":
            model.state, model.error = "adding", None
    try:
        yield
    except BudError as error:
        with database.transaction() as tx:
            model = crud.model(tx, model_id)
            if model is not None:
                model.state, model.error = "failed", str(error)
        raise


def new_model(
    model_id: str, tenant_id: str, project_id: str | None, name: str, source: str
) -> Model:
    """A model's row at the beginning, when nothing is known of its file."""
    return Model(
        id=model_id,
        tenant_id=tenant_id,
        project_id=project_id,
        name=name,
        state="adding",
        source=source,
        managed=True,
        capabilities=[],
        created_at=clock.now(),
    )


def _validate(progress: Progress, model_id: str, path: str) -> list[str]:
    parts = files.parts_at(Path(path))
    for part in parts:
        header = read_header(part)
        progress.log(f"{part.name}: {header.tensor_count} tensors, {header.quantization}")
    extraction.describe(parts)
    needed_bytes = files.total_bytes(parts)
    files.check_disk(needed_bytes, files.folder_of(model_id))
    if _may_be_known(model_id, needed_bytes):
        # Reading it once is cheaper than copying it for nothing.
        with files.disk_errors():
            sha256 = files.sha256(parts, files.Rate(progress, needed_bytes).add)
        _refuse_twin(model_id, sha256)
    return [str(part) for part in parts]


def _copy(progress: Progress, model_id: str, sources: list[str]) -> str:
    parts = [Path(source) for source in sources]
    rate = files.Rate(progress, files.total_bytes(parts))
    with files.disk_errors():
        return files.copy(parts, files.folder_of(model_id), rate.add)


def _verify(progress: Progress, model_id: str, names: list[str], expected: str) -> None:
    parts = _kept(model_id, names)
    with files.disk_errors():
        found = files.sha256(parts, files.Rate(progress, files.total_bytes(parts)).add)
    if found != expected:
        files.remove(model_id)
        raise InvalidInput(
            f"The copy differs from its original: its SHA-256 is {found[:12]}…, "
            f"not {expected[:12]}….",
            remedy="Check the disk, then retry the job; it copies the file again.",
        )


def _kept(model_id: str, names: Sequence[str]) -> list[Path]:
    return [files.folder_of(model_id) / name for name in names]


def _choose(progress: Progress, model_id: str, repo_id: str, file: str | None) -> dict[str, Any]:
    repository = huggingface.look_up(repo_id)
    parts = huggingface.pick(repository, file)
    said = ", ".join(part.name for part in parts)
    progress.log(f"chosen: {said}, of {len(repository.files)} files at {repository.revision[:12]}")
    progress.update(1, said if file is None else "")
    if len(parts) == 1 and parts[0].sha256 is not None:
        _refuse_twin(model_id, parts[0].sha256)
    return {
        "revision": repository.revision,
        "licence": repository.licence,
        "parts": [vars(part) for part in parts],
    }


def _download(progress: Progress, model_id: str, repo_id: str, chosen: dict[str, Any]) -> None:
    folder = files.folder_of(model_id)
    parts = [huggingface.HubFile(**part) for part in chosen["parts"]]
    needed_bytes = sum(part.size_bytes or 0 for part in parts)
    files.check_disk(needed_bytes, folder)
    rate = files.Rate(progress, needed_bytes or None)
    for part in parts:
        target = folder / Path(part.name).name
        rate.already(files.total_bytes([target]) if target.exists() else 0)
        with files.disk_errors():
            huggingface.download(
                repo_id, chosen["revision"], part, target, rate.add, progress.sleep
            )


def _verify_download(progress: Progress, model_id: str, chosen: dict[str, Any]) -> str:
    targets = _kept(model_id, [Path(part["name"]).name for part in chosen["parts"]])
    rate = files.Rate(progress, files.total_bytes(targets))
    with files.disk_errors():
        for part, target in zip(chosen["parts"], targets, strict=True):
            found = files.sha256([target], rate.add)
            if part["sha256"] not in (None, found):
                target.unlink()
                raise InvalidInput(
                    f"{target.name} arrived damaged: its SHA-256 is {found[:12]}…, "
                    f"the hub says {part['sha256'][:12]}….",
                    remedy="Retry the job; it downloads the file again.",
                )
        return found if len(targets) == 1 else files.sha256(targets, lambda _: progress.check())


def _save(
    progress: Progress, model_id: str, names: list[str], sha256: str, licence: str | None
) -> None:
    parts = _kept(model_id, names)
    columns = extraction.describe(parts)
    progress.check()
    _refuse_twin(model_id, sha256)
    with database.transaction() as tx:
        model = crud.model(tx, model_id)
        if model is None:
            raise Conflict("The model was deleted while it was added.")
        for name, value in columns.items():
            setattr(model, name, value)
        model.licence = model.licence or (licence[:120] if licence else None)
        model.sha256, model.path, model.state = sha256, str(parts[0]), "ready"


def _may_be_known(model_id: str, size_bytes: int) -> bool:
    with database.reading() as session:
        model = crud.model(session, model_id)
        return model is not None and crud.same_size(session, model, size_bytes)


def _refuse_twin(model_id: str, sha256: str) -> None:
    with database.reading() as session:
        model = crud.model(session, model_id)
        if model is None:
            return
        twin = crud.same_file(session, model, sha256)
    if twin is not None:
        files.remove(model_id)
        raise Conflict(
            f"This file is already in the registry as {twin.name!r}.",
            remedy="Use that one, or delete it first.",
        )

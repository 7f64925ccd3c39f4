from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_gguf import gguf_bytes

from core import jobs
from core.jobs import engine
from core.jobs.schemas import JobView
from core.kernel import actor as actor_module
from core.kernel import audit
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from core.registry import files, versions, workflows
from core.registry import services as registry

PROJECT = "prj_default"


@pytest.fixture
def running(data_dir: Path) -> Iterator[Path]:
    engine.launch()
    yield data_dir
    engine.shutdown()


def _ended(admin: Actor, job_id: str, timeout_s: float = 120) -> JobView:
    deadline = time.monotonic() + timeout_s
    while (view := jobs.get(admin, job_id)).is_active:
        assert time.monotonic() < deadline, view
        time.sleep(0.05)
    return view


def _file(folder: Path, name: str = "tiny.gguf", fill: int = 0) -> Path:
    path = folder / name
    path.write_bytes(gguf_bytes() + bytes([fill]) * 1000)
    return path


def test_the_starter_model_is_there_once_with_its_real_metadata(
    data_dir: Path, admin: Actor
) -> None:
    first, second = registry.add_starter(admin), registry.add_starter(admin)
    assert first == second
    assert (first.layers, first.kv_heads, first.key_length) == (30, 3, 64)
    assert (first.quantization, first.context_tokens) == ("Q4_1", 8192)
    assert first.licence == "apache-2.0"
    assert first.chat_template
    assert registry.list_models(admin, PROJECT) == [first]
    with pytest.raises(Conflict, match="comes with Bud"):
        registry.delete_model(admin, first.id)


def test_a_local_file_is_copied_checked_and_saved(
    running: Path, tmp_path: Path, admin: Actor
) -> None:
    source = _file(tmp_path)
    model, job_id = registry.add_local(admin, PROJECT, str(source))
    assert _ended(admin, job_id).state == "succeeded"
    model = registry.get_model(admin, model.id)
    assert (model.state, model.name, model.layers) == ("ready", "tiny", 2)
    assert model.path is not None
    assert Path(model.path).read_bytes() == source.read_bytes()
    registry.delete_model(admin, model.id)
    assert not Path(model.path).exists()
    assert source.exists()


def test_the_same_file_twice_is_a_conflict_that_names_the_first(
    running: Path, tmp_path: Path, admin: Actor
) -> None:
    source = _file(tmp_path)
    _ended(admin, registry.add_local(admin, PROJECT, str(source), "first")[1])
    model, job_id = registry.add_local(admin, PROJECT, str(source), "second")
    view = _ended(admin, job_id)
    assert (view.state, "'first', version 1" in str(view.error)) == ("failed", True)
    found = registry.get_model(admin, model.id)
    assert (found.name, found.state) == ("first", "ready")
    assert [each.id for each in versions.list_versions(admin, model.id)] == [found.version_id]
    assert [folder.name for folder in files.folder_of("").iterdir()] == [found.version_id]


def test_a_broken_file_fails_with_its_name(running: Path, tmp_path: Path, admin: Actor) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(gguf_bytes()[:80])
    view = _ended(admin, registry.add_local(admin, PROJECT, str(path))[1])
    assert "bad.gguf is not a readable GGUF" in str(view.error)
    assert view.remedy


def test_a_copy_goes_on_after_what_a_kill_left(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_CHUNK_BYTES", 64)
    source = _file(tmp_path)
    whole = source.read_bytes()
    folder = files.folder_of("mod_x")
    folder.mkdir(parents=True)
    for left in (b"", whole[:200] + b"torn", whole[:100] + b"XX" + whole[102:], whole + b"more"):
        (folder / source.name).write_bytes(left)
        done: list[int] = []
        copied = files.copy(source, folder / source.name, done.append)
        assert copied == hashlib.sha256(whole).hexdigest()
        assert (folder / source.name).read_bytes() == whole
        assert sum(done) == len(whole)


def test_a_file_that_grows_while_it_is_copied_is_refused(data_dir: Path, tmp_path: Path) -> None:
    source = _file(tmp_path)
    folder = files.folder_of("mod_x")
    folder.mkdir(parents=True)

    def grow(_count: int) -> None:
        with source.open("ab") as file:
            file.write(b"more")
        still_to_grow.clear()

    still_to_grow = [True]
    target = folder / source.name
    with pytest.raises(InvalidInput, match="changed while it was copied"):
        files.copy(source, target, lambda count: grow(count) if still_to_grow else None)


def test_cancelling_leaves_nothing_behind(
    running: Path, tmp_path: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(progress: jobs.Progress, *_arguments: object) -> None:
        progress.sleep(60)

    monkeypatch.setattr(workflows, "_download", slow)
    model, job_id = registry.add_local(admin, PROJECT, str(_file(tmp_path)))
    _until(lambda: jobs.get(admin, job_id).steps[1].state == "running")
    with pytest.raises(Conflict, match="being added"):
        registry.delete_model(admin, model.id)
    jobs.cancel(admin, job_id)
    assert _ended(admin, job_id).state == "cancelled"
    _until(lambda: not files.folder_of(str(model.version_id)).exists())
    _until(lambda: registry.list_models(admin, PROJECT) == [])


def _until(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _parts(path: Path) -> list[Path]:
    return list(files.found_at(path).values())


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no weights"):
        _parts(tmp_path)
    one = _file(tmp_path, "m-00001-of-00002.gguf")
    with pytest.raises(InvalidInput, match="m-00002-of-00002.gguf is missing"):
        _parts(tmp_path)
    two = _file(tmp_path, "m-00002-of-00002.gguf")
    assert _parts(tmp_path) == [one, two]
    assert _parts(two) == [one, two]
    with pytest.raises(InvalidInput, match="There is nothing at"):
        _parts(tmp_path / "nowhere")
    other = _file(tmp_path, "best-of-breed.gguf")
    assert _parts(other) == [other]
    with pytest.raises(InvalidInput, match="holds 2 models") as caught:
        _parts(tmp_path)
    assert "best-of-breed.gguf, m-00001-of-00002.gguf" in str(caught.value)
    for name in ("none-00001-of-00000.gguf", "many-00001-of-99999.gguf"):
        with pytest.raises(InvalidInput, match="is missing"):
            _parts(_file(tmp_path, name))


def test_a_hub_that_cannot_be_reached_is_a_clear_error(
    running: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InvalidInput, match="not a Hugging Face id"):
        registry.add_from_hub(admin, PROJECT, "nonsense")
    _, job_id = registry.add_from_hub(admin, PROJECT, "HuggingFaceTB/SmolLM2-135M-Instruct-GGUF")
    view = _ended(admin, job_id)
    assert view.state == "failed"
    assert "cannot be reached" in str(view.error)
    assert "local file" in str(view.remedy)


def test_project_b_sees_nothing_of_a(data_dir: Path, tmp_path: Path, admin: Actor) -> None:
    model, job_id = registry.add_local(admin, "prj_a", str(_file(tmp_path)))
    stranger = Actor("usr_b", "b@example.org", admin.tenant_id, "member", {"prj_b": "admin"})
    assert registry.list_models(stranger, "prj_b") == []
    for look in (registry.get_model, registry.delete_model):
        with pytest.raises(NotFound):
            look(stranger, model.id)
    with pytest.raises(NotFound):
        jobs.get(stranger, job_id)


def test_a_model_in_use_is_not_deleted(
    running: Path, tmp_path: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, job_id = registry.add_local(admin, PROJECT, str(_file(tmp_path)))
    _ended(admin, job_id)
    monkeypatch.setattr(registry, "_usage_checks", [lambda _id: ["deployment chat"]])
    with pytest.raises(Conflict, match="used by deployment chat"):
        registry.delete_model(admin, model.id)
    path = registry.get_model(admin, model.id).path
    assert path is not None
    assert Path(path).exists()


def test_a_split_model_keeps_its_parts_and_counts_all_of_them(
    running: Path, tmp_path: Path, admin: Actor
) -> None:
    for number in (1, 2):
        _file(tmp_path, f"big-0000{number}-of-00002.gguf", fill=number)
    model, job_id = registry.add_local(admin, PROJECT, str(tmp_path))
    assert _ended(admin, job_id).state == "succeeded"
    model = registry.get_model(admin, model.id)
    assert (model.name, model.parameters) == ("big", 12)
    assert model.path is not None
    assert Path(model.path).name == "big-00001-of-00002.gguf"
    kept = sorted(Path(model.path).parent.iterdir())
    assert [part.name for part in kept] == [f"big-0000{n}-of-00002.gguf" for n in (1, 2)]
    assert model.size_bytes == sum(part.stat().st_size for part in kept)
    listed = "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in kept)
    assert model.sha256 == hashlib.sha256(listed.encode()).hexdigest()


def test_a_link_keeps_its_own_name(running: Path, tmp_path: Path, admin: Actor) -> None:
    blob = _file(tmp_path, "0a1b2c3d")
    link = tmp_path / "linked.gguf"
    link.symlink_to(blob)
    model, job_id = registry.add_local(admin, PROJECT, str(link))
    assert _ended(admin, job_id).state == "succeeded"
    model = registry.get_model(admin, model.id)
    assert (model.name, Path(str(model.path)).name) == ("linked", "linked.gguf")
    assert not Path(str(model.path)).is_symlink()


def test_the_data_folder_is_no_source_of_models(
    data_dir: Path, tmp_path: Path, admin: Actor
) -> None:
    inside = data_dir / "models" / "mod_of_another_project"
    inside.mkdir(parents=True)
    link = tmp_path / "innocent.gguf"
    link.symlink_to(_file(inside))
    for path in (inside, link):
        with pytest.raises(InvalidInput, match="inside Bud's own data folder"):
            registry.add_local(admin, PROJECT, str(path))
    assert registry.list_models(admin, PROJECT) == []


def test_without_room_nothing_is_copied_and_the_numbers_are_named(
    running: Path, tmp_path: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_RESERVE_BYTES", 1 << 60)
    model, job_id = registry.add_local(admin, PROJECT, str(_file(tmp_path)))
    view = _ended(admin, job_id)
    assert view.state == "failed"
    assert "GB free" in str(view.error)
    assert "BUD_DATA_DIR" in str(view.remedy)
    assert list(files.folder_of(str(model.version_id)).iterdir()) == []
    assert registry.get_model(admin, model.id).error == f"{view.error} {view.remedy}"


def test_a_full_disk_in_the_middle_is_named_and_a_retry_goes_on(
    running: Path, tmp_path: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    model, job_id = registry.add_local(admin, PROJECT, str(_file(tmp_path)))
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        view = _ended(admin, job_id)
    assert (view.state, "disk is full" in str(view.error)) == ("failed", True)
    assert registry.get_model(admin, model.id).state == "failed"
    assert _ended(admin, jobs.retry(admin, job_id)).state == "succeeded"
    found = registry.get_model(admin, model.id)
    assert (found.state, found.error) == ("ready", None)


def test_a_cancelled_add_can_be_retried(running: Path, tmp_path: Path, admin: Actor) -> None:
    model, job_id = registry.add_local(admin, PROJECT, str(_file(tmp_path)), "again")
    jobs.cancel(admin, job_id)
    _until(lambda: not jobs.get(admin, job_id).is_active)
    _until(lambda: registry.list_models(admin, PROJECT) == [])
    assert _ended(admin, jobs.retry(admin, job_id)).state == "succeeded"
    found = registry.get_model(admin, model.id)
    assert (found.name, found.state, found.project_id) == ("again", "ready", PROJECT)


def test_a_cancel_after_the_save_leaves_no_row_without_files(
    running: Path, tmp_path: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = workflows._save

    def saved_then_slow(progress: jobs.Progress, *arguments: object) -> None:
        save(progress, *arguments)  # type: ignore[arg-type]
        progress.sleep(60)

    monkeypatch.setattr(workflows, "_save", saved_then_slow)
    model, job_id = registry.add_local(admin, PROJECT, str(_file(tmp_path)))
    _until(lambda: registry.get_model(admin, model.id).state == "ready")
    jobs.cancel(admin, job_id)
    assert _ended(admin, job_id).state == "cancelled"
    assert registry.list_models(admin, PROJECT) == []
    assert not files.folder_of(str(model.version_id)).exists()


def test_two_models_of_one_name_are_told_apart_by_id(
    running: Path, tmp_path: Path, admin: Actor
) -> None:
    first, job_a = registry.add_local(admin, PROJECT, str(_file(tmp_path, "a.gguf", 1)), "same")
    second, job_b = registry.add_local(admin, PROJECT, str(_file(tmp_path, "b.gguf", 2)), "Same")
    assert {_ended(admin, job).state for job in (job_a, job_b)} == {"succeeded"}
    with pytest.raises(Conflict, match="2 models are named 'same'"):
        registry.find_model(admin, PROJECT, "same")
    assert registry.find_model(admin, PROJECT, second.id).id == second.id
    with pytest.raises(NotFound, match="There are: same, Same|There are: Same, same"):
        registry.find_model(admin, PROJECT, "other")
    assert first.id != second.id


def test_adding_and_deleting_are_audited_once(running: Path, tmp_path: Path, admin: Actor) -> None:
    model, job_id = registry.add_local(admin, PROJECT, str(_file(tmp_path)))
    _ended(admin, job_id)
    registry.delete_model(admin, model.id)
    rows = audit.entries(admin, PROJECT, subject=f"model:{model.id}")
    assert sorted(row.action for row in rows) == ["model.created", "model.deleted"]


def test_a_member_may_add_and_a_stranger_may_not(
    data_dir: Path, tmp_path: Path, admin: Actor
) -> None:
    member = Actor("usr_m", "m@example.org", admin.tenant_id, "member", {PROJECT: "member"})
    stranger = Actor("usr_s", "s@example.org", admin.tenant_id, "member", {"prj_b": "admin"})
    model, _ = registry.add_local(member, PROJECT, str(_file(tmp_path)))
    assert registry.get_model(member, model.id).state == "adding"
    for add in (
        lambda: registry.add_local(stranger, PROJECT, str(_file(tmp_path))),
        lambda: registry.add_from_hub(stranger, PROJECT, "owner/name"),
        lambda: registry.list_models(stranger, PROJECT),
    ):
        with pytest.raises(PermissionDenied):
            add()


def test_a_kill_between_the_model_and_its_job_leaves_neither(
    data_dir: Path, tmp_path: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.jobs.services._new", _killed)
    with pytest.raises(KeyboardInterrupt):
        registry.add_local(admin, PROJECT, str(_file(tmp_path)))
    assert registry.list_models(admin, PROJECT) == []
    assert audit.entries(admin, PROJECT) == []


def _killed(*_arguments: object) -> None:
    raise KeyboardInterrupt


def test_deleting_a_model_has_a_permission_of_its_own(
    data_dir: Path, tmp_path: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = Actor("usr_m", "m@example.org", admin.tenant_id, "member", {PROJECT: "member"})
    model, job_id = registry.add_local(member, PROJECT, str(_file(tmp_path)))
    jobs.cancel(member, job_id)
    granted = actor_module._MEMBER_PERMISSIONS
    monkeypatch.setattr(actor_module, "_MEMBER_PERMISSIONS", granted - {"model:delete"})
    with pytest.raises(PermissionDenied, match="model:delete"):
        registry.delete_model(member, model.id)
    monkeypatch.setattr(actor_module, "_MEMBER_PERMISSIONS", granted - {"model:create"})
    registry.delete_model(member, model.id)
    assert registry.list_models(member, PROJECT) == []


def test_a_changed_starter_file_is_refused(
    data_dir: Path, tmp_path: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(registry._starter_path().read_bytes())
    content[-1] ^= 1
    (tmp_path / "starter.gguf").write_bytes(bytes(content))
    monkeypatch.setattr(registry, "_starter_path", lambda: tmp_path / "starter.gguf")
    with pytest.raises(InvalidInput, match="not the one that was published"):
        registry.add_starter(admin)
    assert registry.list_models(admin, PROJECT) == []


def test_a_job_resumed_after_its_last_step_leaves_the_model_ready(
    running: Path, tmp_path: Path, admin: Actor
) -> None:
    class Replay:
        """A run whose steps are all done: it gives back their results."""

        results = dict.fromkeys(("validate", "download", "extract", "scan", "save"))

        def step(self, name: str, *_rest: object) -> object:
            return self.results[name]

    model, job_id = registry.add_local(admin, PROJECT, str(_file(tmp_path)))
    _ended(admin, job_id)
    workflows.add.function(Replay(), model.id, model.version_id, {}, {})
    assert registry.get_model(admin, model.id).state == "ready"

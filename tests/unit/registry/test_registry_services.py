from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_gguf import gguf_bytes

from core import jobs
from core.jobs import engine
from core.jobs.schemas import JobView
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, InvalidInput, NotFound
from core.registry import services as registry
from core.registry import workflows

PROJECT = "prj_default"


@pytest.fixture
def running(data_dir: Path) -> Iterator[Path]:
    engine.launch()
    yield data_dir
    engine.shutdown()


def _ended(admin: Actor, job_id: str, timeout_s: float = 30) -> JobView:
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
    assert (view.state, "'first'" in str(view.error)) == ("failed", True)
    assert registry.get_model(admin, model.id).state == "failed"


def test_a_broken_file_fails_with_its_name(running: Path, tmp_path: Path, admin: Actor) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(gguf_bytes()[:80])
    view = _ended(admin, registry.add_local(admin, PROJECT, str(path))[1])
    assert "bad.gguf is not a readable GGUF" in str(view.error)
    assert view.remedy


def test_a_copy_goes_on_after_what_a_kill_left(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows, "_CHUNK_BYTES", 64)
    source = _file(tmp_path)
    target = workflows.folder_of("mod_x") / source.name
    target.parent.mkdir(parents=True)
    target.write_bytes(source.read_bytes()[:200] + b"torn")

    class Rate:
        counts: list[int] = []

        def add(self, count: int) -> None:
            self.counts.append(count)

    rate = Rate()
    workflows._copy_one(source, target, rate)  # type: ignore[arg-type]
    assert target.read_bytes() == source.read_bytes()
    assert rate.counts[0] == 192  # three whole chunks were kept


def test_cancelling_leaves_nothing_behind(
    running: Path, tmp_path: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(progress: jobs.Progress, *_arguments: object) -> None:
        progress.sleep(60)

    monkeypatch.setattr(workflows, "_copy", slow)
    model, job_id = registry.add_local(admin, PROJECT, str(_file(tmp_path)))
    _until(lambda: jobs.get(admin, job_id).steps[1].state == "running")
    with pytest.raises(Conflict, match="being added"):
        registry.delete_model(admin, model.id)
    jobs.cancel(admin, job_id)
    assert _ended(admin, job_id).state == "cancelled"
    _until(lambda: not workflows.folder_of(model.id).exists())
    _until(lambda: registry.list_models(admin, PROJECT) == [])


def _until(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"holds no \.gguf"):
        workflows.parts_at(tmp_path)
    one = _file(tmp_path, "m-00001-of-00002.gguf")
    with pytest.raises(InvalidInput, match="m-00002-of-00002.gguf is missing"):
        workflows.parts_at(tmp_path)
    two = _file(tmp_path, "m-00002-of-00002.gguf")
    assert workflows.parts_at(tmp_path) == [one, two]
    with pytest.raises(InvalidInput, match="There is nothing at"):
        workflows.parts_at(tmp_path / "nowhere")


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

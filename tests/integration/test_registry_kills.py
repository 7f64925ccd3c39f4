"""Adding a model while the process that does it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core import jobs
from core.kernel.actor import Actor
from core.kernel.settings import ROOT, settings
from core.registry import files
from core.registry import services as registry
from tests.doubles import file_server, s3_server
from tests.doubles.hub_server import Hub, serving

sys.path.insert(0, str(ROOT / "tests" / "unit" / "registry"))
from test_gguf import gguf_bytes

PROJECT = "prj_default"
# Runs jobs; each chunk of a copy takes a while, so that there is a middle to be killed in.
_RUNNER = """
import time
from core.jobs import engine
from core.registry import files, workflows
from core.registry.adapters import multipart
multipart._LEAST_PART_BYTES = 1 << 20
add = files.Rate.add
def slow_add(self, count):
    time.sleep({pause_s})
    add(self, count)
files.Rate.add = slow_add
engine.launch()
time.sleep(600)
"""


@contextmanager
def _runner(pause_s: float = 0.0, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _RUNNER.format(pause_s=pause_s)],
        cwd=ROOT,
        env=os.environ | environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _until(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not check():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _model_file(folder: Path, size_bytes: int) -> Path:
    path = folder / "large.gguf"
    head = gguf_bytes()
    path.write_bytes(head + os.urandom(size_bytes - len(head)))
    return path


def test_a_killed_copy_goes_on_and_the_file_is_whole(
    data_dir: Path, tmp_path: Path, admin: Actor
) -> None:
    source = _model_file(tmp_path, 40_000_000)
    model, job_id = registry.add_local(admin, PROJECT, str(source))
    target = files.folder_of(str(model.version_id)) / source.name
    with _runner(pause_s=0.3) as first:
        _until(lambda: target.exists() and target.stat().st_size > 8_000_000)
        first.kill()
        first.wait()
    left_bytes = target.stat().st_size
    assert left_bytes < 40_000_000
    assert jobs.get(admin, job_id).steps[1].state == "running"
    with _runner():
        _until(lambda: not jobs.get(admin, job_id).is_active)
    view = jobs.get(admin, job_id)
    assert (view.state, [step.runs for step in view.steps]) == ("succeeded", [1, 2, 1, 1, 1])
    assert target.read_bytes() == source.read_bytes()
    assert registry.get_model(admin, model.id).state == "ready"


def test_a_killed_download_goes_on_with_the_bytes_that_are_missing(
    data_dir: Path, admin: Actor
) -> None:
    content = gguf_bytes() + os.urandom(8_000_000)
    with serving(Hub({"owner/large": {"large.gguf": content}}, bytes_a_second=4_000_000)) as hub:
        model, job_id = registry.add_from_hub(admin, PROJECT, "owner/large")
        target = files.folder_of(str(model.version_id)) / "large.gguf"
        with _runner(HF_ENDPOINT=hub.url) as first:
            _until(lambda: target.exists() and target.stat().st_size > 1_500_000)
            first.kill()
            first.wait()
        left_bytes = target.stat().st_size
        with _runner(HF_ENDPOINT=hub.url):
            _until(lambda: not jobs.get(admin, job_id).is_active)
    view = jobs.get(admin, job_id)
    assert (view.state, [step.runs for step in view.steps]) == ("succeeded", [1, 2, 1, 1, 1])
    assert hub.downloads() == [None, f"bytes={left_bytes}-"]
    assert target.read_bytes() == content


def test_a_killed_download_from_a_url_goes_on_and_is_whole(
    data_dir: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUD_PRIVATE_HOSTS", "127.0.0.1")
    settings.cache_clear()
    content = gguf_bytes() + os.urandom(4_000_000)
    site = file_server.Site({"/large.gguf": content}, bytes_a_second=3_000_000)
    with file_server.serving(site):
        model, job_id = registry.add_from_url(admin, PROJECT, f"{site.url}/large.gguf")
        target = files.folder_of(str(model.version_id)) / "large.gguf"
        with _runner() as first:
            _until(lambda: target.exists() and target.stat().st_size > 1_000_000)
            first.kill()
            first.wait()
        left_bytes = target.stat().st_size
        with _runner():
            _until(lambda: not jobs.get(admin, job_id).is_active)
    view = jobs.get(admin, job_id)
    assert (view.state, [step.runs for step in view.steps]) == ("succeeded", [1, 2, 1, 1, 1])
    assert site.ranges() == [None, None, f"bytes={left_bytes}-"]
    assert target.read_bytes() == content


def test_a_killed_upload_goes_on_after_its_last_whole_part(
    data_dir: Path, tmp_path: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _model_file(tmp_path, 8 << 20)
    store = s3_server.Store({"bucket": {}}, bytes_a_second=4_000_000)
    with s3_server.serving(store):
        for name, value in (
            ("BUD_ARTIFACTS", "s3://bucket/models"),
            ("BUD_S3_ENDPOINT", store.url),
            ("BUD_S3_ACCESS_KEY_ID", "key"),
            ("BUD_S3_SECRET_ACCESS_KEY", "secret"),
        ):
            monkeypatch.setenv(name, value)
        model, job_id = registry.add_local(admin, PROJECT, str(source))
        with _runner() as first:
            _until(lambda: any(len(parts) >= 3 for *_, parts in list(store.uploads.values())))
            first.kill()
            first.wait()
        sent = _part_puts(store)
        assert store.buckets["bucket"] == {}
        store.bytes_a_second = None
        with _runner():
            _until(lambda: not jobs.get(admin, job_id).is_active)
    view = jobs.get(admin, job_id)
    assert (view.state, [step.runs for step in view.steps]) == ("succeeded", [1, 1, 1, 1, 2])
    key = f"models/{model.version_id}/large.gguf"
    assert store.buckets["bucket"][key] == source.read_bytes()
    assert store.uploads == {}
    # One part may have been on its way twice; the others were sent once.
    assert sent >= 3
    assert _part_puts(store) <= 8 + 1


def _part_puts(store: s3_server.Store) -> int:
    return [method for method, *_ in store.requests].count("PUT")

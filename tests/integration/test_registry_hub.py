"""Models from Hugging Face, against a double of the hub on loopback."""

from __future__ import annotations

import json
import math
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core import jobs
from core.jobs import engine
from core.jobs.schemas import JobView
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound
from core.kernel.settings import ROOT, settings
from core.registry import files, versions
from core.registry import services as registry
from core.registry.adapters import huggingface
from tests.doubles.hub_server import REVISION, Hub, serving
from tests.machine import slowness

sys.path.insert(0, str(ROOT / "tests" / "unit" / "registry"))
from test_gguf import gguf_bytes

PROJECT = "prj_default"
REPO = "owner/tiny-GGUF"


def safetensors_bytes(tensors: dict[str, list[int]]) -> bytes:
    """A file with tensors of these shapes, all zero, in F32."""
    header, at = {}, 0
    for name, shape in tensors.items():
        size_bytes = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size_bytes]}
        at += size_bytes
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def model_bytes(size_bytes: int, fill: int = 1) -> bytes:
    head = gguf_bytes()
    return head + bytes([fill]) * (size_bytes - len(head))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import huggingface_hub.constants

    content = {
        "README.md": b"# tiny",
        "tiny.Q8_0.gguf": model_bytes(9_000_000, 8),
        "tiny.Q4_K_M.gguf": model_bytes(5_000_000, 4),
        "tiny.Q2_K.gguf": model_bytes(3_000_000, 2),
        "mmproj-tiny.gguf": model_bytes(1_000_000, 9),
    }
    with serving(Hub({REPO: content})) as made:
        # What HF_ENDPOINT sets at import; another test may have imported it already.
        constants = huggingface_hub.constants
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, made.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", made.url)
        yield made


@pytest.fixture
def running(data_dir: Path) -> Iterator[Path]:
    engine.launch()
    yield data_dir
    engine.shutdown()


def _until(check: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _ended(admin: Actor, job_id: str) -> JobView:
    _until(lambda: not jobs.get(admin, job_id).is_active, timeout_s=120)
    return jobs.get(admin, job_id)


def test_the_usual_quantisation_is_chosen_downloaded_and_checked(
    running: Path, hub: Hub, admin: Actor
) -> None:
    model, job_id = registry.add_from_hub(admin, PROJECT, f"https://huggingface.co/{REPO}/")
    view = _ended(admin, job_id)
    assert view.state == "succeeded", view.error
    assert view.steps[0].detail == "tiny.Q4_K_M.gguf"
    assert view.steps[1].detail.startswith("5 of 5 MB")
    model = registry.get_model(admin, model.id)
    assert (model.name, model.state, model.licence) == ("tiny-GGUF", "ready", "apache-2.0")
    assert Path(str(model.path)).read_bytes() == hub.files[REPO]["tiny.Q4_K_M.gguf"]
    assert any(f"/resolve/{REVISION}/" in path for path, *_ in hub.requests)
    assert {sent for *_, sent in hub.requests} == {None}


def test_a_named_file_and_the_smallest(hub: Hub) -> None:
    repository = huggingface.look_up(REPO)
    assert huggingface.pick(repository, "mmproj-tiny.gguf")[0].size_bytes == 1_000_000
    del hub.files[REPO]["tiny.Q4_K_M.gguf"]
    repository = huggingface.look_up(REPO)
    assert [part.name for part in huggingface.pick(repository, None)] == ["tiny.Q2_K.gguf"]
    with pytest.raises(InvalidInput, match=r"no GGUF file big\.gguf.*tiny\.Q8_0\.gguf"):
        huggingface.pick(repository, "big.gguf")


def test_a_revision_is_asked_for_by_name(hub: Hub) -> None:
    assert huggingface.look_up(REPO, "v1").revision == REVISION
    assert hub.requests[-1][0] == f"/api/models/{REPO}/revision/v1"
    with pytest.raises(NotFound, match=f"{REPO} has no such revision"):
        huggingface.look_up(REPO, "v9")


def test_a_repository_without_weights_says_what_it_has(
    running: Path, hub: Hub, admin: Actor
) -> None:
    hub.files["owner/plain"] = {"model.h5": b"x", "config.json": b"{}"}
    view = _ended(admin, registry.add_from_hub(admin, PROJECT, "owner/plain")[1])
    assert view.error == "owner/plain holds no weights (.gguf, .safetensors or .bin)."
    assert "model.h5" in str(view.remedy)


def test_a_safetensors_repository_comes_whole_and_again_as_a_second_version(
    running: Path, hub: Hub, admin: Actor
) -> None:
    weights = safetensors_bytes({"model.embed_tokens.weight": [8, 4], "lm_head.weight": [8, 4]})
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    config |= {"num_hidden_layers": 2, "hidden_size": 4, "num_attention_heads": 2}
    card = "---\nlicense: mit\nbase_model: owner/base\n---\n# Whole\n"
    hub.files["owner/whole"] = {
        ".gitattributes": b"x",
        "LICENSE": b"MIT",
        "README.md": card.encode(),
        "config.json": json.dumps(config).encode(),
        "model.safetensors": weights,
        "onnx/model.onnx": b"the same again",
        "pytorch_model.bin": b"and again",
    }
    model, job_id = registry.add_from_hub(admin, PROJECT, "owner/whole")
    view = _ended(admin, job_id)
    assert view.state == "succeeded", view.error
    model = registry.get_model(admin, model.id)
    (version,) = versions.list_versions(admin, model.id)
    names = ["LICENSE", "README.md", "config.json", "model.safetensors"]
    assert sorted(file.name for file in version.files) == names
    assert (model.parameters, model.architecture, model.path) == (
        64,
        "llama",
        str(files.folder_of(version.id)),
    )
    assert (version.revision, version.scan_state, version.severity) == (
        REVISION,
        "scanned",
        "safe",
    )
    before = len(hub.downloads())
    _, job_id = registry.add_from_hub(admin, PROJECT, "owner/whole")
    assert "already in the registry as 'whole', version 1" in str(_ended(admin, job_id).error)
    config["num_hidden_layers"] = 3
    hub.files["owner/whole"]["config.json"] = json.dumps(config).encode()
    again, job_id = registry.add_from_hub(admin, PROJECT, "owner/whole", name="other")
    assert _ended(admin, job_id).state == "succeeded"
    assert (again.id, again.name, len(hub.downloads()) > before) == (model.id, "whole", True)
    assert [each.number for each in versions.list_versions(admin, model.id)] == [2, 1]
    assert (registry.get_model(admin, model.id).layers, version.layers) == (3, 2)


def test_a_split_model_comes_with_all_its_parts(running: Path, hub: Hub, admin: Actor) -> None:
    names = [f"Q4/big-0000{number}-of-00002.gguf" for number in (1, 2)]
    hub.files["owner/big"] = {name: model_bytes(2_000_000, n) for n, name in enumerate(names)}
    model, job_id = registry.add_from_hub(admin, PROJECT, "owner/big")
    assert _ended(admin, job_id).state == "succeeded"
    model = registry.get_model(admin, model.id)
    assert (model.parameters, model.size_bytes) == (12, 4_000_000)
    assert list(files.found_at(Path(str(model.path)).parent).values())[1].read_bytes()[-1] == 1


def test_a_connection_that_breaks_is_made_again_where_it_was(
    running: Path, hub: Hub, admin: Actor
) -> None:
    hub.break_after_bytes = 2_200_000
    _, job_id = registry.add_from_hub(admin, PROJECT, REPO)
    view = _ended(admin, job_id)
    assert view.state == "succeeded", view.error
    ranges = hub.downloads()
    assert ranges[0] is None
    assert len(ranges) == 3
    assert all(str(wanted).startswith("bytes=") for wanted in ranges[1:])


def test_a_hub_that_never_gives_a_byte_fails_soon(running: Path, hub: Hub, admin: Actor) -> None:
    hub.break_after_bytes = 0
    began_s = time.monotonic()
    view = _ended(admin, registry.add_from_hub(admin, PROJECT, REPO)[1])
    assert (view.state, "cannot be reached" in str(view.error)) == ("failed", True)
    assert time.monotonic() - began_s < 10 * slowness()


def test_a_damaged_download_is_thrown_away_and_a_retry_gets_a_good_one(
    running: Path, hub: Hub, admin: Actor
) -> None:
    hub.corrupt = True
    model, job_id = registry.add_from_hub(admin, PROJECT, REPO)
    view = _ended(admin, job_id)
    assert "arrived damaged" in str(view.error)
    assert list(files.folder_of(str(model.version_id)).iterdir()) == []
    hub.corrupt = False
    assert _ended(admin, jobs.retry(admin, job_id)).state == "succeeded"
    assert registry.get_model(admin, model.id).state == "ready"


def test_what_is_longer_than_the_file_is_of_no_use(
    data_dir: Path, tmp_path: Path, hub: Hub
) -> None:
    file = huggingface.pick(huggingface.look_up(REPO), None)[0]
    target = tmp_path / "file.gguf"
    target.write_bytes(bytes(6_000_000))
    counted: list[int] = []
    huggingface.download(REPO, REVISION, file, target, counted.append, lambda _s: None)
    assert target.read_bytes() == hub.files[REPO]["tiny.Q4_K_M.gguf"]
    assert sum(counted) == 5_000_000 - 6_000_000


def test_cancelling_a_download_leaves_nothing_behind(running: Path, hub: Hub, admin: Actor) -> None:
    hub.bytes_a_second = 3_000_000
    hub.files[REPO]["tiny.Q4_K_M.gguf"] = model_bytes(60_000_000)
    model, job_id = registry.add_from_hub(admin, PROJECT, REPO)
    _until(lambda: "MB/s" in jobs.get(admin, job_id).steps[1].detail)
    asked_s = time.monotonic()
    jobs.cancel(admin, job_id)
    assert _ended(admin, job_id).state == "cancelled"
    assert time.monotonic() - asked_s < 3 * slowness()
    assert not files.folder_of(str(model.version_id)).exists()
    assert registry.list_models(admin, PROJECT) == []


def test_what_is_there_already_is_not_downloaded(running: Path, hub: Hub, admin: Actor) -> None:
    first, job_id = registry.add_from_hub(admin, PROJECT, REPO, name="first")
    assert _ended(admin, job_id).state == "succeeded"
    before = len(hub.downloads())
    second, job_id = registry.add_from_hub(admin, PROJECT, REPO, "tiny.Q4_K_M.gguf", "second")
    assert "already in the registry as 'first', version 1" in str(_ended(admin, job_id).error)
    assert len(hub.downloads()) == before
    assert not files.folder_of(str(second.version_id)).exists()
    assert files.folder_of(str(first.version_id)).exists()


@pytest.mark.parametrize(
    ("repo_id", "status", "error", "remedy"),
    [
        ("owner/gated", None, "is gated", "BUD_HUGGINGFACE_TOKEN"),
        ("owner/nothing", None, "has no model owner/nothing", "Check the id"),
        ("-owner-/name", None, "not a Hugging Face id", "owner/name"),
        (REPO, 500, "answered 500", "Retry"),
    ],
)
def test_what_the_hub_refuses_is_named(
    running: Path,
    hub: Hub,
    admin: Actor,
    repo_id: str,
    status: int | None,
    error: str,
    remedy: str,
) -> None:
    hub.gated.add("owner/gated")
    hub.status = status
    view = _ended(admin, registry.add_from_hub(admin, PROJECT, repo_id)[1])
    assert error in str(view.error)
    assert remedy in str(view.remedy)


def test_the_token_opens_a_gated_model_and_is_in_no_log(
    running: Path, hub: Hub, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUD_HUGGINGFACE_TOKEN", "hf_notarealone")
    settings.cache_clear()
    hub.files["owner/gated"] = {"tiny.gguf": model_bytes(10_000)}
    hub.gated.add("owner/gated")
    _, job_id = registry.add_from_hub(admin, PROJECT, "owner/gated")
    assert _ended(admin, job_id).state == "succeeded"
    assert any(sent == "Bearer hf_notarealone" for *_, sent in hub.requests)
    assert "hf_notarealone" not in str(jobs.logs(admin, job_id))


def test_the_real_hub_is_reached_or_its_absence_is_said_quickly(data_dir: Path) -> None:
    from core.kernel.errors import Unavailable

    began_s = time.monotonic()
    try:
        found = huggingface.look_up("HuggingFaceTB/SmolLM2-135M-Instruct-GGUF")
    except Unavailable as error:
        assert "add the model from a local file" in error.remedy
    else:
        assert found.files
    assert time.monotonic() - began_s < 25 * slowness()

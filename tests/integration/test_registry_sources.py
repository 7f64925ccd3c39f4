"""Models from URLs and object stores, and the artifact store, against doubles on loopback."""

from __future__ import annotations

import hashlib
import logging
import random
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from core import jobs
from core.jobs import Progress, engine
from core.jobs.schemas import JobView
from core.jobs.workflows import Control
from core.kernel.actor import Actor
from core.kernel.errors import (
    BudError,
    Conflict,
    InvalidInput,
    NotFound,
    PermissionDenied,
    TooLarge,
    Unavailable,
    UpstreamFailed,
)
from core.kernel.settings import ROOT, settings
from core.registry import artifacts, files, versions, workflows
from core.registry import services as registry
from core.registry.adapters import download, multipart, object_store
from core.registry.schemas import FileView
from tests.doubles import file_server, s3_server

sys.path.insert(0, str(ROOT / "tests" / "unit" / "registry"))
from test_gguf import gguf_bytes

PROJECT = "prj_default"


def model_bytes(size_bytes: int, fill: int = 1) -> bytes:
    head = gguf_bytes()
    return head + bytes([fill]) * (size_bytes - len(head))


@pytest.fixture
def site(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[file_server.Site]:
    monkeypatch.setenv("BUD_PRIVATE_HOSTS", "127.0.0.1")
    settings.cache_clear()
    with file_server.serving(file_server.Site()) as made:
        yield made


@pytest.fixture
def store(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3_server.Store]:
    with s3_server.serving(s3_server.Store({"bucket": {}})) as made:
        monkeypatch.setenv("BUD_S3_ENDPOINT", made.url)
        monkeypatch.setenv("BUD_S3_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("BUD_S3_SECRET_ACCESS_KEY", "never-shown")
        settings.cache_clear()
        yield made


@pytest.fixture
def kept_in_s3(store: s3_server.Store, monkeypatch: pytest.MonkeyPatch) -> s3_server.Store:
    monkeypatch.setenv("BUD_ARTIFACTS", "s3://bucket/models")
    settings.cache_clear()
    return store


@pytest.fixture
def running(data_dir: Path) -> Iterator[Path]:
    engine.launch()
    yield data_dir
    engine.shutdown()


def _until(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 40
    while not check():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _ended(admin: Actor, job_id: str) -> JobView:
    _until(lambda: not jobs.get(admin, job_id).is_active)
    return jobs.get(admin, job_id)


def _progress() -> Progress:
    return Progress("job_none", "fetch", Control())


# --- URLs ----------------------------------------------------------------------------------------


def test_a_file_at_a_url_comes_whole_though_the_connection_breaks(
    site: file_server.Site, running: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = model_bytes(2_500_000)
    site.files["/files/tiny.Q8_0.gguf"] = content
    site.redirects["/latest.gguf"] = "/files/tiny.Q8_0.gguf"
    site.break_after_bytes = 1_100_000
    monkeypatch.setattr(Progress, "sleep", lambda _progress, _s: None)
    url = f"{site.url}/latest.gguf?download=1"
    digest = hashlib.sha256(content).hexdigest()
    model, job_id = registry.add_from_url(admin, PROJECT, url, sha256=digest.upper())
    view = _ended(admin, job_id)
    assert view.state == "succeeded", view.error
    assert [step.title for step in view.steps][:2] == ["Check the source", "Fetch the files"]
    assert view.steps[1].detail.startswith("2 of 2 MB")
    model = registry.get_model(admin, model.id)
    assert (model.name, model.state, model.sha256) == ("latest", "ready", digest)
    assert model.source == f"url {site.url}/latest.gguf"
    assert Path(str(model.path)).read_bytes() == content
    asked = [(wanted, etag) for path, wanted, etag in site.requests if path.startswith("/files")]
    assert [wanted for wanted, _ in asked[1:]] == [None, "bytes=1100000-", "bytes=2200000-"]
    assert asked[2][1] is not None


def test_without_an_etag_nothing_is_pieced_together(site: file_server.Site, tmp_path: Path) -> None:
    site.files["/m.gguf"] = content = model_bytes(300_000)
    site.etags = False
    target = tmp_path / "m.gguf"
    target.write_bytes(b"of another version")
    found = download.look_up(f"{site.url}/m.gguf")
    counted: list[int] = []
    download.fetch(f"{site.url}/m.gguf", found, target, counted.append, lambda _s: None)
    assert target.read_bytes() == content
    assert site.ranges() == [None, None]
    assert sum(counted) == len(content) - len(b"of another version")


def test_a_file_that_changes_between_two_tries_is_refused(
    site: file_server.Site, tmp_path: Path
) -> None:
    site.files["/m.gguf"] = model_bytes(300_000)
    found = download.look_up(f"{site.url}/m.gguf")
    site.files["/m.gguf"] = model_bytes(300_000, fill=2)
    with pytest.raises(InvalidInput, match="was changed at its source"):
        download.fetch(
            f"{site.url}/m.gguf", found, tmp_path / "m.gguf", lambda _n: None, lambda _s: None
        )


def test_what_was_fetched_of_another_state_is_not_pieced_together(
    site: file_server.Site, running: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_MAX_STALLS", 0)
    monkeypatch.setattr(Progress, "sleep", lambda _progress, _s: None)
    site.files["/m.gguf"] = model_bytes(300_000)
    site.break_after_bytes = 100_000
    site.stop_after_requests = 2
    model, job_id = registry.add_from_url(admin, PROJECT, f"{site.url}/m.gguf")
    assert "cannot be reached" in str(_ended(admin, job_id).error)
    assert (files.folder_of(str(model.version_id)) / "m.gguf").stat().st_size == 100_000
    (files.folder_of(str(model.version_id)) / "other.gguf").write_bytes(b"of an earlier name")
    site.files["/m.gguf"] = content = model_bytes(300_000, 2)
    site.break_after_bytes = site.stop_after_requests = None
    again, job_id = registry.add_from_url(admin, PROJECT, f"{site.url}/m.gguf")
    assert _ended(admin, job_id).state == "succeeded"
    assert again.id == model.id
    assert Path(str(registry.get_model(admin, model.id).path)).read_bytes() == content


def test_a_size_that_lies_and_a_wrong_checksum_leave_nothing(
    site: file_server.Site, running: Path, admin: Actor
) -> None:
    site.files["/m.gguf"] = model_bytes(50_000)
    site.extra_bytes = 10_000_000
    model, job_id = registry.add_from_url(admin, PROJECT, f"{site.url}/m.gguf")
    view = _ended(admin, job_id)
    assert "longer than the 50,000 bytes that its source announced" in str(view.error)
    folder = files.folder_of(str(model.version_id))
    assert sum(file.stat().st_size for file in folder.iterdir()) == 0
    assert registry.get_model(admin, model.id).state == "failed"
    site.extra_bytes = 0
    model, job_id = registry.add_from_url(admin, PROJECT, f"{site.url}/m.gguf", sha256="0" * 64)
    assert "is not the file that was meant" in str(_ended(admin, job_id).error)
    assert list(folder.iterdir()) == []
    again, job_id = registry.add_from_url(admin, PROJECT, f"{site.url}/m.gguf")
    assert _ended(admin, job_id).state == "succeeded"
    assert (again.id, len(versions.list_versions(admin, model.id))) == (model.id, 1)


def test_what_is_wrong_at_a_url_is_named(
    site: file_server.Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("BUD_MAX_MODEL_GB", "1")
    settings.cache_clear()
    site.files |= {"/m.gguf": model_bytes(1000), "/m.zip": b"PK\3\4", "/text.gguf": b"hello"}
    site.redirects["/inside"] = "https://10.1.2.3/m.gguf"
    site.redirects["/metadata"] = "http://169.254.169.254/latest/meta-data/x.gguf"
    site.redirects["/loop"] = "/loop"
    site.redirects["/file"] = "file:///etc/passwd"
    cases: list[tuple[dict[str, Any], str, type[BudError], str]] = [
        ({"content_type": "text/html; charset=utf-8"}, "/m.gguf", InvalidInput, "a web page"),
        ({"status": 403}, "/m.gguf", PermissionDenied, r"may not be read \(403\)"),
        ({"status": 503}, "/m.gguf", UpstreamFailed, "answered 503.*Retry"),
        ({"claimed_bytes": 2 * 10**9}, "/m.gguf", TooLarge, r"2\.00 GB.*BUD_MAX_MODEL_GB"),
        ({}, "/none.gguf", NotFound, "no file at http"),
        ({}, "/m.zip", InvalidInput, "m.zip is no model file.*unpacked"),
        ({}, "/text.gguf", InvalidInput, "does not begin like a GGUF"),
        ({}, "/inside", InvalidInput, r"private network.*BUD_PRIVATE_HOSTS"),
        ({}, "/metadata", InvalidInput, "is not https"),
        ({}, "/loop", UpstreamFailed, "redirects more than 5 times"),
        ({}, "/file", InvalidInput, "not an https:// URL"),
    ]
    for behaviour, path, error, said in cases:
        with monkeypatch.context() as patch:
            for name, value in behaviour.items():
                patch.setattr(site, name, value)
            with pytest.raises(error, match=said) as caught:
                download.look_up(f"{site.url}{path}?token=s3cr3t")
        assert "s3cr3t" not in str(caught.value) + caplog.text


def test_addresses_that_are_refused_at_once(data_dir: Path, admin: Actor) -> None:
    for url, said in (
        ("http://example.org/m.gguf", "not https"),
        ("https://[fd00::1]/m.gguf", "private network"),
        ("https://127.0.0.1/m.gguf", "private network"),
        ("https://localhost/m.gguf", "private network"),
        ("https://me:secret@example.org/m.gguf", "user name or password"),
        ("example.org/m.gguf", "not an https:// URL"),
    ):
        with pytest.raises(InvalidInput, match=said) as caught:
            registry.add_from_url(admin, PROJECT, url)
        assert "secret" not in str(caught.value)
    with pytest.raises(InvalidInput, match="own artifact|no address in an object store"):
        registry.add_from_object_store(admin, PROJECT, "bucket/models")
    assert registry.list_models(admin, PROJECT) == []


def _certificate(folder: Path, name: str) -> Path:
    """A certificate for `name` that signs itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(certificate.public_bytes(pem) + secret)
    return path


def test_the_certificate_is_that_of_the_name_though_the_address_is_fixed(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _certificate(tmp_path, "models.test")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("BUD_PRIVATE_HOSTS", "models.test,other.test")
    settings.cache_clear()
    here = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: (
            here if str(host).endswith(".test") else real(host, *rest, **more)
        ),
    )
    with file_server.serving(file_server.Site({"/m.gguf": model_bytes(1000)}), tls) as site:
        port = site.url.rpartition(":")[2]
        assert download.look_up(f"https://models.test:{port}/m.gguf").size_bytes == 1000
        with pytest.raises(Unavailable, match="other.test"):
            download.look_up(f"https://other.test:{port}/m.gguf")


# --- object stores -------------------------------------------------------------------------------


def test_a_split_model_in_a_bucket_comes_and_a_second_time_only_what_changed(
    store: s3_server.Store, running: Path, admin: Actor
) -> None:
    names = [f"team/big/big-0000{number}-of-00002.gguf" for number in (1, 2)]
    store.buckets["bucket"] = {name: model_bytes(200_000, n) for n, name in enumerate(names)}
    store.buckets["bucket"]["team/bigger/other.gguf"] = b"not of it"
    model, job_id = registry.add_from_object_store(admin, PROJECT, "s3://bucket/team/big")
    view = _ended(admin, job_id)
    assert view.state == "succeeded", view.error
    model = registry.get_model(admin, model.id)
    assert (model.name, model.parameters, model.size_bytes) == ("big", 12, 400_000)
    _, job_id = registry.add_from_object_store(admin, PROJECT, "s3://bucket/team/big")
    assert "in the registry as 'big', version 1" in str(_ended(admin, job_id).error)
    store.buckets["bucket"][names[1]] = model_bytes(200_000, 7)
    again, job_id = registry.add_from_object_store(admin, PROJECT, "s3://bucket/team/big")
    assert _ended(admin, job_id).state == "succeeded"
    found = versions.list_versions(admin, model.id)
    assert (again.id, [version.number for version in found]) == (model.id, [2, 1])
    assert registry.get_model(admin, model.id).version_id == found[0].id
    assert "never-shown" not in str(jobs.logs(admin, job_id))


def test_a_download_from_a_bucket_goes_on_and_notices_a_change(
    store: s3_server.Store, tmp_path: Path
) -> None:
    content = model_bytes(300_000)
    store.buckets["bucket"]["m.gguf"] = content
    location = object_store.parse("s3://bucket/m.gguf")
    (listed,) = object_store.list_objects(location)
    target = tmp_path / "m.gguf"
    target.write_bytes(content[:100_000])
    store.break_after_bytes = 120_000
    waited: list[float] = []
    sha256 = object_store.download(location, listed, target, lambda _n: None, waited.append)
    assert (target.read_bytes(), sha256) == (content, hashlib.sha256(content).hexdigest())
    assert store.ranges() == ["bytes=100000-", "bytes=220000-"]
    assert waited == [1.0]
    store.buckets["bucket"]["m.gguf"] = model_bytes(300_000, 2)
    target.write_bytes(b"")
    with pytest.raises(InvalidInput, match="was changed while it was downloaded"):
        object_store.download(location, listed, target, lambda _n: None, waited.append)


def test_what_is_wrong_with_a_bucket_is_named(
    store: s3_server.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases: list[tuple[str, type[BudError], str]] = [
        ("s3://nobucket/m", NotFound, "no bucket 'nobucket'.*BUD_S3_ENDPOINT"),
        ("s3://bucket/empty", NotFound, "nothing at s3://bucket/empty"),
        ("https://bucket/m", InvalidInput, "no address in an object store"),
        ("s3://b@d/m", InvalidInput, "no address in an object store"),
    ]
    for uri, error, said in cases:
        with pytest.raises(error, match=said):
            object_store.list_objects(object_store.parse(uri))
    store.refuse = True
    with pytest.raises(
        PermissionDenied, match="InvalidAccessKeyId.*BUD_S3_ACCESS_KEY_ID"
    ) as caught:
        object_store.list_objects(object_store.parse("s3://bucket/m"))
    assert "never-shown" not in str(caught.value)
    monkeypatch.setattr(object_store, "_ATTEMPTS", 1)
    monkeypatch.setenv("BUD_S3_ENDPOINT", "http://127.0.0.1:9")
    settings.cache_clear()
    with pytest.raises(Unavailable, match=r"at http://127\.0\.0\.1:9 cannot be reached"):
        object_store.list_objects(object_store.parse("s3://bucket/m"))


# --- the artifact store --------------------------------------------------------------------------


def _file(folder: Path, name: str = "tiny.gguf", size_bytes: int = 400_000) -> Path:
    path = folder / name
    path.write_bytes(model_bytes(size_bytes))
    return path


def test_artifacts_in_s3_are_fetched_where_they_are_missing_and_deleted_with_the_model(
    kept_in_s3: s3_server.Store, running: Path, tmp_path: Path, admin: Actor
) -> None:
    source = _file(tmp_path)
    model, job_id = registry.add_local(admin, PROJECT, str(source))
    assert _ended(admin, job_id).state == "succeeded"
    version = versions.find_version(admin, model.id)
    key = f"models/{version.id}/tiny.gguf"
    bucket = kept_in_s3.buckets["bucket"]
    assert version.artifact_uri == f"s3://bucket/models/{version.id}"
    assert list(bucket) == [key]
    with pytest.raises(InvalidInput, match="inside Bud's own artifact store"):
        registry.add_from_object_store(admin, PROJECT, f"s3://bucket/models/{version.id}")

    files.remove(version.id)
    pinned = versions.pinned(admin, model.id, version.id)
    path = Path(registry.local_path(_progress(), pinned))
    assert path.read_bytes() == source.read_bytes()
    before = len(kept_in_s3.requests)
    registry.local_path(_progress(), pinned)
    assert len(kept_in_s3.requests) == before

    files.remove(version.id)
    whole, bucket[key] = bucket[key], model_bytes(400_000, 9)
    with pytest.raises(UpstreamFailed, match="is not what was put there"):
        registry.local_path(_progress(), pinned)
    assert not path.exists()
    bucket[key] = whole
    job_id = registry.scan(admin, version.id)
    assert _ended(admin, job_id).state == "succeeded"
    assert path.exists()

    kept_in_s3.refuse = True
    with pytest.raises(PermissionDenied, match="refuses access"):
        registry.delete_model(admin, model.id)
    assert registry.get_model(admin, model.id).state == "ready"
    kept_in_s3.refuse = False
    registry.delete_model(admin, model.id)
    assert (bucket, path.exists()) == ({}, False)


def test_an_upload_that_was_cut_short_goes_on_after_its_last_whole_part(
    kept_in_s3: s3_server.Store, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart, "_LEAST_PART_BYTES", 1 << 20)
    folder = files.folder_of("ver_x")
    folder.mkdir(parents=True)
    large = random.Random(4).randbytes((5 << 20) + 7)
    kept = []
    for name, content in (("a.safetensors", large), ("config.json", bytes(900))):
        (folder / name).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        kept.append(FileView(name=name, size_bytes=len(content), sha256=sha256))

    class Stopped(Exception):
        pass

    done: list[int] = []

    def stop_at_the_third(_rate: files.Rate, count: int) -> None:
        done.append(count)
        if len(done) == 3:
            raise Stopped

    def parts() -> list[int]:
        return sorted(number for *_, sent in kept_in_s3.uploads.values() for number in sent)

    rate = files.Rate(_progress(), None)
    with monkeypatch.context() as patch:
        patch.setattr(files.Rate, "add", stop_at_the_third)
        with pytest.raises(Stopped):
            artifacts.keep("ver_x", kept, rate)
    assert (parts(), kept_in_s3.buckets["bucket"]) == ([1, 2, 3], {})
    # What is torn is sent again, and nothing else that is there.
    (left,) = kept_in_s3.uploads.values()
    left[2][2] = b"torn"
    kept_in_s3.requests.clear()
    monkeypatch.setattr(files.Rate, "add", lambda _rate, _count: None)
    assert artifacts.keep("ver_x", kept, rate) == "s3://bucket/models/ver_x"
    assert kept_in_s3.uploads == {}
    assert kept_in_s3.buckets["bucket"]["models/ver_x/a.safetensors"] == large
    assert _puts(kept_in_s3) == 4 + 1  # parts 2, 4, 5 and 6, and the small file
    artifacts.keep("ver_x", kept, rate)
    assert _puts(kept_in_s3) == 4 + 1
    # What is given up leaves no parts.
    kept_in_s3.uploads["given-up"] = ("bucket", "models/ver_x/b.safetensors", {1: b"half"})
    artifacts.remove("ver_x", None)
    assert (kept_in_s3.uploads, kept_in_s3.buckets["bucket"]) == ({}, {})


def _puts(store: s3_server.Store) -> int:
    return [method for method, *_ in store.requests].count("PUT")


def test_cancelling_while_saving_leaves_nothing_anywhere(
    kept_in_s3: s3_server.Store,
    running: Path,
    tmp_path: Path,
    admin: Actor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep = artifacts.keep

    def kept_then_slow(version_id: str, kept: Any, rate: files.Rate) -> str | None:
        keep(version_id, kept, rate)
        while True:
            time.sleep(0.02)
            rate.add(0)

    monkeypatch.setattr(workflows.artifacts, "keep", kept_then_slow)
    model, job_id = registry.add_local(admin, PROJECT, str(_file(tmp_path)))
    _until(lambda: kept_in_s3.buckets["bucket"])
    jobs.cancel(admin, job_id)
    assert _ended(admin, job_id).state == "cancelled"
    assert kept_in_s3.buckets["bucket"] == {}
    assert not files.folder_of(str(model.version_id)).exists()
    assert registry.list_models(admin, PROJECT) == []


def test_a_second_version_waits_for_the_first_and_keeps_the_model_usable(
    running: Path, tmp_path: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _file(tmp_path)
    model, job_id = registry.add_local(admin, PROJECT, str(source))
    with pytest.raises(Conflict, match="is being added already"):
        registry.add_local(admin, PROJECT, str(source))
    assert _ended(admin, job_id).state == "succeeded"

    def slow(progress: Progress, *_arguments: object) -> None:
        progress.sleep(60)

    other = _file(tmp_path, "tuned.gguf", 500_000)
    with monkeypatch.context() as patch:
        patch.setattr(workflows, "_extract", slow)
        again, job_id = registry.add_local(admin, PROJECT, str(other), model_id=model.id)
        _until(lambda: jobs.get(admin, job_id).steps[2].state == "running")
        assert (again.id, again.state, again.size_bytes) == (model.id, "ready", 400_000)
        jobs.cancel(admin, job_id)
        assert _ended(admin, job_id).state == "cancelled"
    assert [version.number for version in versions.list_versions(admin, model.id)] == [1]
    _, job_id = registry.add_local(admin, PROJECT, str(other), model_id=model.id)
    assert _ended(admin, job_id).state == "succeeded"
    assert registry.get_model(admin, model.id).size_bytes == 500_000

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import socket
import socketserver
import struct
import tarfile
import threading
import tracemalloc
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gguf import _entry, _text, gguf_bytes
from test_registry_safetensors import write_safetensors

from core.kernel.errors import InvalidInput, Unavailable
from core.registry import scanning
from core.registry.adapters import clamav
from core.registry.reading import Sha256
from core.registry.scanners import pickles, secrets
from core.registry.scanners.contents import Pickles
from core.registry.scanners.report import ScanReport


def scan(*paths: Path, clamd: str = "") -> ScanReport:
    return scanning.scan(paths, clamd=clamd)


def call(module: str, name: str, argument: str = "x") -> bytes:
    """A pickle of protocol 0 that calls something when it is loaded."""
    return f"c{module}\n{name}\n(S'{argument}'\ntR.".encode()


def kinds(report: ScanReport) -> set[tuple[str, str]]:
    return {(finding.severity, finding.kind) for finding in report.findings}


# --- pickles ---------------------------------------------------------------------------------


def test_a_pickle_that_runs_code_is_critical_and_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Runs:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {canary}",)

    folder = tmp_path / "model"
    folder.mkdir()
    for protocol in range(6):
        (folder / f"p{protocol}.bin").write_bytes(pickle.dumps([1, {"a": Runs()}], protocol))
    with zipfile.ZipFile(folder / "zipped.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Runs()))
    report = scan(folder)
    assert report.severity == "critical"
    assert report.is_blocking
    assert report.state == "scanned"
    assert {finding.file for finding in report.findings} == {
        *(f"p{protocol}.bin" for protocol in range(6)), "zipped.pt!archive/data.pkl",
    }  # fmt: skip
    assert all("system" in finding.what for finding in report.findings)
    assert not canary.exists()
    # It would have: the same bytes run when they are loaded.
    pickle.loads((folder / "p2.bin").read_bytes())
    assert canary.exists()


_HIDDEN = {
    "module and name behind escapes": b"V\\u006f\\u0073\nVsystem\n\x93(Vx\ntR.",
    "escapes in a string": b"S'\\x6fs'\nS'system'\n\x93(Vx\ntR.",
    "names from the memo": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94NN00h\x00h\x01\x93.",
    "a place in the memo written twice": b"\x80\x04\x8c\x01aq\x00\x8c\x02osq\x00"
    b"\x8c\x06system\x94h\x00h\x01\x93.",
    "under a duplicate": b"\x80\x04\x8c\x02os\x8c\x06system\x8c\x01z0\x93.",
    "an instance": b"(S'x'\nios\nsystem\n.",
    "before it breaks off": call("os", "system")[:-1] + b"\xff\xff",
    "a second pickle": pickle.dumps({"a": 1}) + call("os", "system"),
    "through a module": b"\x80\x04\x8c\x13torch.serialization\x8c\x09os.system\x93.",
    "the name of Python 2": call("__builtin__", "execfile") + call("commands", "getoutput"),
    "a computed name": b"\x80\x04NN\x93.",
    "an extension": b"\x80\x02\x82\x01.",
}


@pytest.mark.parametrize("how", list(_HIDDEN))
@pytest.mark.parametrize("step_bytes", [1, 7, 1 << 20])
def test_a_hidden_import_is_found(how: str, step_bytes: int) -> None:
    reader = pickles.PickleReader()
    content = _HIDDEN[how]
    for start in range(0, len(content), step_bytes):
        reader.feed(content[start : start + step_bytes])
    reader.close()
    found = {pickles.severity_of(name) for name in reader.imports}
    assert found & {"critical", "high"}, reader.imports


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        (("builtins", "eval"), "critical"),
        (("subprocess", "Popen"), "critical"),
        (("importlib", "import_module"), "critical"),
        (("numpy.testing._private.utils", "runstring"), "critical"),
        (("torch.hub", "load"), "critical"),
        (("collections", "OrderedDict.__init__.__globals__"), "critical"),
        (("a\nb", "c"), "critical"),
        (("smtplib", "SMTP"), "high"),
        (("transformers.training_args", "TrainingArguments"), "medium"),
        (("__main__", "Model"), "medium"),
        (("torch", "BFloat16Storage"), "safe"),
        (("torch._utils", "_rebuild_tensor_v2"), "safe"),
        (("numpy._core.multiarray", "_reconstruct"), "safe"),
        (("copy_reg", "_reconstructor"), "safe"),
    ],
)
def test_how_dangerous_an_import_is(name: tuple[str, str], severity: str) -> None:
    assert pickles.severity_of(name) == severity


def _legacy_torch() -> bytes:
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, OrderedDict(a=1), ["0"])
    return b"".join(pickle.dumps(part, 2) for part in parts) + b"\x93NNcos\nsystem\n" * 9


def test_what_checkpoints_are_made_of_is_only_a_pickle(tmp_path: Path) -> None:
    arrays = {"w": np.ones(9000, dtype="f4"), "s": np.float64(3), "o": OrderedDict(x=b"y" * 900)}
    for protocol in range(2, 6):
        (tmp_path / f"{protocol}.pkl").write_bytes(pickle.dumps(arrays, protocol))
    # After its five pickles come bare numbers, whatever they look like.
    (tmp_path / "legacy.bin").write_bytes(_legacy_torch())
    np.save(tmp_path / "plain.npy", np.arange(9))
    np.savez_compressed(tmp_path / "plain.npz", a=np.arange(9), b=np.ones((3, 3)))
    report = scan(tmp_path)
    assert kinds(report) == {("low", "pickle")}
    assert report.state == "scanned"
    assert len(report.findings) == 5


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(call("os", "system")),
        # The rest of a pickle may lie in a second stream.
        gzip.compress(call("os", "system")[:7]) + gzip.compress(call("os", "system")[7:]),
        zlib.compress(call("os", "system")),
        bz2.compress(call("os", "system")),
        lzma.compress(call("os", "system")),
    ],
    ids=["gzip", "gzip in two", "zlib", "bzip2", "xz"],
)
def test_a_packed_pickle_is_unpacked_on_the_way(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.joblib").write_bytes(content)
    assert kinds(scan(tmp_path)) == {("critical", "pickle-import")}


def test_an_array_of_objects_is_a_pickle(tmp_path: Path) -> None:
    header = io.BytesIO()
    shape = {"descr": "|O", "fortran_order": False, "shape": (1,)}
    np.lib.format.write_array_header_1_0(header, shape)
    (tmp_path / "a.npy").write_bytes(header.getvalue() + call("os", "system"))
    assert scan(tmp_path).severity == "critical"


def test_the_name_of_a_file_does_not_hide_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(call("os", "system"))
    (tmp_path / "weights").write_bytes(b"\x80\x02" + call("os", "system"))
    (tmp_path / "model.safetensors").write_bytes(call("os", "system"))
    (tmp_path / "README.txt").write_text("configuration\nof_things\n" * 20)
    report = scan(tmp_path)
    files = {finding.file for finding in report.findings if finding.severity == "critical"}
    assert files == {"notes.txt", "weights"}
    # No loader reads this one as a pickle; that it is no safetensors is what counts.
    assert ("high", "malformed") in kinds(report)


def test_what_cannot_be_followed_to_its_end_reads_as_not_scanned(tmp_path: Path) -> None:
    joblib = b"\x80\x04\x8c\x13joblib.numpy_pickle\x8c\x11NumpyArrayWrapper\x93)\x81}b\xff\xfe\xfd"
    for name, content, why in (
        ("a.joblib", joblib, "is no opcode"),
        ("b.pkl", b"\x04\x22\x4d\x18" + bytes(40), "packed with LZ4"),
        ("c.pkl", b"\x80\x04" + b"N" * 2_000_001, "keeps more than 2,000,000 values"),
        ("d.joblib", b"\x78\x9c" + b"\xff" * 99, "packed data is broken"),
    ):
        (tmp_path / name).write_bytes(content)
        report = scan(tmp_path / name)
        assert report.state == "not scanned", name
        assert report.severity != "safe"
        assert why in report.reasons[0]
    reader = pickles.PickleReader(max_opcodes=10)
    reader.feed(b"N0" * 20)
    assert not reader.is_read


def test_bare_numbers_are_no_pickle_by_chance(tmp_path: Path) -> None:
    numbers = np.random.default_rng(7).integers(0, 256, (4000, 200), dtype=np.uint8)
    for row in numbers:
        content = row.tobytes()
        reader = Pickles(content, expected=True)
        reader.feed(content)
        reader.close()
        assert reader.findings("openvino_model.bin") == [], content


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=300))
def test_no_bytes_break_the_reader(content: bytes) -> None:
    reader = pickles.PickleReader()
    reader.feed(b"\x80\x04" + content)
    reader.close()
    assert reader.pickles or reader.error or not content


# --- archives --------------------------------------------------------------------------------


def _tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _link_in_tar(target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo("link")
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def _zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/a", "C:\\a", "..\\a"])
def test_a_path_that_leads_out_of_an_archive_is_critical(tmp_path: Path, name: str) -> None:
    _zip(tmp_path / "a.zip", (zipfile.ZipInfo(name), b"x"))
    _tar(tmp_path / "b.tar.gz", (tarfile.TarInfo(name), b"x"), mode="w:gz")
    report = scan(tmp_path)
    assert kinds(report) == {("critical", "path-traversal")}
    assert {finding.file for finding in report.findings} == {"a.zip", "b.tar.gz"}


@pytest.mark.parametrize(
    ("target", "severity"), [("/etc/passwd", "critical"), ("../x", "critical"), ("b", "medium")]
)
def test_links_in_archives(tmp_path: Path, target: str, severity: str) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    _zip(tmp_path / "a.zip", (link, target.encode()))
    _tar(tmp_path / "b.tar", (_link_in_tar(target), b""))
    report = scan(tmp_path)
    assert kinds(report) == {(severity, "archive-link")}
    assert len(report.findings) == 2


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_pickles_in_archives_are_found(tmp_path: Path, mode: str) -> None:
    suffix = mode.replace("w", "tar").replace(":", ".")
    members = [
        (tarfile.TarInfo("big"), bytes(3000)),
        (tarfile.TarInfo("m.pkl"), call("os", "system")),
    ]
    _tar(tmp_path / f"a.{suffix}", *members, mode=mode)
    inner = _zip(tmp_path / "inner.zip", ("deep.pkl", call("os", "system"))).read_bytes()
    (tmp_path / "inner.zip").unlink()
    _zip(tmp_path / "outer.zip", ("inner.zip", inner))
    report = scan(tmp_path)
    assert {finding.file for finding in report.findings} == {
        f"a.{suffix}!m.pkl", "outer.zip!inner.zip!deep.pkl",
    }  # fmt: skip
    assert report.severity == "critical"


def test_a_password_or_a_wrong_checksum_hides_nothing(tmp_path: Path) -> None:
    # torch reads a member whatever the headers say; Python's own zipfile would refuse it.
    content = bytearray(
        _zip(tmp_path / "a.pt", ("archive/data.pkl", call("os", "system"))).read_bytes()
    )
    local, central = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")
    content[local + 6] |= 1
    content[central + 8] |= 1
    content[central + 16] ^= 255
    (tmp_path / "a.pt").write_bytes(bytes(content))
    assert scan(tmp_path).severity == "critical"
    # And a member with two names is not trusted at all.
    content[content.index(b"archive/data.pkl")] = ord("X")
    (tmp_path / "a.pt").write_bytes(bytes(content))
    report = scan(tmp_path)
    assert report.state == "not scanned"
    assert "another name where it lies" in report.reasons[0]


def test_a_member_twice_is_ambiguous(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        _zip(tmp_path / "a.zip", ("data.txt", b"1"), ("data.txt", b"2"))
    assert kinds(scan(tmp_path)) == {("high", "ambiguous-archive")}


def _many_to_one(path: Path) -> None:
    """Fifield's bomb in small: every entry of the directory leads to the same bytes."""
    content = _zip(path, ("a", bytes(1000)), ("b", bytes(1000))).read_bytes()
    second = content.rindex(b"PK\x01\x02")
    path.write_bytes(content[: second + 42] + bytes(4) + content[second + 46 :])


def _ten_gigabytes(path: Path) -> None:
    """A valid zip of 10 GB that takes no disk: its one member is a hole."""
    size = 10 << 30
    local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 45, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    sizes = struct.pack("<HHQQ", 1, 16, size, size)
    limit = 0xFFFFFFFF
    central = struct.pack(
        "<4sHHHHHHIIIHHHHHII",
        *(b"PK\x01\x02", 45, 45, 0, 0, 0, 0, 0, limit, limit, 1, len(sizes), 0, 0, 0, 0, 0),
    ) + b"a" + sizes  # fmt: skip
    at = len(local) + size
    end_64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(central), at)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, at + len(central), 1)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(central), limit, 0)
    with path.open("wb") as file:
        file.write(local)
        file.seek(at)
        file.write(central + end_64 + locator + end)


@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("ratio.zip", lambda p: _zip(p, ("a", bytes(120 << 20))), "unpack to 125,829,120"),
        ("overlap.zip", _many_to_one, "share their bytes"),
        ("sparse.zip", _ten_gigabytes, "mostly a hole"),
        ("hole.zip", lambda p: (p.touch(), os.truncate(p, 10 << 30)), "mostly a hole"),
        ("tar.tar.gz", lambda p: _tar(p, (tarfile.TarInfo("a"), bytes(120 << 20)), mode="w:gz"),
         "unpack to more than"),
        ("a.joblib", lambda p: p.write_bytes(zlib.compress(bytes(120 << 20), 1)), "unpack to over"),
    ],
)  # fmt: skip
def test_a_bomb_is_refused_without_memory(
    tmp_path: Path, name: str, make: object, why: str
) -> None:
    make(tmp_path / name)  # type: ignore[operator]
    tracemalloc.start()
    report = scan(tmp_path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ("critical", "zip-bomb") in kinds(report)
    assert any(why in finding.what for finding in report.findings), report.findings
    assert peak_bytes < 30 << 20


def test_many_alike_are_counted_and_not_listed(tmp_path: Path) -> None:
    _zip(tmp_path / "a.zip", *((f"../{number}.sh", b"x") for number in range(120)))
    report = scan(tmp_path)
    assert len(report.findings) == 102
    assert kinds(report) == {("critical", "path-traversal"), ("medium", "script")}
    more = [finding.what for finding in report.findings if finding.file == "(more files)"]
    assert more == ["There are 70 more findings of this kind."] * 2


def test_a_directory_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 60_000, 60_000, 300 << 20, 0, 0)
    with (tmp_path / "a.zip").open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(500 << 20)
        file.write(end)
    report = scan(tmp_path)
    assert "lists 60,000 members in 314,572,800 bytes" in report.findings[0].what
    assert report.files == ()


@pytest.mark.parametrize("keep", [10, 60, -1])
def test_a_broken_archive_reads_as_not_scanned(tmp_path: Path, keep: int) -> None:
    content = _zip(tmp_path / "a.zip", ("a", os.urandom(500))).read_bytes()
    (tmp_path / "a.zip").write_bytes(content[:keep])
    report = scan(tmp_path)
    assert report.state == "not scanned"
    assert ("high", "malformed") in kinds(report)


# --- folders, names and texts ----------------------------------------------------------------


def test_links_and_devices_are_neither_followed_nor_opened(tmp_path: Path) -> None:
    outside = tmp_path / "secret.txt"
    outside.write_text("hf_" + "A" * 34)
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "real.txt").write_text("fine")
    (folder / "out.txt").symlink_to(outside)
    (folder / "up").symlink_to("..", target_is_directory=True)
    (folder / "within.txt").symlink_to("sub/real.txt")
    (folder / "gone.txt").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    report = scan(folder)
    found = {finding.file: (finding.severity, finding.kind) for finding in report.findings}
    assert found == {
        "out.txt": ("critical", "link"),
        "up": ("critical", "link"),
        "gone.txt": ("low", "link"),
        "pipe": ("critical", "special-file"),
    }
    assert {file.name for file in report.files} == {"sub/real.txt", "within.txt"}


def test_the_hub_cache_links_to_its_own_blobs(tmp_path: Path) -> None:
    cache = tmp_path / "models--org--name"
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / "1").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/1")
    assert scan(snapshot).severity == "safe"
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../../other")
    assert scan(snapshot).severity == "critical"


def test_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="There is nothing at"):
        scan(tmp_path / "missing")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("lib.so", b"\x7fELF" + bytes(60), ("high", "program")),
        ("weights.dat2", b"\x7fELF" + bytes(60), ("high", "program")),
        ("setup.exe", b"MZ", ("high", "program")),
        ("run.sh", b"echo", ("medium", "script")),
        ("modeling_x.py", b"import os", ("low", "code")),
        (".hidden", b"x", ("low", "hidden-file")),
        ("config.json", b'{"auto_map": {"AutoModel": "m.X"}}', ("medium", "custom-code")),
        (
            "config.json",
            b'{"\\u0061uto_map": {"AutoModel": ["m.X", null]}}',
            ("medium", "custom-code"),
        ),
        ("modules.json", b'[{"type": "custom_st.Model"}]', ("medium", "custom-code")),
        ("config.json", b"[" * 100_000, ("medium", "malformed")),
        ("model.h5", b"\x89HDF" + b'{"class_name": "Lambda"}', ("high", "keras-lambda")),
        ("saved_model.pb", b"\x0a\x01a\x12\x09WriteFile", ("high", "tensorflow-operator")),
        ("model.onnx", b"\x0a\x08location\x12\x0e../../../x.bin", ("critical", "path-traversal")),
        ("chat_template.jinja", b"{{ ''.__class__.__mro__ }}", ("critical", "template")),
        ("broken.gguf", b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 1), ("high", "malformed")),
        ("cut.safetensors", struct.pack("<Q", 9999) + b"{}", ("high", "malformed")),
    ],
)
def test_what_does_not_belong_in_a_model(
    tmp_path: Path, name: str, content: bytes, expected: tuple[str, str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert expected in kinds(scan(tmp_path))


def test_the_lambda_of_a_keras_archive_is_found(tmp_path: Path) -> None:
    config = json.dumps({"config": {"layers": [{"class_name": "Lambda"}]}}).encode()
    _zip(tmp_path / "model.keras", ("config.json", config))
    assert kinds(scan(tmp_path)) == {("high", "keras-lambda")}


def test_the_template_in_a_gguf_is_looked_at(tmp_path: Path) -> None:
    trick = "{{ self.__init__.__globals__.__builtins__ }}"
    entry = _entry("tokenizer.chat_template", 8, _text(trick))
    (tmp_path / "a.gguf").write_bytes(gguf_bytes(extra=entry, entries=1))
    assert kinds(scan(tmp_path)) == {("critical", "template")}


_SECRETS = {
    "AWS": "AKIA" + "ABCD1234EFGH5678",
    "Hugging Face": "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH",
    "GitHub": "ghp_" + "a1" * 18,
    "private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "password": "postgres://bob:hunter22hunter@db.example.com",
    "OpenAI": "sk-proj-" + "a1" * 20 + "T3BlbkFJ" + "b2" * 20,
}


@pytest.mark.parametrize("step_bytes", [13, 1 << 20])
def test_secrets_are_found_and_never_shown(step_bytes: int) -> None:
    text = "".join(f"line\n{what}={secret}\n" for what, secret in _SECRETS.items()).encode()
    reader = secrets.SecretReader()
    for start in range(0, len(text), step_bytes):
        reader.feed(text[start : start + step_bytes])
    found = reader.findings("README.md")
    assert len(found) == len(_SECRETS)
    for finding, (line, (what, secret)) in zip(
        sorted(found, key=lambda finding: int(finding.what.split()[1])),
        zip(range(2, 99, 2), _SECRETS.items(), strict=False),
        strict=True,
    ):
        assert finding.what.startswith(f"Line {line} holds"), what
        assert secret[12:] not in finding.model_dump_json()


def test_placeholders_and_words_are_no_secrets() -> None:
    reader = secrets.SecretReader()
    reader.feed(b"hf_xxx sk-... risk-free-and-desk-bound https://user:pass@host $AKIA_KEY \n" * 9)
    reader.feed(b"https://huggingface.co/a:b@c task-ant-eater AKIAABCD1234EFGH5678IJKL\n")
    assert reader.findings("a") == []


# --- one read --------------------------------------------------------------------------------


def test_one_read_serves_the_hash_the_scan_and_the_caller(tmp_path: Path) -> None:
    first = write_safetensors(tmp_path / "a.safetensors", {"w": ("F32", [600_000])})
    (tmp_path / "b.txt").write_bytes(b"text")
    whole, done = Sha256(), []
    report = scanning.scan([tmp_path], sinks=[whole], on_bytes=done.append, clamd="")
    assert [(file.name, file.sha256) for file in report.files] == [
        ("a.safetensors", sha256(first.read_bytes()).hexdigest()),
        ("b.txt", sha256(b"text").hexdigest()),
    ]
    assert whole.hexdigest() == sha256(first.read_bytes() + b"text").hexdigest()
    assert sum(done) == first.stat().st_size + 4
    assert (report.state, report.severity, report.findings) == ("scanned", "safe", ())
    assert ScanReport.model_validate(report.model_dump(mode="json")) == report


def test_a_caller_can_stop_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"text")

    def stop(_count: int) -> None:
        raise InterruptedError("cancelled")

    with pytest.raises(InterruptedError, match="cancelled"):
        scanning.scan([tmp_path], on_bytes=stop, clamd="")


def test_a_scanner_that_fails_is_not_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_reader: object, _chunk: bytes) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(secrets.SecretReader, "feed", broken)
    (tmp_path / "a.txt").write_bytes(b"text")
    report = scan(tmp_path)
    assert (report.state, report.severity) == ("not scanned", None)
    assert report.reasons == ("secrets: a.txt: out of luck",)
    # The others went on.
    assert report.files[0].sha256 == sha256(b"text").hexdigest()


# --- ClamAV ----------------------------------------------------------------------------------

_EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


class _Clamd(socketserver.BaseRequestHandler):
    """Speaks clamd's INSTREAM as its manual states it; no virus scanner."""

    limit_bytes = 3 << 20

    def handle(self) -> None:
        assert self._exactly(10) == b"zINSTREAM\0"
        content = b""
        while (size := struct.unpack("!I", self._exactly(4))[0]) > 0:
            content += self._exactly(size)
            if len(content) > self.limit_bytes:
                self.request.sendall(b"INSTREAM size limit exceeded. ERROR\0")
                return
        if b"HANG UP" in content:
            return
        found = b"Eicar-Signature FOUND" if _EICAR in content else b"OK"
        self.request.sendall(b"stream: " + found + b"\0")

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count and (received := self.request.recv(count - len(data))):
            data += received
        return data


@pytest.fixture(params=["tcp", "unix"])
def clamd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    path = str(tmp_path_factory.mktemp("clamd") / "s")
    server: socketserver.BaseServer
    if request.param == "tcp":
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Clamd)
        address = f"127.0.0.1:{server.server_address[1]}"
    else:
        server, address = socketserver.ThreadingUnixStreamServer(path, _Clamd), path
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield address
    server.shutdown()
    server.server_close()
    thread.join()


def test_clamav_sees_the_same_read(tmp_path: Path, clamd: str) -> None:
    (tmp_path / "clean.txt").write_bytes(b"fine" * 500_000)
    report = scan(tmp_path, clamd=clamd)
    assert (report.state, report.severity) == ("scanned", "safe")
    assert report.scanners[-1].scanner == "clamav"
    (tmp_path / "eicar.txt").write_bytes(_EICAR)
    report = scan(tmp_path, clamd=clamd)
    assert kinds(report) == {("critical", "virus")}
    assert "Eicar-Signature" in report.findings[0].what


def test_clamav_that_does_not_finish_is_not_clean(tmp_path: Path, clamd: str) -> None:
    (tmp_path / "a.txt").write_bytes(b"HANG UP")
    report = scan(tmp_path, clamd=clamd)
    assert (report.state, report.severity) == ("not scanned", None)
    assert "does not answer" in report.reasons[0]
    (tmp_path / "a.txt").write_bytes(b"long" * (1 << 20))
    report = scan(tmp_path, clamd=clamd)
    assert report.state == "not scanned"
    assert "clamd" in report.reasons[0]


def test_clamav_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with clamav.Stream(address, timeout_s=0.05) as stream:
            stream.feed(b"text")
            with pytest.raises(Unavailable, match="it takes too long"):
                stream.verdict()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "/nowhere/clamd.sock", "localhost"])
def test_clamav_out_of_reach_is_not_clean(tmp_path: Path, address: str) -> None:
    (tmp_path / "a.txt").write_bytes(b"text")
    report = scan(tmp_path, clamd=address)
    assert (report.state, report.severity) == ("not scanned", None)
    assert report.reasons[0].startswith("clamav: a.txt: ")
    assert report.files[0].sha256 == sha256(b"text").hexdigest()

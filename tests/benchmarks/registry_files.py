"""Hashing and scanning a model's files in one read: `bud bench registry_files [--json]`."""

from __future__ import annotations

import json as json_module
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE_BYTES = 2_000_000_000
_LIMIT_MB = 300


def run(json: bool = False, size_bytes: int = SIZE_BYTES) -> dict[str, Any]:
    """Scan a file of each format, each in a process of its own; prints the figures."""
    folder = Path(tempfile.mkdtemp(prefix="bud-bench-"))
    figures: dict[str, Any] = {"size_bytes": size_bytes, "limit_peak_rss_mb": _LIMIT_MB}
    try:
        for name, make in _FORMATS.items():
            path = folder / name
            make(path, size_bytes)
            figures |= {f"{path.suffix[1:]}_{key}": value for key, value in _measure(path).items()}
            path.unlink()
    finally:
        shutil.rmtree(folder)
    if json:
        print(json_module.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value!s:>16}")
    return figures


def _measure(path: Path) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.registry_files", str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json_module.loads(answer.stdout)
    return found


def scan_one(path: Path) -> dict[str, Any]:
    """Scan one file in this process: seconds, MB a second, and the process's peak RSS in MB."""
    from core.registry.scanning import scan

    before_mb = _peak_rss_mb()
    started_s = time.perf_counter()
    report = scan([path], clamd="")
    spent_s = time.perf_counter() - started_s
    return {
        "s": round(spent_s, 2),
        "mb_per_s": round(path.stat().st_size / spent_s / 1e6),
        "peak_rss_mb": round(_peak_rss_mb()),
        "rss_before_mb": round(before_mb),
        "severity": report.severity,
        "state": report.state,
    }


def _peak_rss_mb() -> float:
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes / (1e6 if sys.platform == "darwin" else 1e3)


# Each is a real file of its format; the numbers in it are a hole, which reads as zeros.


def _safetensors(path: Path, size_bytes: int) -> None:
    width = size_bytes // 2 // 1000
    shape = {"dtype": "BF16", "shape": [width, 1000], "data_offsets": [0, width * 2000]}
    header = json_module.dumps({"model.weight": shape}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 8 + len(header) + width * 2000)


def _torch_zip(path: Path, size_bytes: int) -> None:
    # A zip that is mostly a hole is refused, so this one has its bytes on the disk.
    block = os.urandom(1 << 20)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": list(range(100_000))}, 2))
        with archive.open("archive/data/0", "w", force_zip64=True) as member:
            for _ in range(size_bytes // len(block)):
                member.write(block)


def _torch_legacy(path: Path, size_bytes: int) -> None:
    magic, version = 0x1950A86A20F9469CFC6C, 1001
    parts = (magic, version, {}, {"a": list(range(100_000))}, ["0"])
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in parts))
    os.truncate(path, size_bytes)


def _one_pickle(path: Path, size_bytes: int) -> None:
    """One pickle of many byte strings, each of them read opcode by opcode."""
    piece = pickle.BINBYTES + struct.pack("<I", 16_000) + bytes(16_000) + pickle.APPEND
    with path.open("wb") as file:
        file.write(b"\x80\x04" + pickle.EMPTY_LIST)
        for _ in range(size_bytes // len(piece)):
            file.write(piece)
        file.write(pickle.STOP)


_FORMATS: dict[str, Callable[[Path, int], None]] = {
    "model.safetensors": _safetensors,
    "model.pt": _torch_zip,
    "pytorch_model.bin": _torch_legacy,
    "model.pkl": _one_pickle,
}


if __name__ == "__main__":
    print(json_module.dumps(scan_one(Path(sys.argv[1]))))

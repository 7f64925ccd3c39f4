"""Measures what this machine's memory and cores give, in a process of its own.

Run: `python -m core.hardware.probe CORES`; prints one JSON object. A process of its own, because
BLAS reads its number of threads and its kernels when NumPy is imported. Where it would take
AVX-512 it is held to AVX2, which the model server's wheel is built for.

All cores work at once, each in a thread of its own on pieces of well under a millisecond to a few,
and each is timed by itself: on a busy machine the best of many short pieces was not interrupted,
while a piece that all threads share always waits for the one that was. Stored weights are
multiplied by one thread: whether memory has enough for all of them is the bandwidth's to say.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil

from core.hardware.adapters import ggml
from core.hardware.schemas import Rates, WeightProducts
from core.kernel.errors import Unavailable
from core.kernel.settings import ROOT

_MEASURE_S = 0.4
_LIMIT_S = 60.0
_MIB = 1 << 20
_SMALLEST_BUFFER_BYTES = 32 * _MIB
_LARGEST_BUFFER_BYTES = 256 * _MIB
_PIECE_BYTES = 4 * _MIB
# A prompt, or as many sequences as make the kernels as quick as they get.
_MANY_SEQUENCES = 64
_MATRIX_SIZE = 512
# Of the pieces of an array: the very quickest may still lie in a cache.
_QUICK_SHARE = 0.1
_CPU_INFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
# The names that OpenBLAS, OpenMP, MKL and Apple's Accelerate read.
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def measure(cores: int) -> Rates:
    """What memory and matrix units give to `cores` threads; takes about four seconds.

    Raises:
        Unavailable: The measurement ended with an error or took longer than a minute.
    """
    command = [sys.executable, "-m", "core.hardware.probe", str(cores)]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=_LIMIT_S,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise Unavailable(
            "This machine could not be measured.",
            value=str(getattr(error, "stderr", "") or error).strip().splitlines()[-1:],
            remedy="Free memory and processor time, then run: bud hardware probe",
        ) from error
    return msgspec.json.decode(done.stdout, type=Rates)


def _main(cores: int) -> None:
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    if _has_avx512():
        os.environ["OPENBLAS_CORETYPE"] = "Haswell"
    with ThreadPoolExecutor(cores) as pool:
        rates = Rates(
            memory_bandwidth_gb_per_s=sum(pool.map(_bandwidth_gb_per_s, [cores] * cores)),
            matmul_float32_tflops=sum(pool.map(_matmul_tflops, range(cores))),
            weight_products=_weight_products(cores),
        )
    # The answer to the process that started this one.
    print(msgspec.json.encode(rates).decode())  # noqa: T201


def _bandwidth_gb_per_s(cores: int) -> float:
    # STREAM's "add": two arrays are read and one is written, all cores' together larger than the
    # caches. Each thread makes its own arrays, so that their pages lie near it.
    import numpy as np

    elements = max(_buffer_bytes() // cores // 4, 1)
    first, second, out = (np.full(elements, value, np.float32) for value in (1, 2, 0))
    piece = min(elements, _PIECE_BYTES // 4)
    starts = itertools.cycle(range(0, elements - piece + 1, piece))

    def add() -> None:
        at = slice(start := next(starts), start + piece)
        np.add(first[at], second[at], out=out[at])

    seconds = sorted(_seconds(add))
    return 3 * 4 * piece / seconds[int(_QUICK_SHARE * len(seconds))] / 1e9


def _matmul_tflops(_thread: int) -> float:
    import numpy as np

    matrix = np.full((_MATRIX_SIZE, _MATRIX_SIZE), 0.5, np.float32)
    out = np.empty_like(matrix)
    least_s = min(_seconds(lambda: np.matmul(matrix, matrix, out=out)))
    return 2 * _MATRIX_SIZE**3 / least_s / 1e12


def _weight_products(cores: int) -> WeightProducts | None:
    try:
        library = ggml.load()
    except (ImportError, OSError, AttributeError):  # not there, or built without these functions
        return None

    def tflops(stored_as: str, sequences: int) -> float:
        # Many sequences share what is read, so that they hardly wait for it.
        weight_bytes = _buffer_bytes() if sequences == 1 else 0
        with ggml.products(library, stored_as, sequences, weight_bytes) as multiply:
            seconds = sorted(_seconds(multiply))
        one_s = seconds[int(_QUICK_SHARE * len(seconds))]
        return cores * sequences * ggml.PRODUCT_FLOP / one_s / 1e12

    return WeightProducts(
        q4_1_one_tflops=tflops("q4_1", 1),
        q4_1_many_tflops=tflops("q4_1", _MANY_SEQUENCES),
        q8_0_one_tflops=tflops("q8_0", 1),
        q8_0_many_tflops=tflops("q8_0", _MANY_SEQUENCES),
    )


def _seconds(work: Callable[[], object]) -> list[float]:
    """How long `work` takes, again and again."""
    work()
    found: list[float] = []
    end_s = time.perf_counter() + _MEASURE_S
    while not found or time.perf_counter() < end_s:
        start_s = time.perf_counter()
        work()
        found.append(time.perf_counter() - start_s)
    return found


def _has_avx512() -> bool:
    return _CPU_INFO.exists() and "avx512f" in _CPU_INFO.read_text()


def _buffer_bytes() -> int:
    wanted = max(_SMALLEST_BUFFER_BYTES, min(2 * _largest_cache_bytes(), _LARGEST_BUFFER_BYTES))
    return min(wanted, psutil.virtual_memory().available // 12)


def _largest_cache_bytes() -> int:
    sizes = [path.read_text().strip() for path in _CACHES.glob("index*/size")]
    found = [re.fullmatch(r"(\d+)([KM])", size) for size in sizes]
    units = {"K": 1 << 10, "M": _MIB}
    return max((int(match[1]) * units[match[2]] for match in found if match), default=0)


if __name__ == "__main__":
    _main(int(sys.argv[1]))

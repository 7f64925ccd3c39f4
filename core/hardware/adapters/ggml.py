"""How fast a core multiplies stored weights, by the library that the model server runs.

How much of its float32 rate a core reaches while it unpacks weights differs by half between CPUs
(SmolLM2-135M Q4_1: 0.37 on a Zen 5, 0.2 on a Zen 4 and an Emerald Rapids), so it is measured and
not derived. The weights are more than the caches hold, as a model's are: a core that waits for
memory does so here as well.

The functions are ggml's public ones (ggml.h, ggml-backend.h, ggml-cpu.h), which xllamacpp's
extension exports.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_bool, c_int, c_int64, c_size_t, c_void_p
from typing import Any

_ROWS = _COLUMNS = 1024
PRODUCT_FLOP = 2 * _ROWS * _COLUMNS
# What a graph of one operation and its tensors take of a context's memory, with room to spare.
_GRAPH_BYTES = 32 << 10
_GRAPH_NODES = 8
_FLOAT32 = 0
# As in `ggml_type`, with the bytes that 32 weights take.
_TYPES = {"q4_1": (3, 20), "q8_0": (8, 34)}


class _Parameters(ctypes.Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


# What each function returns, and takes.
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "ggml_init": (c_void_p, _Parameters),
    "ggml_free": (None, c_void_p),
    "ggml_new_tensor_2d": (c_void_p, c_void_p, c_int, c_int64, c_int64),
    "ggml_get_data": (c_void_p, c_void_p),
    "ggml_mul_mat": (c_void_p, c_void_p, c_void_p, c_void_p),
    "ggml_new_graph_custom": (c_void_p, c_void_p, c_size_t, c_bool),
    "ggml_build_forward_expand": (None, c_void_p, c_void_p),
    "ggml_backend_cpu_init": (c_void_p,),
    "ggml_backend_cpu_set_n_threads": (None, c_void_p, c_int),
    "ggml_backend_graph_compute": (c_int, c_void_p, c_void_p),
    "ggml_backend_free": (None, c_void_p),
}


def load() -> ctypes.CDLL:
    """The model server's library.

    Raises:
        ImportError, OSError: It is not there.
        AttributeError: This build of it does not export what is needed.
    """
    from xllamacpp import xllamacpp

    found = ctypes.CDLL(xllamacpp.__file__)
    for name, (returned, *taken) in _SIGNATURES.items():
        function = getattr(found, name)
        function.restype, function.argtypes = returned, taken
    return found


@contextmanager
def products(
    library: ctypes.CDLL, stored_as: str, sequences: int, weight_bytes: int
) -> Iterator[Callable[[], None]]:
    """What multiplies the next matrix of weights, by one thread: PRODUCT_FLOP for each sequence.

    Args:
        library: As `load` gives it.
        stored_as: `q4_1` or `q8_0`.
        sequences: How many columns are multiplied at once.
        weight_bytes: What all matrices, which take turns, hold together.
    """
    kind, block_bytes = _TYPES[stored_as]
    matrix_bytes = _ROWS * _COLUMNS // 32 * block_bytes
    matrices = max(1, weight_bytes // matrix_bytes)
    column_bytes = 4 * sequences * _COLUMNS
    each_bytes = matrix_bytes + column_bytes + _GRAPH_BYTES
    context = library.ggml_init(_Parameters(matrices * each_bytes + column_bytes + _GRAPH_BYTES))
    backend = library.ggml_backend_cpu_init()
    library.ggml_backend_cpu_set_n_threads(backend, 1)

    def tensor(kind: int, columns: int, size_bytes: int) -> int:
        made: int = library.ggml_new_tensor_2d(context, kind, _COLUMNS, columns)
        # Zeros take as long as any other weights, and no number that happens to lie there does.
        ctypes.memset(library.ggml_get_data(made), 0, size_bytes)
        return made

    def graph() -> int:
        made: int = library.ggml_new_graph_custom(context, _GRAPH_NODES, False)
        weights = tensor(kind, _ROWS, matrix_bytes)
        library.ggml_build_forward_expand(made, library.ggml_mul_mat(context, weights, vectors))
        return made

    vectors = tensor(_FLOAT32, sequences, column_bytes)
    graphs = itertools.cycle([graph() for _ in range(matrices)])

    def multiply() -> None:
        if library.ggml_backend_graph_compute(backend, next(graphs)):
            raise RuntimeError(f"ggml could not multiply {stored_as}")

    try:
        yield multiply
    finally:
        library.ggml_backend_free(backend)
        library.ggml_free(context)

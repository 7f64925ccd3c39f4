"""One model server: llama.cpp's OpenAI-compatible server on loopback, in a process of its own.

Run by the reconciler as `python -m core.deployments.model_server CONFIG`. It outlives the app:
what it is and where it listens stands in its record (`server_records`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from core.deployments import server_records
from core.kernel.crypto import Keyring

_DRAIN_S = 20.0
_WATCH_S = 2.0
_ADDRESS = "127.0.0.1"


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a server needs; `credential` is sealed with context `replica:<replica id>`.

    `pool_mean` makes embeddings of a decoder, whose file names no pooling of its own. `rerank`
    scores documents for a query, with a model that has a head for it.
    """

    replica_id: str
    deployment_id: str
    data_dir: str
    keys_dir: str
    model_path: str
    model_name: str
    credential: str
    context_tokens: int
    slots: int
    threads: int
    embedding: bool
    pool_mean: bool = False
    rerank: bool = False


def main() -> None:
    """Serve until SIGTERM, or until the config is gone."""
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=ServerConfig)
    data_dir = Path(config.data_dir)
    record = server_records.ServerRecord(
        replica_id=config.replica_id, deployment_id=config.deployment_id, pid=os.getpid()
    )
    if not server_records.claim(data_dir, record):
        return
    keyring = Keyring(Path(config.keys_dir))
    credential = keyring.open(config.credential, context=f"replica:{config.replica_id}").reveal()
    # Until the model is loaded nobody waits for an answer: SIGTERM ends the process at once.
    server = _start(config, credential)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    port = int(server.listening_address.rsplit(":", 1)[1])
    server_records.write(data_dir, msgspec.structs.replace(record, port=port))
    while not stop.wait(_WATCH_S):
        if not server_records.permitted(data_dir, config.replica_id):
            break
    _drain(port, credential)
    # llama.cpp's own shutdown can take half a minute when a stream is open.
    os._exit(0)


def _start(config: ServerConfig, credential: str) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = config.model_path
    parameters.model_alias = {config.model_name}
    parameters.hostnames = [_ADDRESS]
    parameters.port = 0
    parameters.api_keys = [credential]
    # llama.cpp splits the context over the slots.
    parameters.n_ctx = config.context_tokens * config.slots
    parameters.n_parallel = config.slots
    parameters.cpuparams.n_threads = config.threads
    parameters.cpuparams_batch.n_threads = config.threads
    # A dead caller is noticed when a ping cannot be written.
    parameters.sse_ping_interval = 1
    # Its default of 8 GB would not stand in the plan.
    parameters.cache_ram_mib = 0
    parameters.fit_params = False
    parameters.ui = False
    if config.embedding or config.rerank:
        parameters.embedding = True
        # A text is read whole, in one micro-batch.
        parameters.n_batch = parameters.n_ubatch = config.context_tokens
        if config.rerank:
            parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
        elif config.pool_mean:
            parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return xllamacpp.Server(parameters)


def _drain(port: int, credential: str) -> None:
    """Wait until no slot works, but not longer than `_DRAIN_S`."""
    request = urllib.request.Request(
        f"http://{_ADDRESS}:{port}/slots", headers={"Authorization": f"Bearer {credential}"}
    )
    deadline_s = time.monotonic() + _DRAIN_S
    while time.monotonic() < deadline_s:
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310 (loopback)
                if not any(slot.get("is_processing") for slot in json.load(answer)):
                    return
        except OSError:
            return
        time.sleep(0.1)


if __name__ == "__main__":
    main()

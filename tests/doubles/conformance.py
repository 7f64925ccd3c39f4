"""A gateway process before the double, and before a real model: what client libraries meet."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec

from core.contracts.request_fact import RequestFact
from core.registry import services as registry
from tests.doubles.gateway_harness import (
    CHAT,
    KEY,
    ROOT,
    GatewayProcess,
    api_key,
    embedder,
    facts_on_disk,
    free_port,
    publish,
    route,
)

REAL = "smol"
# The server of `core.deployments.model_server`, without what the reconciler needs of it.
_MODEL_SERVER = """
import sys, threading, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.hostnames = ["127.0.0.1"]
parameters.port = int(sys.argv[2])
parameters.n_ctx, parameters.n_parallel = 512, 1
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
parameters.cache_ram_mib, parameters.fit_params, parameters.ui = 0, False, False
server = xllamacpp.Server(parameters)
threading.Event().wait()
"""


@dataclass
class Served:
    """A gateway that serves."""

    gateway: GatewayProcess
    double_url: str

    @property
    def url(self) -> str:
        return self.gateway.url

    def double_state(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.double_url}/double/state", verify=False).json()
        return found

    def fact(self, **wanted: Any) -> RequestFact:
        """The newest fact like this, once it is on disk."""
        deadline_s = time.monotonic() + 15
        while time.monotonic() < deadline_s:
            for fact in reversed(facts_on_disk(self.gateway.data_dir)):
                if wanted.items() <= msgspec.structs.asdict(fact).items():
                    return fact
            time.sleep(0.05)
        raise AssertionError(f"there is no fact like {wanted}")


def until(condition: Any, within_s: float = 15) -> None:
    """Wait until `condition()` holds."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition did not come true in time"
        time.sleep(0.02)


@contextmanager
def served(folder: Path, *, real: bool = False) -> Iterator[Served]:
    """A gateway process before a double, and with `real` before the starter model too."""
    double_port, model_port = free_port(), free_port()
    double = [sys.executable, "-m", "tests.doubles.openai_server", "--port", str(double_port)]
    started = [subprocess.Popen(double, cwd=ROOT)]
    double_url, model_url = f"http://127.0.0.1:{double_port}", f"http://127.0.0.1:{model_port}"
    if real:
        starter = str(registry._starter_path())
        model = [sys.executable, "-c", _MODEL_SERVER, starter, str(model_port)]
        started.append(
            subprocess.Popen(model, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
    routes = [
        route(double_url),
        embedder(double_url),
        route(model="stopped", deployment_id="dep_stopped", state="stopped"),
        route(model_url, model=REAL, upstream_model=REAL, deployment_id="dep_real"),
    ]
    keys = [api_key(), api_key("bud-other", id="key_b", project_id="prj_b")]
    gateway = GatewayProcess(folder / "data", "--max-body-mb", "1", "--between-tokens-s", "5")
    publish(gateway.data_dir, routes, keys)
    try:
        with gateway:
            for url in [double_url, *([model_url] if real else [])]:
                until(lambda url=url: _is_up(url), 60)
            yield Served(gateway, double_url)
    finally:
        for process in started:
            process.kill()
            process.wait()


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, verify=False).status_code == 200
    except httpx.TransportError:
        return False


__all__ = ["CHAT", "KEY", "REAL", "Served", "served", "until"]

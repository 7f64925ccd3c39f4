"""Predicted against measured TPOT of the starter model here: `bud bench simulator_local`.

In turns, the machine is probed and the real model server answers short requests, one at a time. Of
many, the least time between tokens counts, by the server's own clock, and the least that is
predicted: what else runs, on this machine or on others that it shares its cores with, only ever
makes both slower, by half for seconds where a neighbour has the core's other thread. It ends when
further turns bring nothing less.
"""

from __future__ import annotations

import json as json_module
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import msgspec

from core.deployments import predictions, server_records
from core.deployments.model_server import ServerConfig
from core.deployments.predictions import Setup
from core.deployments.schemas import Load
from core.hardware import services as hardware
from core.kernel import database, keys
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.settings import ROOT, settings
from core.registry import services as registry

LOADS = (Load(isl=16, osl=48), Load(isl=256, osl=32))
# It is measured until so many turns in a row bring no less than this, whatever is predicted.
_TURNS_WITHOUT_LESS, _MOST_TURNS = 3, 8
_LESS = 0.97
# A turn's answers; so short that other work leaves some of them alone.
_ANSWERS = 12
_TOKENS = 4
_START_TIMEOUT_S = 60.0
_CREDENTIAL = "bench"
_REPLICA = "rep_bench"


def run(json: bool = False) -> dict[str, Any]:
    """Measure on a throw-away data folder; prints the figures and gives them back."""
    folder = Path(tempfile.mkdtemp(prefix="bud-bench-"))
    environment = {"BUD_DATA_DIR": str(folder), "BUD_ADMIN_PASSWORD": "correct-horse-battery"}
    try:
        with mock.patch.dict("os.environ", environment):
            _forget()
            subprocess.run([sys.executable, "-m", "app.setup"], cwd=ROOT, check=True)
            rows = compare(Actor.system())
    finally:
        _forget()
        shutil.rmtree(folder)
    if json:
        print(json_module.dumps(rows))
        return {"rows": rows}
    for row in rows:
        print(
            f"{row['isl']:>5} in {row['osl']:>4} out   measured {row['measured_tpot_ms']:6.2f} ms"
            f"   predicted {row['predicted_tpot_ms']:6.2f} ms   {row['error']:+.1%}"
        )
    return {"rows": rows}


def _forget() -> None:
    database.dispose()
    settings.cache_clear()
    keys.keyring.cache_clear()


def compare(actor: Actor) -> list[dict[str, Any]]:
    """Predicted and measured TPOT of the starter model with one thread, for each of LOADS."""
    model = registry.add_starter(actor)
    asked = [(Setup(slots=1, threads=1, replicas=1), load) for load in LOADS]

    def predict() -> list[float]:
        hardware.measure_this_machine(actor)
        return [each.tpot_ms.mean for each in predictions.predict(actor, model, asked)]

    with _serving(str(model.path)) as url:
        measured, predicted = _least_tpots_ms(url, predict)
    return [
        {
            "isl": load.isl,
            "osl": load.osl,
            "measured_tpot_ms": tpot_ms,
            "predicted_tpot_ms": expected,
            "error": expected / tpot_ms - 1,
        }
        for load, tpot_ms, expected in zip(LOADS, measured, predicted, strict=True)
    ]


@contextmanager
def _serving(model_path: str) -> Iterator[str]:
    """The real model server as a deployment starts it, with one slot and one thread; its URL."""
    data_dir = settings().data_dir
    sealed = keys.keyring().seal(Secret(_CREDENTIAL), context=f"replica:{_REPLICA}")
    config = ServerConfig(
        replica_id=_REPLICA,
        deployment_id="dep_bench",
        data_dir=str(data_dir),
        keys_dir=str(data_dir / "keys"),
        model_path=model_path,
        model_name="starter",
        credential=sealed,
        context_tokens=1024,
        slots=1,
        threads=1,
        embedding=False,
    )
    path = server_records.config_path(data_dir, _REPLICA)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(config))
    command = [sys.executable, "-m", "core.deployments.model_server", str(path)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, **quiet)
    try:
        yield _url(data_dir)
    finally:
        server.terminate()
        server.wait(timeout=30)


def _url(data_dir: Path) -> str:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        for record in server_records.read_all(data_dir).values():
            url = f"http://127.0.0.1:{record.port}"
            if record.port and _is_healthy(url):
                return url
        time.sleep(0.1)
    raise TimeoutError(f"the model server does not answer within {_START_TIMEOUT_S:.0f} s")


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _least_tpots_ms(
    url: str, predict: Callable[[], list[float]]
) -> tuple[list[float], list[float]]:
    """The least TPOT of many short answers, and of what is predicted, for each of LOADS."""
    headers = {"Authorization": f"Bearer {_CREDENTIAL}"}
    least_ms = [math.inf] * (2 * len(LOADS))
    # Plain HTTP: it needs no certificates.
    with httpx.Client(headers=headers, timeout=120, trust_env=False, verify=False) as client:
        without_less = 0
        for _ in range(_MOST_TURNS):
            turn_ms = [min(_tpot_ms(client, url, load) for _ in range(_ANSWERS)) for load in LOADS]
            pairs = list(zip(least_ms, turn_ms + predict(), strict=True))
            without_less = (
                0 if any(now < least * _LESS for least, now in pairs) else without_less + 1
            )
            least_ms = [min(pair) for pair in pairs]
            if without_less == _TURNS_WITHOUT_LESS:
                break
    return least_ms[: len(LOADS)], least_ms[len(LOADS) :]


def _tpot_ms(client: httpx.Client, url: str, load: Load) -> float:
    """The mean time of a few tokens, as the server says; its prompt is in the cache after once."""
    body = {
        "prompt": [1000 + at * 31 for at in range(load.isl)],
        "n_predict": _TOKENS,
        "ignore_eos": True,
    }
    timings = client.post(f"{url}/completion", json=body).raise_for_status().json()["timings"]
    # The clock starts with the first token.
    return float(timings["predicted_ms"]) / (int(timings["predicted_n"]) - 1)

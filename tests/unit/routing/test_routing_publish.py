from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from core.accounts import api_keys
from core.contracts import route_table
from core.contracts.route_table import RouteTable
from core.deployments import services as deployments
from core.deployments.models import Deployment, Replica
from core.deployments.schemas import DeploymentRequest
from core.kernel import clock, database
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.keys import keyring
from core.kernel.periodic import Periodic
from core.prices import services as prices
from core.registry import services as registry
from core.registry.models import Model, ModelVersion
from core.routing import services as routing

PROJECT = "prj_default"


def _table() -> RouteTable:
    return route_table.decode(routing.table_path().read_bytes())


def _deployed(admin: Actor, name: str = "smol") -> str:
    model = registry.add_starter(admin)
    request = DeploymentRequest(
        project_id=PROJECT, name=name, model_id=model.id, context_tokens=512, slots=2, threads=1
    )
    return deployments.deploy(admin, request).id


def _ready(deployment_id: str, port: int = 41001) -> None:
    """Write what the reconciler would when a server answers."""
    with database.transaction() as tx:
        row = tx.get(Deployment, deployment_id)
        assert row is not None
        row.desired_state, row.state = "running", "ready"
        replica = Replica(
            id="rep_1",
            deployment_id=deployment_id,
            project_id=PROJECT,
            position=0,
            generation=1,
            state="ready",
            port=port,
            sealed_key=keyring().seal(Secret("token"), context="replica:rep_1"),
            next_start_at=clock.now(),
        )
        tx.merge(replica)


def test_no_change_is_no_new_version(data_dir: Path, admin: Actor) -> None:
    first = routing.publish()
    written = routing.table_path().stat().st_mtime_ns
    assert routing.publish() == first
    assert routing.table_path().stat().st_mtime_ns == written
    api_keys.create_key(admin, PROJECT, "ci")
    assert routing.publish() == first + 1
    assert _table().version == first + 1


def test_a_lost_table_is_written_again(data_dir: Path, admin: Actor) -> None:
    version = routing.publish()
    routing.table_path().unlink()
    assert routing.publish() == version + 1
    assert _table().version == version + 1


def test_a_deployment_that_is_not_ready_is_known_without_replicas(
    data_dir: Path, admin: Actor
) -> None:
    _deployed(admin)
    routing.publish()
    (route,) = _table().routes
    assert (route.model, route.state, route.replicas) == ("smol", "planned", [])


def test_a_route_has_its_replica_price_and_a_credential_only_the_keyring_opens(
    data_dir: Path, admin: Actor
) -> None:
    _ready(_deployed(admin))
    prices.set_token_price(
        admin,
        PROJECT,
        "smol",
        input_usd_per_million_tokens=1.0,
        output_usd_per_million_tokens=0.0,
    )
    routing.publish()
    (route,) = _table().routes
    (replica,) = route.replicas
    assert route.capabilities == ["chat", "completion"]
    # What the registry says of the model holds: without a chat template it only completes.
    with database.transaction() as tx:
        for row in (*tx.scalars(select(Model)), *tx.scalars(select(ModelVersion))):
            row.capabilities = ["completion", "embedding"]
    routing.publish()
    assert _table().routes[0].capabilities == ["completion"]
    assert route.price is not None
    assert route.price.input_usd_per_million_tokens == 1.0
    assert route.price.output_usd_per_million_tokens == 0.0
    assert route.price.cached_usd_per_million_tokens is None
    assert (replica.base_url, replica.slots) == ("http://127.0.0.1:41001", 2)
    assert b"token" not in replica.credential.encode()
    assert keyring().open(replica.credential, context="replica:rep_1") == Secret("token")


def test_revoking_a_key_takes_it_out_by_itself(data_dir: Path, admin: Actor) -> None:
    routing.subscribe()
    made = api_keys.create_key(admin, PROJECT, "ci", api_keys.Restrictions(models=["smol"]))
    (key,) = _table().keys
    assert (key.id, key.models, key.project_id) == (made.key.id, ("smol",), PROJECT)
    assert made.secret.reveal().encode() not in routing.table_path().read_bytes()
    api_keys.revoke_key(admin, made.key.id)
    assert _table().keys == []


def test_publishers_at_once_leave_the_newest_table(data_dir: Path, admin: Actor) -> None:
    def work(number: int) -> None:
        api_keys.create_key(admin, PROJECT, f"key {number}")
        routing.publish()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    version = routing.publish()
    assert len(_table().keys) == 6
    assert _table().version == version
    assert list(routing.table_path().parent.glob("*.partial")) == []


def test_what_changes_by_time_alone_is_published_too(data_dir: Path, admin: Actor) -> None:
    _deployed(admin)
    routing.publish()
    # Dated, and written by a process that nobody heard of.
    prices.set_token_price(
        admin,
        PROJECT,
        "smol",
        input_usd_per_million_tokens=2.0,
        output_usd_per_million_tokens=4.0,
        valid_from=clock.now() + timedelta(seconds=0.5),
    )
    assert _table().routes[0].price is None
    keeper = Periodic("routes", routing.publish, every_s=0.1)
    keeper.start()
    try:
        deadline = time.monotonic() + 10
        while _table().routes[0].price is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        keeper.stop()

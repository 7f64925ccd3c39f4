from __future__ import annotations

from typing import get_args

import pytest

from core.deployments.states import STATES, DeploymentState, derive


@pytest.mark.parametrize(
    ("desired", "wanted", "replicas", "failed", "state"),
    [
        ("planned", 1, [], False, "planned"),
        ("running", 1, [], False, "starting"),
        ("running", 2, ["starting", "starting"], False, "starting"),
        ("running", 2, ["ready", "starting"], False, "degraded"),
        ("running", 2, ["ready", "ready"], False, "ready"),
        ("running", 1, ["ready", "stopping"], False, "ready"),
        ("running", 1, ["restarting"], False, "restarting"),
        ("running", 1, ["restarting"], True, "failed"),
        ("running", 2, ["ready", "restarting"], True, "degraded"),
        ("stopped", 1, ["stopping"], False, "stopping"),
        ("stopped", 1, ["stopping"], True, "stopping"),
        ("stopped", 1, [], False, "stopped"),
        ("stopped", 1, [], True, "failed"),
        ("deleted", 1, ["ready"], False, "deleting"),
    ],
)
def test_the_state_follows_from_what_is_wanted_and_what_runs(
    desired: str, wanted: int, replicas: list[str], failed: bool, state: str
) -> None:
    assert derive(desired, wanted, replicas, failed) == state  # type: ignore[arg-type]


def test_every_state_is_explained_and_only_two_serve() -> None:
    assert set(STATES) == set(get_args(DeploymentState))
    assert all(info.meaning for info in STATES.values())
    assert [name for name, info in STATES.items() if info.serves] == ["ready", "degraded"]

"""Training on own measurements: what is read, what comes of it, who may, and how it is stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from core import jobs
from core.accounts import services as accounts
from core.deployments import predictions
from core.jobs import engine
from core.kernel import audit, database
from core.kernel.actor import Actor
from core.kernel.errors import BudError, Conflict, InvalidInput, NotFound, PermissionDenied
from core.projects import services as projects
from core.simulation import (
    batch,
    calibration,
    crud,
    dataset,
    learners,
    own_rows,
    predictor,
    services,
    subjects,
    trained_models,
    training,
    training_process,
    training_workflow,
    trainings,
)
from core.simulation.own_rows import OwnRows
from core.simulation.schemas import WhatIf
from core.simulation.training_requests import TrainingView

TODAY = date(2026, 11, 29)
ROW = {
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "system": "l40s",
    "engine": "vllm",
    "precision": "fp8",
    "mode": "agg",
    "isl": "1024",
    "osl": "256",
    "concurrency": "16",
    "tp": "1",
    "pp": "1",
    "ep": "1",
    "dp": "1",
    "engine_version": "vllm/vllm-openai:v0.19.0",
    "ttft_ms": "350",
    "tpot_ms": "24.5",
}
QUESTION = WhatIf(model="llama-3.1-8b", hardware="l40s", precision="fp8", isl=1024, osl=256)


def _csv(*rows: dict[str, str]) -> bytes:
    return pd.DataFrame(rows).fillna("").to_csv(index=False).encode()


def _read(*rows: dict[str, str]) -> OwnRows:
    return own_rows.read(_csv(*rows), "mine.csv", subjects.shipped(), TODAY)


def _slower_by(factor: float) -> bytes:
    """Five concurrency curves on a GPU that takes `factor` times as long as is predicted."""
    rows = [
        ROW | {"isl": str(isl), "concurrency": str(concurrency)}
        for isl in (256, 512, 1024, 2048, 4096)
        for concurrency in (1, 4, 16, 64)
    ]
    answers = batch.answer(pd.DataFrame(rows, dtype=object), subjects.shipped())
    for row, ttft, tpot in zip(rows, answers["ttft_ms"], answers["tpot_ms"], strict=True):
        row |= {"ttft_ms": str(ttft * factor), "tpot_ms": str(tpot * factor)}
    return _csv(*rows)


def test_rows_are_read_as_the_shipped_ones_are() -> None:
    found = _read(ROW, ROW | {"concurrency": "32", "ttft_ms": ""})
    assert (found.bad, found.configurations) == ((), 1)
    known = subjects.shipped()
    measured = dataset.load_with(found.table, known.models, known.systems)
    own = measured.take(measured.is_own)
    assert len(measured) == len(dataset.load()) + 2
    assert own.model_id.tolist() == ["llama-3.1-8b"] * 2
    assert own.rows.concurrency.tolist() == [16, 32]
    assert own.rows.engine_version.tolist() == [19, 19]
    assert own.tpot_ms.tolist() == [24.5, 24.5]
    assert own.has("ttft_ms").tolist() == [True, False]
    assert dataset.data_hash(found.table) != dataset.data_hash()


def _shipped_row() -> dict[str, str]:
    table = dataset.shipped_table()
    row = table[(table["lengths"] == "random") & (table["mode"] == "agg")].iloc[0]
    return {name: str(row[name]) for name in ROW if name != "engine_version"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "lama-9"}, "No model of the name 'lama-9'"),
        ({"system": "h101"}, "no hardware 'h101'"),
        ({"isl": "many"}, "isl is no number (got: many)"),
        ({"ttft_ms": "fast"}, "ttft_ms is no number (got: fast)"),
        ({"tpot_ms": "-3"}, "tpot_ms must be 0.001 to 600,000 ms (got: -3)"),
        ({"tpot_ms": "nan"}, "tpot_ms is no number"),
        ({"ttft_ms": "", "tpot_ms": " "}, "neither ttft_ms nor tpot_ms is given"),
        ({"osl": "1"}, "tpot_ms cannot be measured with osl 1"),
        ({}, "the same as line 2"),
        (_shipped_row(), "this run ships with Bud already (source: inferencemax)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_row_is_named_with_its_line(changes: dict[str, str], said: str) -> None:
    found = _read(ROW, ROW | {"concurrency": "64"}, ROW | changes)
    assert [each.line for each in found.bad] == [4]
    assert said in found.bad[0].what
    assert len(found.table) == 2


_NOTHING_MEASURED = {name: text for name, text in ROW.items() if not name.endswith("_ms")}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "no column model", id="empty"),
        pytest.param(b"\xff\xfe", "cannot be read as CSV", id="not text"),
        pytest.param(_csv(_NOTHING_MEASURED), "no column ttft_ms or tpot_ms", id="not measured"),
        pytest.param(_csv(ROW).splitlines()[0], "has 0 rows", id="no rows"),
        pytest.param(
            _csv(ROW | {"ttft_ms": "0.35", "tpot_ms": "0.0245"}), "Check the unit", id="seconds"
        ),
        pytest.param(_csv(*[ROW] * 40), "larger than 0 MB", id="large"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    content: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_rows, "MOST_BYTES", 4_000)
    with pytest.raises(InvalidInput) as caught:
        own_rows.read(content, "mine.csv", subjects.shipped(), TODAY)
    assert said in str(caught.value)


@pytest.fixture
def project_id(
    data_dir: Path, quick_passwords: None, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A project, on shipped models and devices: nothing is probed or read from disk."""
    accounts.bootstrap("admin@example.org", None)
    projects.bootstrap()
    monkeypatch.setattr(
        subjects,
        "for_actor",
        lambda actor: subjects.Subjects(training_id=trained_models.in_use(actor.tenant_id)),
    )
    return projects.create_project(admin, "Trainings").id


def _train(training_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the job does, in this process, on few rows and with few trees."""
    few = dataset.shipped_table().iloc[::80].reset_index(drop=True)
    monkeypatch.setattr(dataset, "shipped_table", lambda: few)
    monkeypatch.setattr(calibration, "_ROUNDS", 2)
    monkeypatch.setattr(training_process, "_MOST_WORKERS", 1)
    for name, recipe in learners.RECIPES.items():
        monkeypatch.setitem(learners.RECIPES, name, replace(recipe, trees=2))
    ticks: list[float] = []
    found: dict[str, Any] = {}
    for part in training_process.PARTS.values():
        found |= part(training_id, found, lambda done, total, _: ticks.append(done / total))
    assert ticks == [done / 12 for done in range(13)]


def test_what_was_trained_is_used_everywhere_until_one_goes_back(
    project_id: str, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped_ms = services.ask(admin, project_id, QUESTION).outcome.tpot_ms.mean
    started = trainings.start(admin, project_id, "mine.csv", _slower_by(1.5))
    assert (started.rows, started.configurations, started.result) == (20, 5, None)
    with pytest.raises(Conflict, match="at work already"):
        trainings.start(admin, project_id, "again.csv", _csv(ROW))
    with pytest.raises(Conflict, match="has no model"):
        trainings.use(admin, started.id)
    _train(started.id, monkeypatch)

    result = trainings.get(admin, project_id, started.id).result
    assert result is not None
    assert result.rows["own"] == 20
    assert result.data_date >= TODAY.isoformat()[:4]
    for error in result.errors.values():
        # What takes 1.5 times as long was predicted a third too short.
        assert error.rows == 20
        assert error.shipped_mape == pytest.approx(100 / 3, rel=1e-3)
        assert 0 < error.held_out_mape < 100

    used = trainings.use(admin, started.id)
    assert used.is_in_use
    standing = trainings.standing(admin, project_id)
    assert (standing.own_rows, standing.basis.data_hash) == (20, result.data_hash)
    assert services.ask(admin, project_id, QUESTION).outcome.tpot_ms.mean > shipped_ms
    assert predictions.trained_models.in_use(admin.tenant_id) == started.id
    with pytest.raises(Conflict, match="in use"):
        trainings.delete(admin, started.id)

    trainings.use_shipped(admin)
    assert trainings.standing(admin, project_id).own_rows == 0
    assert services.ask(admin, project_id, QUESTION).outcome.tpot_ms.mean == shipped_ms
    with pytest.raises(Conflict, match="in use already"):
        trainings.use_shipped(admin)
    jobs.cancel(admin, started.job_id)
    trainings.delete(admin, started.id)
    assert trainings.list_trainings(admin, project_id) == []
    actions = {each.action for each in audit.entries(admin, None)}
    assert {f"training.{verb}" for verb in ("started", "used", "put away", "deleted")} <= actions


def test_another_process_is_followed_and_another_version_is_not(
    project_id: str, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = _finished(admin, project_id)
    assert trained_models.in_use(admin.tenant_id) == ""
    trainings.use(admin, started.id)
    assert trained_models.in_use(admin.tenant_id) == started.id
    with database.transaction() as tx:
        crud.use_no_training(tx, admin.tenant_id)
    # As another process would have: this one was not told, and looks again after a moment.
    assert trained_models.in_use(admin.tenant_id) == started.id
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + trained_models.KEPT_S)
    assert trained_models.in_use(admin.tenant_id) == ""
    trainings.use(admin, started.id)
    monkeypatch.setattr(training, "VERSION", "later")
    trained_models.changed()
    assert trained_models.in_use(admin.tenant_id) == ""
    assert not trainings.get(admin, project_id, started.id).is_current
    with pytest.raises(Conflict, match="another version"):
        trainings.use(admin, started.id)


def _finished(admin: Actor, project_id: str) -> TrainingView:
    """A training whose model is the shipped one."""
    made = trainings.start(admin, project_id, "mine.csv", _csv(ROW))
    about = predictor.trained().about
    with database.transaction() as tx:
        row = crud.training(tx, made.id)
        assert row is not None
        row.trained = trained_models.packed(predictor.trained())
        row.result = vars(about) | {"rows": {"own": 1}, "errors": {}}
    return trainings.get(admin, project_id, made.id)


def test_members_see_and_only_admins_train(project_id: str, admin: Actor) -> None:
    made = _finished(admin, project_id)
    # Not even the admin of a project: it changes what other projects are told.
    member = Actor("usr_b", "b@example.org", admin.tenant_id, "member", {project_id: "admin"})
    assert [each.id for each in trainings.list_trainings(member, project_id)] == [made.id]
    assert trainings.standing(member, project_id).training is None
    for attempt in (
        lambda: trainings.start(member, project_id, "mine.csv", _csv(ROW)),
        lambda: trainings.read_rows(member, "mine.csv", _csv(ROW)),
        lambda: trainings.use(member, made.id),
        lambda: trainings.use_shipped(member),
        lambda: trainings.delete(member, made.id),
        lambda: trainings.list_trainings(member, "prj_other"),
    ):
        with pytest.raises(PermissionDenied):
            attempt()
    stranger = Actor("usr_c", "c@example.org", "ten_other", "admin")
    with pytest.raises(NotFound):
        trainings.use(stranger, made.id)


def test_bad_rows_are_left_out_only_when_one_says_so(project_id: str, admin: Actor) -> None:
    content = _csv(ROW, ROW | {"isl": "many"})
    with pytest.raises(InvalidInput, match="line 3: isl is no number"):
        trainings.start(admin, project_id, "mine.csv", content)
    assert trainings.list_trainings(admin, project_id) == []
    assert trainings.start(admin, project_id, "mine.csv", content, leave_out_bad=True).rows == 1
    with pytest.raises(BudError, match="No row can be used"):
        trainings.start(
            admin, project_id, "mine.csv", _csv(ROW | {"isl": "many"}), leave_out_bad=True
        )


@pytest.fixture
def running(project_id: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(training_workflow, "MODULE", "tests.doubles.small_training")
    engine.launch()
    yield
    engine.shutdown()


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def test_cancel_ends_the_work_with_all_its_processes(
    running: None, project_id: str, admin: Actor
) -> None:
    started = trainings.start(admin, project_id, "mine.csv", _csv(ROW))
    before = set(psutil.Process().children(recursive=True))
    deadline_s = time.monotonic() + 120
    while jobs.get(admin, started.job_id).steps[1].fraction is None:
        assert jobs.get(admin, started.job_id).is_active, jobs.logs(admin, started.job_id)
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    found = set(psutil.Process().children(recursive=True)) - before
    assert found
    asked_s = time.monotonic()
    jobs.cancel(admin, started.job_id)
    while jobs.get(admin, started.job_id).is_active:
        time.sleep(0.02)
    assert time.monotonic() - asked_s < 5
    assert not any(_lives(process) for process in found)
    job = jobs.get(admin, started.job_id)
    assert [step.state for step in job.steps] == ["succeeded", "cancelled", "pending"]
    assert trainings.get(admin, project_id, started.id).result is None

"""Files and batches by OpenAI's own client: a gateway process, the app's jobs, a double behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest
from openai.types import Batch

from core.contracts.batch import BatchRequest, Folder
from core.contracts.route_table import Limit, LimitMetric
from tests.doubles.gateway_harness import (
    CHAT,
    KEY,
    ROOT,
    GatewayProcess,
    api_key,
    facts_on_disk,
    publish,
    route,
    until,
)
from tests.doubles.openai_server import Knobs, OpenAiDouble

PROJECT = "prj_default"
CHAT_PATH = "/v1/chat/completions"


@dataclass
class Running:
    gateway: GatewayProcess
    double: OpenAiDouble
    client: openai.AsyncOpenAI

    def with_key(self, secret: str) -> openai.AsyncOpenAI:
        return self.client.with_options(api_key=secret)

    async def gateway_knows(self, secret: str) -> bool:
        headers = {"Authorization": f"Bearer {secret}"}
        url = f"{self.gateway.url}/v1/models"
        answer = await self.client._client.get(url, headers=headers)
        return answer.status_code == 200

    async def make(self, lines: list[dict[str, Any]], **more: Any) -> Batch:
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        file = await self.client.files.create(file=("in.jsonl", content), purpose="batch")
        asked: dict[str, Any] = {"endpoint": CHAT_PATH, "completion_window": "24h", **more}
        return await self.client.batches.create(input_file_id=file.id, **asked)

    async def ended(self, batch_id: str) -> Batch:
        async with asyncio.timeout(60):
            while True:
                found = await self.client.batches.retrieve(batch_id)
                if found.status in ("completed", "failed", "expired", "cancelled"):
                    return found
                await asyncio.sleep(0.1)

    async def lines_of(self, file_id: str | None) -> dict[str, dict[str, Any]]:
        """The lines of a file by their ids; none twice."""
        assert file_id is not None
        text = (await self.client.files.content(file_id)).text
        found = [json.loads(line) for line in text.splitlines()]
        by_id = {line["custom_id"]: line for line in found}
        assert len(by_id) == len(found)
        return by_id


def line(custom_id: str, **body: Any) -> dict[str, Any]:
    asked = {"model": CHAT, "messages": [{"role": "user", "content": "Hello"}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT_PATH, "body": asked}


@pytest.fixture
async def running(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    async with OpenAiDouble() as double:
        keys = [
            api_key(project_id=PROJECT),
            api_key("bud-other", id="key_other", project_id="prj_b"),
            api_key("bud-narrow", id="key_narrow", project_id=PROJECT, scopes=("files", "batches")),
        ]
        publish(data_dir, [route(double.base_url, project_id=PROJECT)], keys)
        gateway = GatewayProcess(data_dir, "--max-upload-mb", "2", "--files-max-mb", "3")
        monkeypatch.setenv("BUD_GATEWAY_PORT", str(gateway.port))
        process = await asyncio.to_thread(gateway.start)
        client = openai.AsyncOpenAI(
            base_url=f"{process.url}/v1", api_key=KEY, max_retries=0, timeout=30,
            http_client=httpx.AsyncClient(verify=False, timeout=30),
        )  # fmt: skip
        try:
            yield Running(process, double, client)
        finally:
            await client.close()
            process.kill()


def _limit(key_id: str, metric: LimitMetric, amount: float) -> Limit:
    return Limit(
        project_id=PROJECT, level="key", subject=key_id, metric=metric, window="day", amount=amount
    )


@contextmanager
def app() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", "tests.doubles.batch_app"], cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_batch_from_upload_to_answers(running: Running, data_dir: Path) -> None:
    running.double.knobs = Knobs(first_delay_s=0.02)
    lines = [line(f"line-{n}") for n in range(30)] + [line("wrong", model="nothing")]
    made = await running.make(lines, metadata={"night": "1"})
    assert (made.status, made.metadata) == ("validating", {"night": "1"})
    with app():
        done = await running.ended(made.id)
    assert done.status == "completed", done
    assert done.request_counts is not None
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (31, 30, 1)
    assert done.usage is not None
    assert (done.usage.input_tokens, done.usage.output_tokens) == (30 * 7, 30 * 4)
    answers = await running.lines_of(done.output_file_id)
    assert answers.keys() == {f"line-{n}" for n in range(30)}
    answer = answers["line-3"]["response"]
    assert answer["status_code"] == 200
    assert answer["body"]["choices"][0]["message"]["content"] == " t0 t1 t2 t3"
    wrong = (await running.lines_of(done.error_file_id))["wrong"]
    assert wrong["response"]["status_code"] == 404
    assert wrong["response"]["body"]["error"]["code"] == "model_not_found"
    # One of the replica's four slots was always left to live requests.
    assert 1 < running.double.state.most_in_flight <= 3
    running.gateway.kill(15)
    facts = [fact for fact in facts_on_disk(data_dir) if fact.endpoint == "chat.completions"]
    assert {fact.request_id for fact in facts} == {f"{made.id}-{n}" for n in range(1, 32)}
    assert {(fact.key_id, fact.project_id) for fact in facts} == {("key_test", PROJECT)}


async def test_a_killed_app_goes_on_and_answers_no_line_twice(running: Running) -> None:
    running.double.knobs = Knobs(first_delay_s=0.05)
    made = await running.make([line(f"line-{n}") for n in range(60)])
    results = Folder(running.gateway.data_dir, PROJECT).of_batch(made.id) / "results.ndjson"
    with app() as first:
        await until(lambda: results.exists() and results.read_bytes().count(b"\n") > 10, 30)
        first.kill()
        first.wait()
    with results.open("ab") as torn:
        torn.write(b'{"id": "torn in the mid')
    assert (await running.client.batches.retrieve(made.id)).status == "in_progress"
    with app():
        done = await running.ended(made.id)
    answers = await running.lines_of(done.output_file_id)
    assert answers.keys() == {f"line-{n}" for n in range(60)}
    # Asked again are only those whose answer had not come.
    assert 60 <= running.double.state.requests <= 63
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (60, 0)


async def test_cancelled_and_expired(running: Running, data_dir: Path) -> None:
    running.double.knobs = Knobs(first_delay_s=0.2)
    early = await running.make([line("a")])
    await running.client.batches.cancel(early.id)
    made = await running.make([line(f"line-{n}") for n in range(500)])
    late = await running.make([line("a"), line("b")])
    folder = Folder(data_dir, PROJECT)
    request = folder.of_batch(late.id) / "request.json"
    asked = msgspec.json.decode(request.read_bytes(), type=BatchRequest)
    request.write_bytes(msgspec.json.encode(msgspec.structs.replace(asked, expires_unix_s=1)))
    with app():
        assert (await running.ended(early.id)).request_counts.total == 0  # type: ignore[union-attr]
        expired = await running.ended(late.id)
        assert expired.status == "expired"
        errors = await running.lines_of(expired.error_file_id)
        assert {each["error"]["code"] for each in errors.values()} == {"batch_expired"}
        await until(lambda: (found := folder.batch(made.id)) and found.state.completed > 0, 30)
        assert (await running.client.batches.cancel(made.id)).status == "cancelling"
        done = await running.ended(made.id)
    assert done.status == "cancelled"
    assert 0 < len(await running.lines_of(done.output_file_id)) < 500
    with pytest.raises(openai.ConflictError, match="has ended"):
        await running.client.batches.cancel(made.id)
    listed = [each.id async for each in running.client.batches.list(limit=2)]
    assert listed == sorted([late.id, made.id, early.id], reverse=True)


async def test_a_revoked_key_and_a_wrong_input(running: Running, data_dir: Path) -> None:
    made = await running.make([line("a")])
    wrong = await running.make([line("a"), line("a"), {"custom_id": "b"}, line("c", stream=True)])
    publish(
        data_dir,
        [route(running.double.base_url, project_id=PROJECT)],
        [api_key("bud-new", id="key_new", project_id=PROJECT)],
        version=2,
        limits=[_limit("key_new", "requests", 5)],
    )
    running.client.api_key = "bud-new"
    async with asyncio.timeout(10):
        while (await running.gateway_knows("bud-new")) is False:
            await asyncio.sleep(0.05)
    limited = await running.make([line(f"line-{n}") for n in range(8)])
    with app():
        within = await running.ended(limited.id)
        done = await running.ended(made.id)
        failed = await running.ended(wrong.id)
    refused = (await running.lines_of(done.error_file_id))["a"]["response"]
    assert (refused["status_code"], running.double.state.requests) == (401, 5)
    assert within.request_counts is not None
    assert (within.request_counts.completed, within.request_counts.failed) == (5, 3)
    over = (await running.lines_of(within.error_file_id)).popitem()[1]["response"]["body"]
    assert over["error"]["param"] == "key.requests_per_day"
    assert failed.status == "failed"
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert [(each.line, each.code) for each in failed.errors.data] == [
        (2, "duplicate_custom_id"),
        (3, "invalid_json_line"),
        (4, "unsupported"),
    ]


async def test_files_are_of_a_project(running: Running) -> None:
    client = running.client
    files = [
        await client.files.create(file=(f"{n}.jsonl", b"{}\n" * n), purpose="batch")
        for n in range(1, 4)
    ]
    listed = await client.files.list(limit=2)
    assert [file.id for file in listed.data] == [files[2].id, files[1].id]
    assert listed.has_next_page()
    assert (await client.files.retrieve(files[0].id)).bytes == 3
    assert (await client.files.content(files[2].id)).content == b"{}\n" * 3
    other = running.with_key("bud-other")
    assert (await other.files.list()).data == []
    with pytest.raises(openai.NotFoundError):
        await other.files.content(files[0].id)
    assert (await client.files.delete(files[0].id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(files[0].id)
    # The next page is behind it all the same.
    assert [file.id for file in (await client.files.list(after=files[1].id)).data] == []
    assert (await client.files.delete(files[1].id)).deleted
    later = await client.files.list(after=files[1].id, order="asc")
    assert [file.id for file in later.data] == [files[2].id]


async def test_what_is_refused(running: Running) -> None:
    def refused(status: int, says: str) -> Any:
        kind = openai.APIStatusError
        return pytest.raises(kind, match=says, check=lambda error: error.status_code == status)

    client = running.client
    with refused(400, "'batch'"):
        await client.files.create(file=b"{}", purpose="fine-tune")
    with refused(413, "limit of 2 MB"):
        await client.files.create(file=bytes(2_100_000), purpose="batch")
    file = await client.files.create(file=b"{}", purpose="batch")
    create: Callable[..., Any] = client.batches.create
    with refused(400, "cannot ask '/v1/files'"):
        await create(input_file_id=file.id, endpoint="/v1/files", completion_window="24h")
    with refused(404, "no file"):
        await create(input_file_id="../x", endpoint=CHAT_PATH, completion_window="24h")
    with refused(400, "24h"):
        await create(input_file_id=file.id, endpoint=CHAT_PATH, completion_window="1h")
    with refused(400, "3,600"):
        await create(
            input_file_id=file.id, endpoint=CHAT_PATH, completion_window="24h",
            output_expires_after={"anchor": "created_at", "seconds": -5},
        )  # fmt: skip
    folder = Folder(running.gateway.data_dir, PROJECT)
    stored = folder.file(file.id)
    assert stored is not None
    folder.add_file(msgspec.structs.replace(stored, expires_unix_s=1))
    with refused(404, "has expired"):
        await create(input_file_id=file.id, endpoint=CHAT_PATH, completion_window="24h")
    with refused(507, "limit of 3 MB"):
        for _ in range(3):
            await client.files.create(file=bytes(1_400_000), purpose="batch")
    narrow: Callable[..., Any] = running.with_key("bud-narrow").batches.create
    with refused(403, "may not use /v1/chat/completions"):
        await narrow(input_file_id=file.id, endpoint=CHAT_PATH, completion_window="24h")
    # A ticket that is no ticket of ours opens nothing.
    with refused(401, "unknown, revoked or expired"):
        await running.with_key("bud-batch-v1.x.y").models.list()
    kept = running.gateway.data_dir / "batches" / PROJECT / "files"
    assert sorted(path.suffix for path in kept.iterdir()) == [".content"] * 3 + [".json"] * 3

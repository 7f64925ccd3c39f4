"""Redaction: what is found, what is left; captures on disk: bounded, whole, of streams too."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contracts.capture import FOLDER_NAME, Captured
from core.contracts.request_fact import RequestFact
from core.contracts.route_table import Capture
from gateway import capture
from gateway.capture import CaptureWriter, Recorder
from gateway.redaction import redacted
from tests.machine import slowness

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"
# Kind → what must be found.
SECRETS = {
    "private_key": [PEM, PEM.replace("\n", "\\n"), PEM[:60]],
    "jwt": ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"],
    "api_key": [
        "bud-00MdfPGqznESDrzYA63X838kozyKAVDhvfLh9XS", "sk-proj-abcdefghijklmnop1234",
        "sk-ant-api03-abcdefghijklmnop", "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "hf_abcdefghijklmnopqrstuvwxyz", "xoxb-123456789012-abcdefghijkl",
        "AIzaSyA-abcdefghijklmnopqrstuvwxyz01234",
    ],
    "aws_key": ["AKIAIOSFODNN7EXAMPLE"],
    "bearer": ["Bearer abcdefghijklmnop1234"],
    "url_password": ["postgres://ada:s3cret@"],
    "password": ["password=hunter22", 'api_key: "abcd1234"', "\\\"secret\\\": \\\"swordfish\\\""],
    "email": ["ada.lovelace+x@mail.example.org"],
    "iban": ["DE89370400440532013000", "GB29 NWBK 6016 1331 9268 19"],
    "card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005"],
    "us_ssn": ["078-05-1120"],
    "phone": ["+49 170 1234567", "(030) 123 4567", "+1 (555) 123-4567"],
    "ip_address": ["203.0.113.9"],
}  # fmt: skip
HARMLESS = [
    "The year 2024 had 366 days; 2024-10-12 12:30:00 was one.",
    "order 1234567890123456 of 12,000.50 EUR",  # no card: its last digit does not fit
    "max_tokens=512, temperature: 0.7, version 1.2.3",
    "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]",
    "an @mention, a task-list, the secretary's password",
    "550e8400-e29b-41d4-a716-446655440000",
]


@pytest.mark.parametrize("kind", SECRETS)
def test_what_has_a_form_is_taken_out(kind: str) -> None:
    for secret in SECRETS[kind]:
        text, found = redacted(f"Here it is: {secret} - so take care")
        assert found[kind] == 1, (secret, text)
        assert f"[redacted: {kind}]" in text
        # A name in front of a secret stays; of the secret nothing does.
        assert secret.replace("\\", "").split(" ")[-1].split("=")[-1].strip('"') not in text


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == (text, {})


@given(st.text(), st.text())
def test_a_key_is_found_in_any_text_and_no_text_is_too_much(before: str, after: str) -> None:
    text, _ = redacted(f"{before} AKIAIOSFODNN7EXAMPLE {after}")
    assert "AKIAIOSFODNN7EXAMPLE" not in text


def test_a_hostile_text_takes_no_longer_than_another() -> None:
    began_s = time.perf_counter()
    for hostile in ("-----BEGIN PRIVATE KEY-----" * 4000, "a@" * 60_000, "1 " * 60_000):
        redacted(hostile)
    assert time.perf_counter() - began_s < 5 * slowness()


def fact(**fields: object) -> RequestFact:
    known = {
        "request_id": "req_1",
        "started_unix_s": 1_760_000_000.0,
        "endpoint": "chat.completions",
        "project_id": "prj_a",
        "status": 200,
    }
    return msgspec.convert(known | fields, RequestFact)


def kept(data_dir: Path) -> list[Captured]:
    return [
        msgspec.json.decode(line, type=Captured)
        for path in sorted((data_dir / FOLDER_NAME).rglob("*.ndjson"))
        for line in path.read_bytes().splitlines()
    ]


def written(data_dir: Path, *recorders: Recorder, **fields: object) -> list[Captured]:
    writer = CaptureWriter(data_dir, "gww_1")
    for recorder in recorders:
        writer.add(fact(**fields), recorder)
    writer.stop()
    return kept(data_dir)


def test_a_secret_in_pieces_of_a_stream_is_found(tmp_path: Path) -> None:
    # One of each dialect: OpenAI's chat, Anthropic's messages, OpenAI's responses.
    events = [
        '{"choices": [{"delta": {"content": "%s"}}]}',
        '{"type": "content_block_delta", "delta": {"type": "text_delta", "text": "%s"}}',
        '{"type": "response.output_text.delta", "delta": "%s"}',
    ]
    recorders = []
    for event in events:
        recorder = Recorder(Capture(keep_days=1, max_bytes=10**6), b"{}")
        for piece in ("The key: AKI", "AIOSFODNN7", "EXAMPLE, ", "and more"):
            recorder.write(f"event: x\ndata: {event % piece}\n\n".encode())
        recorder.write(b'data: {"type": "response.completed", "text": "AKIAIOSFODNN7EXAMPLE"}\n\n')
        recorder.write(b"data: [DONE]\n\n")
        recorders.append(recorder)
    for captured in written(tmp_path, *recorders, stream=True):
        assert captured.response == "The key: [redacted: aws_key], and more"
        assert captured.redacted == {"aws_key": 1}


def test_escapes_hide_nothing_and_what_is_no_json_is_kept_too(tmp_path: Path) -> None:
    capture_ = Capture(keep_days=1, max_bytes=10**6)
    escaped = Recorder(capture_, rb'{"content": "ada\u0040example.org"}')
    escaped.write(b"\xff\xfe no JSON, but ada@example.org")
    (captured,) = written(tmp_path, escaped)
    assert captured.request == '{"content":"[redacted: email]"}'
    assert captured.response == "�� no JSON, but [redacted: email]"
    cut = Recorder(capture_, rb'{"content": "ada\u0040example.org, postgres:\/\/ada:s3cret@db')
    captured = written(tmp_path, cut)[-1]
    assert captured.request == '{"content": "[redacted: email], [redacted: url_password]db'


def test_long_texts_are_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "_MAX_TEXT_BYTES", 100)
    recorder = Recorder(Capture(keep_days=1, max_bytes=10**6), b"x" * 101)
    recorder.write(b"y" * 60)
    recorder.write(b"y" * 60)
    recorder.write(b"z")
    assert recorder.size_bytes == 200
    (captured,) = written(tmp_path, recorder)
    assert (captured.request, captured.request_cut) == ("x" * 100, True)
    assert (captured.response, captured.response_cut) == ("y" * 100, True)


def test_a_project_takes_no_more_than_it_may_the_oldest_day_goes_first(tmp_path: Path) -> None:
    may = Capture(keep_days=9, max_bytes=3000)
    day_s = 86_400.0
    writer = CaptureWriter(tmp_path, "gww_1")
    for day in range(6):
        writer.add(
            fact(started_unix_s=1_760_000_000 + day * day_s, request_id=f"req_{day}"),
            Recorder(may, b"x" * 1000),
        )
    writer.add(fact(request_id="huge"), Recorder(may, b"x" * 5000))
    writer.stop()
    assert [captured.request_id for captured in kept(tmp_path)] == ["req_4", "req_5"]
    assert writer.dropped == 1
    files = list((tmp_path / FOLDER_NAME / "prj_a").iterdir())
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}


def test_what_is_older_than_its_days_goes_with_the_next_one(tmp_path: Path) -> None:
    day_s = 86_400.0
    writer = CaptureWriter(tmp_path, "gww_1")
    for day, keep_days in ((0, 3), (1, 3), (2, 3), (4, 2)):
        writer.add(
            fact(started_unix_s=1_760_000_000 + day * day_s, request_id=f"req_{day}"),
            Recorder(Capture(keep_days=keep_days, max_bytes=10**6), b"x"),
        )
    writer.stop()
    assert [captured.request_id for captured in kept(tmp_path)] == ["req_2", "req_4"]


def test_to_make_room_within_a_day_only_the_oldest_go(tmp_path: Path) -> None:
    may = Capture(keep_days=9, max_bytes=30_000)
    writer = CaptureWriter(tmp_path, "gww_1")
    for number in range(60):
        writer.add(
            fact(started_unix_s=1_760_000_000.0 + number, request_id=f"req_{number}"),
            Recorder(may, b"x" * 1000),
        )
    writer.stop()
    left = [captured.request_id for captured in kept(tmp_path)]
    assert len(left) >= 18, "of about 23 that fit"
    assert left == [f"req_{number}" for number in range(60 - len(left), 60)]


def test_what_comes_too_fast_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "_MAX_QUEUED_BYTES", 1000)
    monkeypatch.setattr(capture, "_BATCH_S", 30.0)
    writer = CaptureWriter(tmp_path, "gww_1")
    for _ in range(5):
        writer.add(fact(), Recorder(Capture(keep_days=1, max_bytes=10**6), b"x" * 600))
    assert writer.dropped == 3
    writer.stop()
    assert len(kept(tmp_path)) == 2

from __future__ import annotations

import numpy as np
import pytest

from core.kernel.errors import InvalidInput, NotFound, TooLarge
from core.simulation import traces, workloads

HEADER = "arrival_s,input_tokens,output_tokens\n"


def read(text: str) -> traces.Trace:
    return traces.read(text.encode(), "mine.csv")


@pytest.mark.parametrize(
    ("trace_id", "requests", "mean_input", "mean_output", "licence"),
    [
        ("azure-code", 8_819, 2047.8, 27.9, "CC-BY-4.0"),
        ("azure-conversation", 19_366, 1154.7, 211.1, "CC-BY-4.0"),
        ("mooncake-conversation", 12_031, 12035.1, 342.6, "Apache-2.0"),
    ],
)
def test_the_shipped_traces_are_whole_and_name_their_licence(
    trace_id, requests, mean_input, mean_output, licence
):
    trace = traces.shipped(trace_id)
    assert len(trace) == requests
    assert trace.input_tokens.mean() == pytest.approx(mean_input, abs=0.1)
    assert trace.output_tokens.mean() == pytest.approx(mean_output, abs=0.1)
    assert trace.arrival_s[0] == 0
    assert (np.diff(trace.arrival_s) >= 0).all()
    assert 3400 < trace.duration_s < 3600
    assert licence in trace.source
    assert "https://github.com/" in trace.source


def test_an_unknown_trace_names_the_nearest():
    with pytest.raises(NotFound, match=r"nearest is azure-conversation; there are: azure-code"):
        traces.shipped("azure-conversations")


@pytest.mark.parametrize(
    "text",
    [
        "arrival_s,input_tokens,output_tokens\n0.5,10,20\n2,30,40\n",
        # Azure's, with a seventh digit; also with a zone, as in 2024.
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,10,20\n2023-11-16 18:17:05.4799600,30,40\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-10 00:00:00.009930+00:00,10,20\n2024-05-10 00:00:01.509930+00:00,30,40\n",
        # Mooncake's.
        '{"timestamp": 500, "input_length": 10, "output_length": 20, "hash_ids": [1, 2]}\n'
        '{"timestamp": 2000, "input_length": 30, "output_length": 40, "hash_ids": []}\n',
        # Other names, in another order, with spaces, a byte-order mark and Windows line ends.
        "\ufeffOutput Length, arrival_ms , isl, note\r\n20, 500, 10, a\r\n40, 2000, 30, b\r\n",
        # Not sorted.
        "arrival_s,input_tokens,output_tokens\n2,30,40\n0.5,10,20\n",
    ],
)
def test_common_forms_are_read_alike(text):
    trace = read(text)
    assert trace.arrival_s.tolist() == [0, 1.5]
    assert trace.input_tokens.tolist() == [10, 30]
    assert trace.output_tokens.tolist() == [20, 40]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.csv is empty"),
        ("  \n\n", "mine.csv is empty"),
        (HEADER, "no request below it"),
        ("a,b,c\n1,2,3\n", r"No column is arrival_s. The header is: a, b, c."),
        ("arrival_s,input_tokens\n1,2\n", "No column is output_tokens"),
        (f"{HEADER[:-1]},isl\n1,2,3,4\n", "2 columns are input_tokens"),
        (f"{HEADER}0,5,5\n1,-7,5\n", "Row 3, column input_tokens: '-7' is negative"),
        (f"{HEADER}0,5,5\n1,7,0\n", "Row 3, column output_tokens: '0' is 0: leave requests"),
        (f"{HEADER}0,1000000000,5\n", "'1000000000' is over 10,000,000 tokens"),
        (f"{HEADER}0,5.5,5\n", "'5.5' is no whole number"),
        (f"{HEADER}0,nan,5\n", "'nan' is not finite"),
        (f"{HEADER}0,5,5\ninf,5,5\n", "Row 3, column arrival_s: 'inf' is not finite"),
        (f"{HEADER}0,many,5\n", "'many' is not a number"),
        (f"{HEADER}0,,5\n", "Row 2, column input_tokens: '' is not a number"),
        (f"{HEADER}0,5,5\n1,5\n", "Row 3 has 2 columns, the header 3"),
        (f"{HEADER}0,5,5\n\n1,5,5\n", "Row 3 has 0 columns"),
        (f"{HEADER}yesterday,5,5\n", "'yesterday' is not a number of seconds or a date"),
        (
            f"{HEADER}2023-11-16 18:00:00,5,5\nNaT,5,5\n",
            "Row 3, column arrival_s: 'NaT' is no date",
        ),
        (f"{HEADER}0,5,5\n9000000000,5,5\n", r"spans 104,167 days.*milliseconds"),
        ('{"timestamp": 0, "input_length": 5}\n', "Row 1 cannot be read.*output_length"),
        (
            '{"timestamp": 0, "input_length": 5, "output_length": 5}\n'
            '{"timestamp": 0, "input_length": -5, "output_length": 5}\n',
            "Row 2, column input_length: '-5' is negative",
        ),
    ],
)
def test_bad_input_is_named_by_row_column_and_value(text, message):
    with pytest.raises(InvalidInput, match=message):
        read(text)


def test_what_is_no_text_is_refused():
    with pytest.raises(InvalidInput, match="no text file in UTF-8"):
        traces.read(b"PK\x03\x04\xff\xfe", "trace.zip")


def test_a_file_or_a_trace_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(traces, "MAX_REQUESTS", 2)
    with pytest.raises(TooLarge, match="more than 2 requests"):
        read(f"{HEADER}0,5,5\n1,5,5\n2,5,5\n")
    line = '{"timestamp": 0, "input_length": 5, "output_length": 5}\n'
    assert len(read(2 * line)) == 2
    with pytest.raises(TooLarge, match="more than 2 requests"):
        read(3 * line)
    monkeypatch.setattr(traces, "MAX_BYTES", 10)
    with pytest.raises(TooLarge, match="mine.csv has"):
        read(HEADER)


def test_a_trace_can_be_sped_up_and_cut():
    trace = read(f"{HEADER}10,1,1\n11,2,2\n14,3,3\n18,4,4\n")
    assert trace.requests_per_s == 0.5
    fast = trace.at_rate(2)
    assert fast.arrival_s.tolist() == [0, 0.5, 2, 4]
    assert fast.name == "mine.csv × 2"
    window = trace.window(1, 8)
    assert window.arrival_s.tolist() == [0, 3]
    assert window.input_tokens.tolist() == [2, 3]
    for factor in (0, -1, float("nan"), 1e9):
        with pytest.raises(InvalidInput, match="0.001 to 1000"):
            trace.at_rate(factor)
    for start_s, end_s in ((5, 8), (3, 1), (-5, 5), (float("nan"), 5), (100, 200)):
        with pytest.raises(InvalidInput, match="goes from 0 to 8 s"):
            trace.window(start_s, end_s)


def test_a_trace_is_kept_as_it_is(tmp_path):
    trace = traces.synthetic(workloads.find("chat"), requests_per_s=5, duration_s=100)
    traces.save(trace, tmp_path / "a.parquet")
    found = traces.load(tmp_path / "a.parquet")
    assert found.arrival_s == pytest.approx(trace.arrival_s, abs=1e-6)
    assert found.input_tokens.tolist() == trace.input_tokens.tolist()
    assert found.output_tokens.tolist() == trace.output_tokens.tolist()
    assert (found.name, found.source) == (trace.name, "synthetic, seed 0")


def test_a_synthetic_trace_has_the_rate_the_lengths_and_the_bursts_it_was_asked_for():
    workload = workloads.find("chat")
    for burstiness in (0.0, 1.0, 3.0):
        trace = traces.synthetic(
            workload, requests_per_s=10, duration_s=5_000, burstiness=burstiness
        )
        assert len(trace) == pytest.approx(50_000, rel=0.05)
        assert trace.duration_s < 5_000
        gaps = np.diff(trace.arrival_s)
        assert gaps.std() / gaps.mean() == pytest.approx(burstiness, abs=0.1)
        assert trace.input_tokens.mean() == pytest.approx(workload.isl, rel=0.02)
        assert trace.output_tokens.std() / trace.output_tokens.mean() == pytest.approx(0.5, 0.03)
        again = traces.synthetic(
            workload, requests_per_s=10, duration_s=5_000, burstiness=burstiness
        )
        assert again.arrival_s.tolist() == trace.arrival_s.tolist()
    fixed = traces.synthetic(workload, requests_per_s=1, duration_s=50, length_variation=0)
    assert set(fixed.input_tokens) == {workload.isl}


@pytest.mark.parametrize(
    "changes",
    [
        {"requests_per_s": 0},
        {"requests_per_s": float("nan")},
        {"duration_s": 1e9},
        {"burstiness": -1},
        {"length_variation": 100},
        {"requests_per_s": 1e6, "duration_s": 1e6},
    ],
)
def test_a_synthetic_trace_out_of_range_is_refused(changes):
    asked = {"requests_per_s": 1.0, "duration_s": 60.0} | changes
    with pytest.raises((InvalidInput, TooLarge)):
        traces.synthetic(workloads.find("chat"), **asked)

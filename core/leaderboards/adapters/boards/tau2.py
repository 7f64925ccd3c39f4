"""tau2-bench: a manifest of submissions, and one JSON file each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from core.leaderboards.adapters.boards.rows import Read, Row, Source, format_changed, number

_FOLDER = "web/leaderboard/public/submissions"
_LISTS = {"submissions": "text", "voice_submissions": "voice"}
_METRICS = ("pass_1", "pass_2", "pass_3", "pass_4", "cost")


def _rows(read: Read) -> Iterator[Row]:
    manifest = json.loads(read(f"{_FOLDER}/manifest.json"))
    if "submissions" not in manifest:
        raise format_changed("list of submissions")
    for kind, variant in _LISTS.items():
        for name in manifest.get(kind, ()):
            submission = json.loads(read(f"{_FOLDER}/{name}/submission.json"))
            yield from _of_submission(submission, variant)


def _of_submission(submission: Mapping[str, object], variant: str) -> Iterator[Row]:
    results = submission.get("results")
    if not isinstance(results, dict):
        raise format_changed("results of a submission")
    is_custom = submission.get("submission_type") == "custom"
    for domain, found in results.items():
        for metric in _METRICS:
            score = number((found or {}).get(metric))
            if score is not None:
                yield Row(
                    variant,
                    f"{domain}/{metric}",
                    str(submission["model_name"]),
                    score,
                    organisation=str(submission.get("model_organization", "")),
                    date=str(submission.get("submission_date", "")),
                    setting="custom-harness" if is_custom else "",
                )


SOURCE = Source("sierra-research/tau2-bench", "main", _rows)

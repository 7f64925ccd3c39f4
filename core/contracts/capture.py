"""Captured prompts and answers: what the gateway keeps of projects that turned it on.

In `<data folder>/captures/<project id>`, JSON lines in files of one day and worker,
`<YYYY-MM-DD>.<HHMMSS and microseconds>.<worker id>.ndjson`, in UTC: when the first capture began.
The gateway appends, redacted, begins another file at a tenth of what a project may have, and
deletes the oldest ones when it has more; the app deletes what is too old. A last line that a crash
tore is no capture.
"""

from __future__ import annotations

import msgspec

FOLDER_NAME = "captures"
SUFFIX = ".ndjson"


class Captured(msgspec.Struct, kw_only=True):
    """One request and its answer, redacted.

    `request` is the body as it came; `response` the body as it went, of a stream the text of its
    events put together. Each is `…_cut` when it was longer than what is kept. `redacted` counts
    what was taken out, by kind.
    """

    request_id: str
    at_unix_s: float
    endpoint: str
    model: str
    key_id: str
    user_id: str
    status: int
    error_class: str = ""
    request: str = ""
    response: str = ""
    request_cut: bool = False
    response_cut: bool = False
    redacted: dict[str, int] = {}

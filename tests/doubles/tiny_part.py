"""A part for supervisor tests: answers 200 on any path, and ends with its supervisor.

`python -m tests.doubles.tiny_part PORT [--deaf] [--dies]`: `--deaf` ignores SIGTERM, `--dies`
ends at once with status 3.
"""

from __future__ import annotations

import http.server
import os
import signal
import sys
import threading
import time


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _watch_parent() -> None:
    supervisor = int(os.environ["BUD_SUPERVISOR_PID"])
    while os.getppid() == supervisor:
        time.sleep(0.1)
    os._exit(0)


def main() -> None:
    port = int(sys.argv[1])
    print(f"part on {port}", flush=True)
    if "--dies" in sys.argv:
        print("no model of that name", flush=True)
        sys.exit(3)
    if "--deaf" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_watch_parent, daemon=True).start()
    http.server.ThreadingHTTPServer(("127.0.0.1", port), _Handler).serve_forever()


if __name__ == "__main__":
    main()

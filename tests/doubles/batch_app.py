"""The part of the app that works on batches, in a process of its own that tests can kill."""

from __future__ import annotations

import time

from core.batches import services as batches
from core.jobs import engine


def main() -> None:
    engine.launch()
    while True:
        batches.take_up()
        time.sleep(0.1)


if __name__ == "__main__":
    main()

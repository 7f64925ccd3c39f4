"""What the workers of one gateway tell together: `/metrics` of any of them is that of all.

Each keeps its metrics in a file, `<data folder>/gateway/<worker id>.metrics`, and holds a
lock beside it while it lives. What a worker counted stays when it ends, so that sums never go back:
the next one that starts adds it to `ended.metrics`. The first worker of all begins anew.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.contracts.gateway_state import FOLDER_NAME

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_SUFFIX = ".metrics"
_ENDED = "ended"
# Of these, the sum over workers says nothing.
_NOT_SUMMED: dict[str, Callable[[float, float], float]] = {
    "bud_route_table_version": min,
    "bud_route_table_age_seconds": max,
    "bud_replica_up": min,
    "bud_replica_breaker_state": max,
    "process_start_time_seconds": min,
}
_GROWING = frozenset({"counter", "histogram"})


class Workers:
    """The other workers of the data folder, as one of them sees them.

    Args:
        data_dir: The data folder.
        worker_id: As in its facts.
        counted: This worker's metrics, in Prometheus' text form; for the event loop's thread.
        process: Those of its process; for any thread.
    """

    def __init__(
        self, data_dir: Path, worker_id: str, counted: Callable[[], str], process: Callable[[], str]
    ) -> None:
        self._folder = data_dir / FOLDER_NAME
        self._worker_id = worker_id
        self._counted = counted
        self._process = process
        self._lock = -1
        self._stopping = asyncio.Event()
        self._ticker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take over what ended workers left, and begin. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._alone():
            self._take_over()
            self._lock = _open(self._lock_of(self._worker_id))
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._ticker = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Leave what was counted to the others."""
        self._stopping.set()
        if self._ticker is not None:
            await self._ticker
        try:
            await self._save()
        except OSError as error:  # facts and captures are still to be written
            log.error("what this worker counted last is lost: %s", error)
        os.close(self._lock)

    async def metrics(self) -> str:
        """The metrics of all workers, in Prometheus' text form."""
        return await asyncio.to_thread(self._metrics_of_all, self._counted())

    def _metrics_of_all(self, own: str) -> str:
        texts = [own + self._process()]
        for worker_id, path in self._files():
            if worker_id != self._worker_id:
                with suppress(FileNotFoundError):
                    text = path.read_text()
                    texts.append(text if self._lives(worker_id) else _counted(text))
        return merged(texts)

    async def living(self) -> int:
        """How many workers there are now."""
        return await asyncio.to_thread(self._living)

    def _living(self) -> int:
        return 1 + sum(
            worker_id != self._worker_id and self._lives(worker_id)
            for worker_id, _ in self._files()
        )

    async def _tick(self) -> None:
        failing = False
        while not self._stopping.is_set():
            try:
                await self._save()
                failing = False
            except OSError as error:
                if not failing:
                    log.error("the metrics of this worker cannot be written: %s", error)
                failing = True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _EVERY_S)

    async def _save(self) -> None:
        path = self._folder / f"{self._worker_id}{_SUFFIX}"
        counted = self._counted()
        await asyncio.to_thread(lambda: _replace(path, counted + self._process()))

    def _take_over(self) -> None:
        ended = {worker_id: path for worker_id, path in self._files() if not self._lives(worker_id)}
        if len(ended) < sum(1 for _ in self._files()):
            texts = [_counted(path.read_text()) for path in ended.values()]
            _replace(self._folder / f"{_ENDED}{_SUFFIX}", merged(texts))
            ended.pop(_ENDED, None)
        for worker_id, path in ended.items():
            path.unlink()
            self._lock_of(worker_id).unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[str, Path]]:
        return ((path.stem, path) for path in sorted(self._folder.glob(f"*{_SUFFIX}")))

    def _lives(self, worker_id: str) -> bool:
        try:
            lock = os.open(self._lock_of(worker_id), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def _lock_of(self, worker_id: str) -> Path:
        return self._folder / f"{worker_id}.lock"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = _open(self._folder / "workers.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def merged(texts: Iterable[str]) -> str:
    """Metrics in Prometheus' text form, added up by name and labels.

    Args:
        texts: Each worker's, in the same order of names.
    """
    comments: dict[str, list[str]] = {}
    samples: dict[str, dict[str, float]] = {}
    for text in texts:
        family = ""
        for line in text.splitlines():
            if line.startswith("#"):
                family = line.split(" ", 3)[2]
                known = comments.setdefault(family, [])
                if line not in known:
                    known.append(line)
                continue
            sample, _, number = line.rpartition(" ")
            found = samples.setdefault(family, {})
            value = float(number)
            if sample in found:
                join = _NOT_SUMMED.get(family)
                value = join(found[sample], value) if join else found[sample] + value
            found[sample] = value
    lines: list[str] = []
    for family, about in comments.items():
        lines += about
        lines += [f"{name} {_number(value)}" for name, value in samples.get(family, {}).items()]
    return "\n".join(lines) + "\n" if lines else ""


def _counted(text: str) -> str:
    """What only grows; the rest ends with its worker."""
    kept: list[str] = []
    about: list[str] = []
    grows = False
    for line in text.splitlines():
        if line.startswith("# HELP"):
            about, grows = [line], False
        elif line.startswith("# TYPE"):
            grows = line.rpartition(" ")[2] in _GROWING
            kept += [*about, line] if grows else []
        elif grows:
            kept.append(line)
    return "\n".join(kept) + "\n" if kept else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6f}"


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _replace(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial-metrics")
    partial.write_text(text)
    partial.replace(path)

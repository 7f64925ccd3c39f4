"""Jobs of the leaderboards: fetch a board anew and say what differs."""

from __future__ import annotations

from core.jobs import Progress, Run, Step, workflow
from core.kernel import database
from core.kernel.actor import Actor
from core.kernel.errors import BudError, Conflict, UpstreamFailed
from core.kernel.settings import settings
from core.leaderboards import crud, refresh, scores, settling
from core.leaderboards.adapters.boards import BOARDS
from core.leaderboards.adapters.github import Repository
from core.leaderboards.models import BoardRefresh

# A file that lost half its figures is a broken file before it is a changed board.
_LEAST_SHARE = 0.5


def _abandon(refresh_id: str, by_schedule: bool) -> None:
    with database.transaction() as tx:
        _row(crud.refresh(tx, refresh_id)).state = "discarded"


@workflow(
    "leaderboard.refresh",
    steps=(
        Step("fetch", "Fetch the board's files", typical_s=10),
        Step("compare", "Compare with what is there", typical_s=1),
    ),
    on_cancel=_abandon,
)
def refresh_board(run: Run, refresh_id: str, by_schedule: bool) -> None:
    """Fetch a board and keep what differs; nothing changes until it is applied."""
    try:
        run.step("fetch", _fetch, refresh_id)
        run.step("compare", _compare, refresh_id, by_schedule)
    except BudError as error:
        with database.transaction() as tx:
            row = _row(crud.refresh(tx, refresh_id))
            row.state, row.error = "failed", str(error)
        raise


def _fetch(progress: Progress, refresh_id: str) -> None:
    with database.reading() as session:
        row = _row(crud.refresh(session, refresh_id))
        board, tenant_id = row.board, row.tenant_id
    source = BOARDS[board]
    repository = Repository(source.repository, source.branch)
    files = _Files(repository, progress)
    try:
        rows = list(source.rows(files))
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise UpstreamFailed(
            f"The files of {board} are not what they were: {type(error).__name__} {error}.",
            remedy="Update Bud; until then the board stays as it is.",
        ) from error
    fetched = refresh.frame(board, rows, repository.source, repository.commit.day)
    progress.log(f"{len(fetched):,} figures of {files.count} files at {repository.commit.sha[:12]}")
    refresh.save(fetched, scores.pending_file(tenant_id, refresh_id))
    with database.transaction() as tx:
        _row(crud.refresh(tx, refresh_id)).source = repository.source


class _Files:
    """A repository's files; each that is read is told to the job, which may be cancelled."""

    def __init__(self, repository: Repository, progress: Progress) -> None:
        self._repository = repository
        self._progress = progress
        self.count = 0

    def __call__(self, path: str) -> str:
        self._tell(path)
        return self._repository.text(path)

    def data(self, path: str) -> bytes:
        self._tell(path)
        return self._repository.data(path)

    def paths(self, folder: str) -> list[str]:
        self._progress.update(None, f"the files below {folder}")
        return self._repository.paths(folder)

    def _tell(self, path: str) -> None:
        self.count += 1
        self._progress.update(min(0.99, self.count / (self.count + 3)), path)


def _compare(progress: Progress, refresh_id: str, by_schedule: bool) -> None:
    with database.reading() as session:
        row = _row(crud.refresh(session, refresh_id))
        board, tenant_id = row.board, row.tenant_id
    path = scores.pending_file(tenant_id, refresh_id)
    now = scores.of_board(tenant_id, board)
    whole = refresh.with_kept(scores.read(path), now)
    if len(whole) < _LEAST_SHARE * len(now):
        raise UpstreamFailed(
            f"The files of {board} hold {len(whole):,} figures, where {len(now):,} are known.",
            remedy="Look at the board itself; it is left as it is.",
        )
    refresh.save(whole, path)
    counts = refresh.difference(now, whole)["change"].value_counts()
    progress.log(", ".join(f"{count:,} {change}" for change, count in counts.items()) or "the same")
    with database.transaction() as tx:
        row = _row(crud.refresh(tx, refresh_id))
        for older in crud.undecided(tx, tenant_id, board):
            older.state = "discarded"
        row.added, row.removed = int(counts.get("added", 0)), int(counts.get("removed", 0))
        row.changed, row.state = int(counts.get("changed", 0)), "found"
    if by_schedule and settings().refresh_apply:
        settling.settle(Actor.system(tenant_id), refresh_id, "applied")
        progress.log("applied, as BUD_REFRESH_APPLY says")


def _row(row: BoardRefresh | None) -> BoardRefresh:
    if row is None:
        raise Conflict("The record of this refresh is gone.", remedy="Start it again.")
    return row

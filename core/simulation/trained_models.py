"""Which trained model a tenant predicts with: the shipped one, or one trained on own rows too.

Every prediction asks, so the answer is kept for a moment: another process changes over within
that time. The models themselves never change, and are kept by the id of their training.
"""

from __future__ import annotations

import time
import zlib
from functools import lru_cache

from sqlalchemy.orm import Session

from core.kernel import database
from core.kernel.errors import NotFound
from core.simulation import crud, predictor, training
from core.simulation.training import Trained

SHIPPED = ""
KEPT_S = 2.0
_MOST_KEPT = 4
# By database as well: a process may see several in its life.
_in_use: dict[tuple[str, str], tuple[float, str]] = {}


def in_use(tenant_id: str) -> str:
    """The training whose model a tenant predicts with, at most `KEPT_S` seconds old.

    Returns:
        Its id; SHIPPED for the model that ships with Bud, also when this version of Bud can no
        longer read the chosen one.
    """
    key = (database.database_url(), tenant_id)
    until_s, training_id = _in_use.get(key, (0.0, SHIPPED))
    now_s = time.monotonic()
    if now_s < until_s:
        return training_id
    with database.reading() as session:
        training_id = chosen(session, tenant_id)
    _in_use[key] = (now_s + KEPT_S, training_id)
    return training_id


def chosen(session: Session, tenant_id: str) -> str:
    """The same as it is at this moment."""
    row = crud.used_training(session, tenant_id)
    is_readable = row is not None and row.result is not None and is_current(row.result)
    return row.id if row is not None and is_readable else SHIPPED


def is_current(result: dict[str, object]) -> bool:
    """Whether this version of Bud can predict with what a training has made."""
    return result["version"] == training.VERSION


def changed() -> None:
    """Look again at the next prediction of this process."""
    _in_use.clear()


def trained(training_id: str) -> Trained:
    """The model of a training. NotFound when it is gone."""
    return predictor.trained() if training_id == SHIPPED else _own(training_id)


@lru_cache(maxsize=_MOST_KEPT)
def _own(training_id: str) -> Trained:
    with database.reading() as session:
        packed = crud.trained_model(session, training_id)
    if packed is None:
        raise NotFound(
            f"There is no trained model {training_id[:60]}.",
            remedy="Ask again: what was in use was changed at this moment.",
        )
    return unpacked(packed)


def packed(model: Trained) -> bytes:
    """A trained model as it is stored."""
    return zlib.compress(training.to_json(model).encode())


def unpacked(content: bytes) -> Trained:
    """What `packed` packed."""
    return training.from_json(zlib.decompress(content).decode())

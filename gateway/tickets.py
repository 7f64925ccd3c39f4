"""Lets the app ask in the name of a key that made a batch: see `core.contracts.batch`."""

from __future__ import annotations

import asyncio

import msgspec

from core.contracts.batch import SECRET_PREFIX, TICKET_CONTEXT, Ticket
from core.contracts.route_table import ApiKey
from core.kernel import clock
from core.kernel.errors import KeyProblem
from gateway.table import Table, TableHolder

_MOST_KEPT = 256


class Tickets:
    """Knows the keys of the table in use by their ids, and opens tickets.

    Args:
        tables: With the route table in use, and the keys that seal tickets as well.
    """

    def __init__(self, tables: TableHolder) -> None:
        self._tables = tables
        self._of: Table | None = None
        self._keys: dict[str, ApiKey] = {}
        self._opened: dict[str, Ticket] = {}

    def by_id(self, key_id: str) -> ApiKey | None:
        """A key of the table; None when it is revoked, expired or no API key."""
        if self._of is not self._tables.current:
            self._of = self._tables.current
            self._keys = {key.id: key for key in self._of.keys.values()}
        found = self._keys.get(key_id)
        if found is None:
            return None
        expires_unix_s = found.expires_unix_s
        return None if expires_unix_s is not None and expires_unix_s <= clock.unix_s() else found

    async def key(self, secret: str) -> ApiKey | None:
        """The key in whose name a ticket asks, as it is now; None when it opens nothing.

        From where a batch was made was asked when it was made.
        """
        # In a thread: the first one may have to take the key from the disk.
        ticket = self._opened.get(secret) or await asyncio.to_thread(self._open, secret)
        if ticket is None or ticket.ends_unix_s <= clock.unix_s():
            return None
        found = self.by_id(ticket.key_id)
        if found is None or found.project_id != ticket.project_id:
            return None
        return msgspec.structs.replace(found, networks=())

    def _open(self, secret: str) -> Ticket | None:
        try:
            sealed = secret.removeprefix(SECRET_PREFIX)
            text = self._tables.keyring.open(sealed, context=TICKET_CONTEXT)
            ticket = msgspec.json.decode(text.reveal(), type=Ticket)
        except (KeyProblem, msgspec.DecodeError):
            return None
        if len(self._opened) >= _MOST_KEPT:
            self._opened.clear()
        self._opened[secret] = ticket
        return ticket

"""What hosts tell one another of their limits through Valkey: one script, run by the server alone.

See `exchange.lua` for what is kept there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from core.kernel.crypto import Secret
from core.kernel.errors import InvalidInput
from gateway.limits.leases import LEASE_MS

if TYPE_CHECKING:
    from valkey.asyncio import Valkey

_PREFIX = "{bud:limits}"  # one slot of a cluster: the script touches all of its keys at once
_HOSTS = f"{_PREFIX}:hosts"
_SCRIPT = Path(__file__).with_name("exchange.lua")
_SCHEMES = ("valkey", "valkeys", "redis", "rediss", "unix")
_CALL_S = 1.0
_ALIVE_MS = 15_000
_KNOWN_MS = 3_600_000


class Lost(Exception):
    """Valkey cannot be reached, or does not answer as it should."""


@dataclass(frozen=True, slots=True)
class Told:
    """One limit, as a host tells it.

    Attributes:
        name: Of the limit, the same at every host.
        period: "" or the number of a budget's day or month.
        most: The limit itself.
        held: How much of it the host holds, used or not.
        used: How much of that is used.
        need: What is lacking: -1 nothing, 0 a slice of what is left.
        free_in_ms: When something of it is free again; -1 when nobody knows.
        keep_ms: For how long what is held stays the host's after it was last told.
    """

    name: str
    period: str
    most: int
    held: int
    used: int
    need: int
    free_in_ms: int
    keep_ms: int


@dataclass(frozen=True, slots=True)
class Given:
    """One limit, as the server answers.

    Attributes:
        given: How much more the host holds now.
        left: What no host holds.
        unused: What other hosts hold and had not used when they last told.
        free_in_ms: When another host has something free again; -1 when nobody knows.
    """

    given: int
    left: int
    unused: int
    free_in_ms: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What one exchange gives.

    Attributes:
        run: The server's process: with another one, what it knew may be gone.
        grace_ms: For how long it gives nothing, until every host has spoken.
        known: How many hosts there were in the last hour.
        wanted: Names of the limits that other hosts want something back of.
        given: One for each limit that was told.
    """

    run: str
    grace_ms: int
    known: int
    wanted: list[str]
    given: list[Given]


class Exchange:
    """The connection of one host to Valkey; made with the first call, made anew after `close`.

    Args:
        url: `valkey://[user:password@]host[:port]/[database]`, `valkeys://` with TLS.
        host: This host's name.

    Raises:
        InvalidInput: That is no such URL.
    """

    def __init__(self, url: Secret, host: str) -> None:
        self._url, self._host = url, host
        self._client: Valkey | None = None
        self._sha = ""
        check_url(url)

    async def tell(self, number: int, told: Sequence[Told]) -> Answer | int:
        """Tell what the host holds and needs.

        Args:
            number: Higher than that of any exchange before.
            told: The limits.

        Returns:
            The server's answer; the number of the last exchange when this one is not newer.

        Raises:
            Lost: It cannot be reached, or does not answer in time.
        """
        from valkey.exceptions import ValkeyError

        keys = [_HOSTS, f"{_PREFIX}:state", f"{_PREFIX}:wanted:{self._host}"]
        arguments: list[object] = [self._host, number, LEASE_MS, _ALIVE_MS, _KNOWN_MS]
        for one in told:
            keys.append(f"{_PREFIX}:limit:{one.name}:{one.period}")
            arguments += (one.most, one.held, one.used, one.need, one.free_in_ms, one.keep_ms)
            arguments.append(one.name)
        command = [str(each) for each in (*keys, *arguments)]
        try:
            client = self._client or await self._connected()
            reply = await cast(
                Awaitable[list[object]], client.evalsha(self._sha, len(keys), *command)
            )
        except (ValkeyError, OSError, TimeoutError) as error:
            raise Lost(f"{type(error).__name__}: {error}") from None
        return _answer(reply)

    async def _connected(self) -> Valkey:
        # Only now: who does not share limits pays neither the time nor the memory of the client.
        from valkey.asyncio import Valkey

        client: Valkey = Valkey.from_url(
            self._url.reveal(), socket_timeout=_CALL_S, socket_connect_timeout=_CALL_S,
            max_connections=1,
        )  # fmt: skip
        self._client = client  # to be closed also when the next line fails
        self._sha = await client.script_load(_SCRIPT.read_text())
        return client

    async def leave(self) -> None:
        """Tell the others that this host asks for nothing more, and close the connection."""
        from valkey.exceptions import ValkeyError

        if self._client is not None:
            with suppress(ValkeyError, OSError, TimeoutError):
                await self._client.zrem(_HOSTS, self._host)
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        from valkey.exceptions import ValkeyError

        client, self._client = self._client, None
        if client is not None:
            with suppress(ValkeyError, OSError):
                await client.aclose()


def check_url(url: Secret) -> None:
    """Raise InvalidInput for what is no URL of Valkey; without it, for it may hold a password."""
    try:
        parts = urlsplit(url.reveal())
        wrong = parts.scheme not in _SCHEMES or not (parts.hostname or parts.path)
        _ = parts.port
    except ValueError:
        wrong = True
    if wrong:
        raise InvalidInput(
            "BUD_VALKEY_URL is not the URL of a Valkey or Redis server.",
            remedy="Write valkey://[user:password@]host[:port], or valkeys:// with TLS.",
        )


def _answer(reply: list[object]) -> Answer | int:
    if reply[0] != b"ok":
        last = reply[1]
        assert isinstance(last, int)
        return last
    _, run, grace_ms, known, wanted, results = reply
    return Answer(
        run.decode(),  # type: ignore[attr-defined]
        grace_ms,  # type: ignore[arg-type]
        known,  # type: ignore[arg-type]
        [name.decode() for name in wanted],  # type: ignore[attr-defined]
        [Given(*each) for each in results],  # type: ignore[attr-defined]
    )

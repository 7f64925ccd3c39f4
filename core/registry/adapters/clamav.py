"""ClamAV, through the socket of its daemon clamd.

Protocol: `zINSTREAM`, then pieces of a four-byte length in network order and their bytes, closed
by a length of zero; the answer is one line that ends with a zero byte (man clamd, "Commands").
"""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Self

from core.kernel.errors import InvalidInput, Unavailable

_CONNECT_S = 5.0
# clamd answers after it has looked at everything, which takes long for large files.
_ANSWER_S = 600.0
_MAX_ANSWER_BYTES = 4096
_PIECE_BYTES = 1 << 20


class Stream:
    """One file on its way through clamd; a sink, to be used once as a context.

    Raises:
        Unavailable: The daemon cannot be reached, breaks off or takes too long.
        InvalidInput: `address` is neither `host:port` nor the absolute path of a socket.
    """

    def __init__(self, address: str, timeout_s: float = _ANSWER_S) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._early = ""
        self._socket = self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def feed(self, chunk: bytes) -> None:
        """Send the next bytes."""
        for start in range(0, len(chunk), _PIECE_BYTES):
            piece = chunk[start : start + _PIECE_BYTES]
            self._send(struct.pack("!I", len(piece)) + piece)

    def verdict(self) -> str | None:
        """The name of what was found in it, None when nothing was.

        Raises:
            Unavailable: clamd did not finish, for example because the file is over its limit.
        """
        if not self._early:
            self._send(struct.pack("!I", 0))
        answer = self._early or self._receive()
        text = answer.removeprefix("stream: ").strip()
        if text == "OK":
            return None
        if text.endswith(" FOUND"):
            return text.removesuffix(" FOUND")
        if "size limit exceeded" in text:
            raise Unavailable(
                "the file is over the size that clamd takes",
                remedy="Raise StreamMaxLength in clamd.conf.",
            )
        raise Unavailable(f"clamd answered {text[:120]!r}", remedy="See the log of clamd.")

    def _connect(self) -> socket.socket:
        try:
            if self._address.startswith("/"):
                opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                opened.settimeout(_CONNECT_S)
                opened.connect(self._address)
            else:
                opened = socket.create_connection(self._host_and_port(), _CONNECT_S)
            opened.settimeout(self._timeout_s)
            opened.sendall(b"zINSTREAM\0")
        except OSError as error:
            raise self._failed(error) from error
        return opened

    def _host_and_port(self) -> tuple[str, int]:
        host, _, port = self._address.rpartition(":")
        if not host or not port.isdigit():
            raise InvalidInput(
                "BUD_CLAMD names no clamd.",
                value=self._address,
                remedy="Give host:port, or the absolute path of its socket.",
            )
        return host.strip("[]"), int(port)

    def _send(self, data: bytes) -> None:
        if self._early:
            return
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            # It says what it dislikes and hangs up, before it has read everything.
            self._early = self._receive(error)
        except OSError as error:
            raise self._failed(error) from error

    def _receive(self, cause: OSError | None = None) -> str:
        answer = b""
        try:
            while b"\0" not in answer and len(answer) < _MAX_ANSWER_BYTES:
                received = self._socket.recv(_MAX_ANSWER_BYTES)
                if not received:
                    break
                answer += received
        except OSError as error:
            raise self._failed(cause or error) from error
        if not answer:
            raise self._failed(cause or ConnectionError("it hung up without an answer"))
        return answer.partition(b"\0")[0].decode("utf-8", "replace")

    def _failed(self, error: OSError) -> Unavailable:
        why = "it takes too long" if isinstance(error, TimeoutError) else error.strerror or error
        return Unavailable(
            f"clamd at {self._address} does not answer: {why}",
            remedy="Start clamd, or correct BUD_CLAMD.",
        )

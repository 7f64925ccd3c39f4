"""Sealing of credentials: AES-256-GCM data keys, wrapped by an RSA-4096-OAEP key.

A sealed value reads `bud1.<data key id>.<base64url of nonce and ciphertext>`, so that each
value names the key that opens it and old values stay readable after a rotation. The gateway
imports this module: it must not reach SQLAlchemy or pydantic, and imports `cryptography` only where
something is sealed or opened, for that costs a worker 12 MB.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.kernel import ids
from core.kernel.errors import KeyProblem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.padding import OAEP
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_FORMAT = "bud1"
_NONCE_BYTES = 12
_RSA_BITS = 4096
# It names a file, and anybody may send one.
_is_key_id = re.compile(r"[0-9a-z_]{1,64}").fullmatch


class Secret:
    """A text that does not show itself in a repr, a log line or an f-string."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself; call this only where it is used."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True)
class _Manifest:
    """Which wrapping key and which data key new values use."""

    wrapping_key: str
    data_key: str


class Keyring:
    """The keys in one folder, each file readable by its owner only (0600).

    `wrapping-<id>.pem` is an RSA private key; `data-<id>.json` a data key wrapped by it;
    `current.json` names the two in use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data_keys: dict[str, AESGCM] = {}
        self._manifest: _Manifest | None = None

    @classmethod
    def open_or_create(cls, folder: Path) -> Keyring:
        """The keyring in `folder`, made on the first start.

        Raises:
            KeyProblem: The folder holds keys, but not the ones its manifest names.
        """
        ring = cls(folder)
        if not (folder / "current.json").exists():
            if folder.exists() and any(folder.glob("*-*.*")):
                raise KeyProblem(
                    f"The key folder {folder} holds keys but no current.json.",
                    remedy="Restore current.json from your backup; Bud will not make new keys "
                    "beside old ones, because sealed credentials would become unreadable.",
                )
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            wrapping_key = ring._new_wrapping_key()
            ring._write_manifest(_Manifest(wrapping_key, ring._new_data_key(wrapping_key)))
        ring.seal(Secret("probe"))
        return ring

    @property
    def current_key_id(self) -> str:
        """The id of the data key that new values are sealed with."""
        return self._current().data_key

    def seal(self, secret: Secret, *, context: str = "") -> str:
        """Encrypt `secret`; the same `context` must be given to open it."""
        key_id = self._current().data_key
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._data_key(key_id).encrypt(
            nonce, secret.reveal().encode(), _associated(key_id, context)
        )
        return f"{_FORMAT}.{key_id}.{base64.urlsafe_b64encode(sealed).decode()}"

    def open(self, sealed: str, *, context: str = "") -> Secret:
        """Decrypt a sealed value.

        Raises:
            KeyProblem: The value is not sealed, is damaged, or its key is missing or wrong.
        """
        parts = sealed.split(".")
        if len(parts) != 3 or parts[0] != _FORMAT or not _is_key_id(parts[1]):
            raise KeyProblem(
                "A credential is not in Bud's sealed form.",
                remedy="Enter it again where it is set; it was changed outside Bud.",
            )
        key = self._data_key(parts[1])
        from cryptography.exceptions import InvalidTag

        try:
            raw = base64.urlsafe_b64decode(parts[2])
            text = key.decrypt(
                raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _associated(parts[1], context)
            )
        except (InvalidTag, ValueError) as error:
            raise KeyProblem(
                f"A credential sealed with key {parts[1]} cannot be opened.",
                remedy=f"Restore the key files of {self.folder} that belong to this database, "
                "or enter the credential again.",
            ) from error
        return Secret(text.decode())

    def rotate(self, *, wrapping_key: bool = False) -> str:
        """Make a new data key for new values and return its id; old values stay readable.

        Args:
            wrapping_key: Also make a new RSA key and wrap every data key with it.
        """
        wrapping_id = self._current().wrapping_key
        if wrapping_key:
            wrapping_id = self._rewrap_all(wrapping_id)
        manifest = _Manifest(wrapping_id, self._new_data_key(wrapping_id))
        self._write_manifest(manifest)
        return manifest.data_key

    def _rewrap_all(self, old_id: str) -> str:
        new_wrapping = self._new_wrapping_key()
        for path in sorted(self.folder.glob("data-*.json")):
            key_id = path.stem.removeprefix("data-")
            self._write_data_key(key_id, self._unwrap(key_id), new_wrapping)
        self._write_manifest(_Manifest(new_wrapping, self._current().data_key))
        with suppress(FileNotFoundError):
            (self.folder / f"wrapping-{old_id}.pem").unlink()
        return new_wrapping

    def _current(self) -> _Manifest:
        # Another process may have rotated the keys, so the small file is read each time.
        self._manifest = _Manifest(**json.loads(self._read("current.json")))
        return self._manifest

    def _data_key(self, key_id: str) -> AESGCM:
        if key_id not in self._data_keys:
            key = self._unwrap(key_id)
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._data_keys[key_id] = AESGCM(key)
        return self._data_keys[key_id]

    def _unwrap(self, key_id: str) -> bytes:
        stored = json.loads(self._read(f"data-{key_id}.json"))
        pem = self._read(f"wrapping-{stored['wrapping_key']}.pem")
        try:
            return _private_key(pem).decrypt(base64.b64decode(stored["wrapped"]), _oaep())
        except ValueError as error:
            raise KeyProblem(
                f"The wrapping key {stored['wrapping_key']} does not open data key {key_id}.",
                remedy=f"Put the matching key files back into {self.folder}.",
            ) from error

    def _new_wrapping_key(self) -> str:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key_id = ids.new_id("wk")
        private_key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
        pem = private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._write(f"wrapping-{key_id}.pem", pem)
        return key_id

    def _new_data_key(self, wrapping_key: str) -> str:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key_id = ids.new_id("dk")
        self._write_data_key(key_id, AESGCM.generate_key(bit_length=256), wrapping_key)
        return key_id

    def _write_data_key(self, key_id: str, key: bytes, wrapping_key: str) -> None:
        pem = self._read(f"wrapping-{wrapping_key}.pem")
        public_key = _private_key(pem).public_key()
        wrapped = base64.b64encode(public_key.encrypt(key, _oaep())).decode()
        document = {"wrapping_key": wrapping_key, "wrapped": wrapped}
        self._write(f"data-{key_id}.json", json.dumps(document).encode())

    def _write_manifest(self, manifest: _Manifest) -> None:
        self._write("current.json", json.dumps(manifest.__dict__).encode())
        self._manifest = manifest

    def _write(self, name: str, content: bytes) -> None:
        partial = self.folder / f".{name}.{os.getpid()}.partial"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / name)

    def _read(self, name: str) -> bytes:
        path = self.folder / name
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                raise KeyProblem(
                    f"The key file {path} is open to other users (mode {mode:o}).",
                    remedy=f"Run: chmod 600 {path}",
                )
            return path.read_bytes()
        except FileNotFoundError as error:
            raise KeyProblem(
                f"The key file {path} is missing.",
                remedy="Restore it from your backup, or set BUD_KEYS_DIR to where the keys are.",
            ) from error


def _associated(key_id: str, context: str) -> bytes:
    return f"{_FORMAT}.{key_id}.{context}".encode()


def _private_key(pem: bytes) -> RSAPrivateKey:
    """The key of a file; ValueError when it is none of RSA."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("not an RSA key")
    return key


def _oaep() -> OAEP:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    return padding.OAEP(
        mgf=padding.MGF1(algorithm=hashes.SHA256()), algorithm=hashes.SHA256(), label=None
    )

"""Looks into zip and tar archives without unpacking them anywhere.

A member is read through a limit, so that an archive that unpacks to more than it should costs
neither memory nor disk. Zip members are read where the archive's directory says, the way torch
does, whatever their local headers claim about passwords and checksums.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from core.registry.scanners.report import Finding

_CHUNK_BYTES = 1 << 20
MAX_MEMBERS = 100_000
# The directory of an archive is read whole; that of a large checkpoint has under 2 MB.
_MAX_DIRECTORY_BYTES = 8 << 20
# Deflate can make a thousand of one, weights hardly two.
MAX_RATIO = 100
_FREE_BYTES = 100 << 20
_MAX_TAR_HEADER_BYTES = 1 << 20
_END = b"PK\x05\x06"
_END_64, _LOCATOR_64 = b"PK\x06\x06", b"PK\x06\x07"
_LOCAL = struct.Struct("<4s22xHH")
_DRIVE = re.compile(r"[A-Za-z]:")
_DEFLATED, _STORED = zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED


class Unreadable(Exception):
    """An archive, or a member, cannot be looked into; says why."""


class Bomb(Exception):
    """It unpacks to far more than it is."""


@dataclass(frozen=True)
class Member:
    """A file in an archive; `offset` and `method` are those of a zip's directory."""

    name: str
    size_bytes: int
    packed_bytes: int
    offset: int = 0
    method: int = _STORED
    raw_name: bytes = b""


def traversal(name: str, archive: str) -> Finding | None:
    """What is wrong with the path of a member: it would be unpacked outside the folder."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not (name.startswith(("/", "\\")) or _DRIVE.match(name) or ".." in parts or "\0" in name):
        return None
    return Finding(
        severity="critical",
        kind="path-traversal",
        file=archive,
        what=f"Its member {name[:120]!r} would be written outside the folder.",
        remedy="Do not unpack this archive.",
    )


def _link(name: str, target: str, archive: str) -> Finding:
    escapes = traversal(target, archive) is not None
    return Finding(
        severity="critical" if escapes else "medium",
        kind="archive-link",
        file=archive,
        what=f"Its member {name[:120]!r} is a link to {target[:120]!r}.",
        remedy="Do not unpack this archive.",
    )


def bomb(archive: str, why: str) -> Finding:
    """The finding for an archive that would fill a disk or a memory."""
    return Finding(
        severity="critical",
        kind="zip-bomb",
        file=archive,
        what=f"It is made to fill the disk: {why}.",
        remedy="Do not unpack this archive.",
    )


_TAR_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".txz", ".tbz2", ".nemo")


def is_archive(name: str, head: bytes) -> bool:
    """Whether it is a zip or a tar, by its first bytes, or by its name when they are missing."""
    # A tar that is packed shows it only by its name.
    is_tar = head[257:262] == b"ustar" or name.lower().endswith(_TAR_SUFFIXES)
    return is_tar or is_zip(name, head)


def is_zip(name: str, head: bytes) -> bool:
    """Whether it is a zip, or says so."""
    return head.startswith(b"PK\x03\x04") or name.lower().endswith((".zip", ".npz", ".keras"))


def is_hollow(path: Path) -> bool:
    """Whether it takes up far less disk than it claims, as a large file of holes does."""
    status = path.stat()
    return status.st_size > 1 << 30 and status.st_blocks * 512 * 10 < status.st_size


# --- zip -------------------------------------------------------------------------------------


def list_zip(file: BinaryIO, archive: str) -> tuple[list[Member], list[Finding]]:
    """The members of a zip archive, and what is wrong with them.

    Raises:
        Unreadable: It is cut off or broken.
        Bomb: Its directory says that it unpacks to far more than it is, or overlaps itself.
    """
    size_bytes = file.seek(0, os.SEEK_END)
    _check_directory(file, size_bytes)
    try:
        with zipfile.ZipFile(file) as opened:
            entries = opened.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError) as error:
        raise Unreadable(f"its directory is broken: {error}") from error
    members = [_zip_member(entry) for entry in entries]
    _check_bomb(members, size_bytes)
    return members, _zip_findings(file, members, entries, archive)


def _zip_member(entry: zipfile.ZipInfo) -> Member:
    encoding = "utf-8" if entry.flag_bits & 0x800 else "cp437"
    return Member(
        name=entry.orig_filename,
        size_bytes=entry.file_size,
        packed_bytes=entry.compress_size,
        offset=entry.header_offset,
        method=entry.compress_type,
        raw_name=entry.orig_filename.encode(encoding, "replace"),
    )


def _check_directory(file: BinaryIO, size_bytes: int) -> None:
    """Refuse a directory that is too large to be read, or is not where it says."""
    start = max(size_bytes - (1 << 16) - 22, 0)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < 22:
        raise Unreadable("it has no directory at its end; it is cut off")
    count, directory_bytes, offset = struct.unpack_from("<HII", tail, at + 10)
    locator = tail[at - 20 : at] if at >= 20 else b""
    if locator.startswith(_LOCATOR_64):
        (position,) = struct.unpack_from("<Q", locator, 8)
        if position > size_bytes - 56:
            raise Unreadable("its directory lies outside it")
        file.seek(position)
        end = file.read(56)
        if not end.startswith(_END_64):
            raise Unreadable("its directory is not where it says")
        count, directory_bytes, offset = struct.unpack_from("<QQQ", end, 32)
    if count > MAX_MEMBERS or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise Bomb(f"it lists {count:,} members in {directory_bytes:,} bytes")
    if offset + directory_bytes > size_bytes:
        raise Unreadable("its directory lies outside it")


def _check_bomb(members: list[Member], size_bytes: int) -> None:
    total_bytes = sum(member.size_bytes for member in members)
    if total_bytes > _FREE_BYTES and total_bytes > MAX_RATIO * size_bytes:
        raise Bomb(f"{size_bytes:,} bytes unpack to {total_bytes:,}")
    end = 0
    for member in sorted(members, key=lambda member: member.offset):
        if member.offset < end:
            raise Bomb(f"its members share their bytes ({member.name[:80]!r} overlaps another)")
        end = member.offset + _LOCAL.size + member.packed_bytes


def _zip_findings(
    file: BinaryIO, members: list[Member], entries: list[zipfile.ZipInfo], archive: str
) -> list[Finding]:
    found = [wrong for member in members if (wrong := traversal(member.name, archive))]
    for member, entry in zip(members, entries, strict=True):
        if stat.S_ISLNK(entry.external_attr >> 16):
            target = b"".join(read_zip_member(file, member, 4096)).decode("utf-8", "replace")
            found.append(_link(member.name, target, archive))
    names = [member.name for member in members]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        found.append(
            Finding(
                severity="high",
                kind="ambiguous-archive",
                file=archive,
                what=f"It has several members of the name {twice[0][:120]!r}; "
                "programs differ in which they read.",
                remedy="Do not load this file.",
            )
        )
    return found


def read_zip_member(
    file: BinaryIO, member: Member, limit_bytes: int | None = None
) -> Iterator[bytes]:
    """The bytes of a member, at most `limit_bytes` of them, in pieces.

    Raises:
        Unreadable: It is broken, or packed in a way that is not read.
        Bomb: There is far more in it than its size says.
    """
    file.seek(member.offset)
    head = file.read(_LOCAL.size)
    if len(head) < _LOCAL.size or not head.startswith(b"PK\x03\x04"):
        raise Unreadable(f"{member.name[:120]!r} is not where the directory says")
    _, name_bytes, extra_bytes = _LOCAL.unpack(head)
    if file.read(name_bytes) != member.raw_name:
        raise Unreadable(f"{member.name[:120]!r} has another name where it lies")
    file.seek(extra_bytes, os.SEEK_CUR)
    packed = _exactly(file, member.packed_bytes, member.name)
    if member.method == _STORED:
        unpacked = packed
    elif member.method == _DEFLATED:
        unpacker = Unpacker(lambda: zlib.decompressobj(-zlib.MAX_WBITS))
        unpacked = (piece for chunk in packed for piece in unpacker.pieces(chunk))
    else:
        raise Unreadable(f"{member.name[:120]!r} is packed by method {member.method}")
    yield from _limited(unpacked, member, limit_bytes)


def _limited(pieces: Iterator[bytes], member: Member, limit_bytes: int | None) -> Iterator[bytes]:
    left = member.size_bytes if limit_bytes is None else min(limit_bytes, member.size_bytes)
    for piece in pieces:
        if len(piece) > left and limit_bytes is None:
            raise Bomb(f"{member.name[:80]!r} unpacks to more than the {member.size_bytes:,} bytes "
                       "it claims")  # fmt: skip
        yield piece[:left]
        left -= min(len(piece), left)
        if limit_bytes is not None and not left:
            return


def _exactly(file: BinaryIO, count: int, name: str) -> Iterator[bytes]:
    while count:
        chunk = file.read(min(count, _CHUNK_BYTES))
        if not chunk:
            raise Unreadable(f"{name[:120]!r} is cut off")
        count -= len(chunk)
        yield chunk


# --- streams ---------------------------------------------------------------------------------


class Unpacker:
    """Unpacks deflate, gzip, bzip2 or xz as it comes, in pieces of bounded size.

    Args:
        make: Makes a decompressor of zlib, bz2 or lzma; a new one for each stream that follows.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._current = make()
        self._in_bytes = self._out_bytes = 0

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """What `chunk` unpacks to.

        Raises:
            Unreadable: It is broken.
            Bomb: It unpacks to far more than it is.
        """
        self._in_bytes += len(chunk)
        while True:
            try:
                piece = self._current.decompress(chunk, _CHUNK_BYTES)
            except (zlib.error, OSError, lzma.LZMAError, EOFError) as error:
                raise Unreadable(f"its packed data is broken: {error}") from error
            self._out_bytes += len(piece)
            if self._out_bytes > max(_FREE_BYTES, MAX_RATIO * self._in_bytes):
                raise Bomb(f"{self._in_bytes:,} bytes unpack to over {self._out_bytes:,}")
            yield piece
            if self._current.eof:
                chunk = self._current.unused_data
                if not chunk.strip(b"\0"):
                    return
                self._current = self._make()
                continue
            # zlib hands back what it did not take yet; the others keep it.
            chunk = getattr(self._current, "unconsumed_tail", b"")
            if not chunk and len(piece) < _CHUNK_BYTES:
                return


class Unpacked:
    """A compressed file, unpacked as it is read: forwards only, within the limits of a bomb.

    Raises:
        Unreadable: It is broken.
        Bomb: It unpacks to far more than it is.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._size_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        magic = file.read(6)
        file.seek(0)
        self._file: BinaryIO | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile = file
        if magic.startswith(b"\x1f\x8b"):
            self._file = gzip.GzipFile(fileobj=file)
        elif magic.startswith(b"BZh"):
            self._file = bz2.BZ2File(file)
        elif magic.startswith(b"\xfd7zXZ"):
            self._file = lzma.LZMAFile(file)  # noqa: SIM115 (it owns no file)
        self._position = 0

    def read(self, count: int = -1) -> bytes:
        """The next `count` bytes, fewer at the end."""
        if not 0 <= count <= _MAX_TAR_HEADER_BYTES:
            raise Unreadable(f"a header of {count:,} bytes")
        try:
            data = self._file.read(count)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise Unreadable(f"its packed data is broken: {error}") from error
        self._position += len(data)
        if self._position > _FREE_BYTES and self._position > MAX_RATIO * self._size_bytes:
            raise Bomb(f"{self._size_bytes:,} bytes unpack to more than {self._position:,}")
        return data

    def tell(self) -> int:
        """How many bytes were read."""
        return self._position

    def seek(self, position: int, _whence: int = os.SEEK_SET) -> int:
        """Go on to `position`."""
        if position < self._position:
            raise Unreadable("it leads backwards")
        while self._position < position:
            if not self.read(min(position - self._position, _CHUNK_BYTES)):
                break
        return self._position


# --- tar -------------------------------------------------------------------------------------


def walk_tar(
    file: BinaryIO, archive: str, report: Callable[[list[Finding]], None]
) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Each file of a tar archive, packed or not, with its bytes; what is wrong goes to `report`.

    Raises:
        Unreadable: It is cut off or broken.
        Bomb: It unpacks to far more than it is, or has too many members.
    """
    stream = Unpacked(file)
    try:
        # Its own reader of compressed files knows no limit.
        with tarfile.open(fileobj=stream, mode="r:") as opened:  # type: ignore[call-overload]
            count = 0
            while (entry := opened.next()) is not None:
                # It would keep them all.
                opened.members.clear()
                count += 1
                if count > MAX_MEMBERS:
                    raise Bomb(f"it has more than {MAX_MEMBERS:,} members")
                report(_tar_findings(entry, archive))
                if entry.isreg():
                    member = Member(entry.name, entry.size, entry.size)
                    yield member, _tar_bytes(stream, entry.size)
    except tarfile.TarError as error:
        raise Unreadable(f"it is broken: {error}") from error


def _tar_bytes(stream: Unpacked, count: int) -> Iterator[bytes]:
    while count and (data := stream.read(min(count, _CHUNK_BYTES))):
        count -= len(data)
        yield data


def _tar_findings(entry: tarfile.TarInfo, archive: str) -> list[Finding]:
    found = [traversal(entry.name, archive)]
    if entry.issym() or entry.islnk():
        found.append(_link(entry.name, entry.linkname, archive))
    elif not (entry.isreg() or entry.isdir()):
        found.append(
            Finding(
                severity="high",
                kind="special-file",
                file=archive,
                what=f"Its member {entry.name[:120]!r} is a device or a pipe.",
                remedy="Do not unpack this archive.",
            )
        )
    return [wrong for wrong in found if wrong is not None]

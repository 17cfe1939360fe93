"""`.npy` files and `.npz` members, read without ever unpickling and without holding a whole array.

A header is parsed and compared with the size of the file before a single value is read, so a truncated
file, an object array and a zip bomb are found at once. Values are read by position into fresh memory of a
few MiB: mapped pages would count as this process's memory, and a `.npz` cannot be mapped by numpy at all.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from lirastore.errors import SourceError

__all__ = ["SLICE_BYTES", "Npy", "Rows", "open_npy", "open_npz"]

SLICE_BYTES: Final = 4 << 20
"""How much is read at once, a few of which are in flight at a time."""

_CHECKED_BYTES: Final = 1 << 20
_LONGEST_HEADER: Final = 1 << 16
_LARGEST_WHOLE: Final = 4 << 30
_PAGE: Final = 4096
_PAGES_SAMPLED: Final = 16
_READERS: Final[dict[tuple[int, int], tuple[str, Callable[..., Any]]]] = {
    (1, 0): ("<H", np.lib.format.read_array_header_1_0),
    (2, 0): ("<I", np.lib.format.read_array_header_2_0),
}

_Opener = Callable[[], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True)
class Npy:
    """One array on disk: its header, checked against its size, and access to its values by position.

    where: file and member, for messages. `open()` is a context manager that gives a seekable binary file in
    which the first value stands at byte `offset`. A deflated member is best read in ascending order: going
    back starts decompressing again. crc: CRC-32 of a member's bytes, header included; None for a file of its
    own. `load` and `checksums` compare it themselves: zipfile stops doing so once a member was sought in.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int
    open: _Opener
    crc: int | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def load(self) -> NDArray[Any]:
        """The whole array, in native byte order: for masks and labels.

        Raises SourceError above 4 GiB, and for a member whose CRC is wrong.
        """
        if self.nbytes > _LARGEST_WHOLE:
            raise SourceError(
                f"{self.where}: {self.nbytes} bytes, shape {self.shape}, where at most {_LARGEST_WHOLE} "
                "bytes of labels, masks or names are expected; this file is damaged or not what its name "
                "says"
            )
        with self.reading() as file:
            header = file.read(self.offset)
            raw = self._fill(file, self.nbytes)
        self._compare(zlib.crc32(raw, zlib.crc32(header)))
        return self._native(raw).reshape(self.shape, order="F" if self.fortran else "C")

    def step(self, row: tuple[int, ...]) -> int:
        """How many rows of shape `row` make a slice of SLICE_BYTES."""
        return max(1, SLICE_BYTES // max(1, math.prod(row) * self.dtype.itemsize))

    def read(self, file: IO[bytes], start: int, stop: int, row: tuple[int, ...]) -> NDArray[Any]:
        """Rows [start, stop) of the array seen as a sequence of arrays of shape `row`: (stop - start, *row).

        file: what `reading` gave. The values are in native byte order and in memory of their own.
        """
        each = math.prod(row)
        return self._values(file, start * each, (stop - start) * each).reshape(stop - start, *row)

    def rows(self, row: tuple[int, ...]) -> Iterator[tuple[int, NDArray[Any]]]:
        """All rows of shape `row`, a slice at a time: (index of the first, (n, *row) array)."""
        count, step = math.prod(self.shape) // math.prod(row), self.step(row)
        with self.reading() as file:
            for start in range(0, count, step):
                yield start, self.read(file, start, min(start + step, count), row)

    @contextmanager
    def slices(self) -> Iterator[Rows]:
        """This array as one that is read when it is sliced. Raises SourceError for Fortran order."""
        self.require_c_order()
        with self.reading() as file:
            yield Rows(self, file)

    def require_c_order(self) -> Npy:
        """This array, if its rows are stored one after the other. Raises SourceError for Fortran order."""
        if not self.fortran or sum(length > 1 for length in self.shape) < 2:
            return self
        raise SourceError(
            f"{self.where}: the array is in Fortran order, in which one example's values are scattered over "
            "the whole file; save np.ascontiguousarray(array) in its place"
        )

    def fingerprint(self) -> str:
        """Digest of shape, type and pages spread over the whole array: it tells another training run apart.

        Reads 68 KiB whatever the size. Not for members of an archive, which have checksums.
        """
        digest = hashlib.sha256(f"{self.shape} {self.dtype.str}".encode())
        last = max(0, self.nbytes - _PAGE)
        with self.open() as file:
            for page in range(_PAGES_SAMPLED + 1):
                file.seek(self.offset + last * page // _PAGES_SAMPLED)
                digest.update(file.read(_PAGE))
        return f"pages:{digest.hexdigest()[:32]}"

    def checksums(self, count: int, progress: Callable[[int], object]) -> list[str]:
        """Reads a member through and verifies its CRC; a checksum for each of `count` equal parts.

        progress(n) is told of n bytes read. Raises SourceError for a damaged member.
        """
        part, sums = self.nbytes // max(1, count), []
        with self.reading() as file:
            whole = zlib.crc32(file.read(self.offset))
            for _ in range(count):
                value = 0
                for start in range(0, part, _CHECKED_BYTES):
                    block = self._fill(file, min(part - start, _CHECKED_BYTES))
                    whole, value = zlib.crc32(block, whole), zlib.crc32(block, value)
                    progress(len(block))
                sums.append(f"{value:08x}")
        self._compare(whole)
        return sums

    @contextmanager
    def reading(self) -> Iterator[IO[bytes]]:
        """`open`, with an archive's errors told as SourceError."""
        with _archive_errors(self.where), self.open() as file:
            yield file

    def _compare(self, crc: int) -> None:
        if self.crc is not None and crc != self.crc:
            raise SourceError(
                f"{self.where}: damaged (its CRC-32 is {crc:08x}, the archive says {self.crc:08x}); copy or "
                "export it again"
            )

    def _values(self, file: IO[bytes], first: int, count: int) -> NDArray[Any]:
        with _archive_errors(self.where):
            file.seek(self.offset + first * self.dtype.itemsize)
            return self._native(self._fill(file, count * self.dtype.itemsize))

    def _fill(self, file: IO[bytes], nbytes: int) -> bytearray:
        """The next `nbytes` bytes, in memory of their own."""
        raw = bytearray(nbytes)
        view = memoryview(raw)
        while view:
            got = file.readinto(view)  # type: ignore[attr-defined]
            if not got:
                raise SourceError(f"{self.where}: ends {len(view)} bytes early; it was changed meanwhile")
            view = view[got:]
        return raw

    def _native(self, raw: bytearray) -> NDArray[Any]:
        values = np.frombuffer(raw, dtype=self.dtype)
        return values.astype(self.dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True)
class Rows:
    """An array on disk, read when it is sliced along its first axis; `file` is what `reading` gave."""

    array: Npy
    file: IO[bytes]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype.newbyteorder("=")

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        return self.array.read(self.file, start, stop, self.shape[1:])


@contextmanager
def _archive_errors(where: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SourceError(f"{where}: damaged ({error}); copy or export it again") from error


def open_npy(path: Path) -> Npy:
    """The `.npy` file at `path`. SourceError if it is absent, no `.npy`, an object array, or cut short."""
    where = str(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _parse(file, where, size, lambda: path.open("rb"))
    except FileNotFoundError as error:
        raise SourceError(f"{where}: no such file") from error
    except IsADirectoryError as error:
        raise SourceError(f"{where}: a directory, expected a .npy file") from error


def open_npz(path: Path) -> dict[str, Npy]:
    """All members of a `.npz`, by name without `.npy`.

    Raises SourceError for what is no `.npz`, and for encrypted, repeated, foreign or inconsistent members.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members: dict[str, Npy] = {}
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name in members:
                    raise SourceError(f"{path}: holds {info.filename} more than once; write it again")
                members[name] = _open_member(path, archive, info)
            return members
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file") from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
        raise SourceError(
            f"{path}: not a .npz archive, or cut short ({error}); copy or export it again"
        ) from error


def _open_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Npy:
    where = f"{path}[{info.filename}]"
    if not info.filename.endswith(".npy"):
        raise SourceError(f"{where}: expected only .npy members; write the archive with np.savez")
    if info.flag_bits & 0x1:
        raise SourceError(f"{where}: encrypted; write the archive with np.savez")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SourceError(f"{where}: unsupported compression; write it with np.savez or np.savez_compressed")

    @contextmanager
    def open_member() -> Iterator[IO[bytes]]:
        with zipfile.ZipFile(path) as again, again.open(info) as member:
            yield member

    with archive.open(info) as member:
        return _parse(member, where, info.file_size, open_member, info.CRC)


def _parse(file: IO[bytes], where: str, size: int, opener: _Opener, crc: int | None = None) -> Npy:
    shape, fortran, dtype, offset = _read_header(file, where)
    if dtype.hasobject:
        raise SourceError(
            f"{where}: an object array, which holds a pickle and could run any code; it is never loaded: "
            "save the array with a plain numeric type"
        )
    if not dtype.itemsize or dtype.names is not None:
        raise SourceError(f"{where}: type {dtype}, expected plain numbers, bool or text")
    expected = offset + math.prod(shape) * dtype.itemsize
    if size != expected:
        state = "cut short" if size < expected else "too long"
        raise SourceError(
            f"{where}: {state}: {size} bytes, but its header says {dtype} {shape}, which is {expected} "
            "bytes; copy or write it again"
        )
    return Npy(where, shape, dtype, fortran, offset, opener, crc)


def _read_header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """(shape, Fortran order, dtype, offset of the first value). Reads no more than a sane header's length."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in _READERS:
            raise ValueError(f".npy format version {version}")
        width, reader = _READERS[version]
        prefix = file.read(struct.calcsize(width))
        length = int(struct.unpack(width, prefix)[0])
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        text = file.read(length)
        shape, fortran, dtype = reader(io.BytesIO(prefix + text), max_header_size=_LONGEST_HEADER)
    except (
        ValueError,
        TypeError,
        SyntaxError,
        struct.error,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise SourceError(
            f"{where}: not a readable .npy array ({error}); write it again with np.save"
        ) from error
    if any(length < 0 for length in shape):
        raise SourceError(f"{where}: the header gives the shape {shape}; write it again with np.save")
    return shape, fortran, dtype, np.lib.format.MAGIC_LEN + len(prefix) + len(text)

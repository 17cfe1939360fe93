"""`.pt` files that hold one tensor: read without running what a pickle says, and without holding the values.

torch itself says what the tensor is, by `torch.load(weights_only=True)` with the file mapped, which reads no
values. These stand uncompressed in the one record `data/0` of the zip archive that `torch.save` writes, and
are read from there by position like those of a `.npy`.
"""

from __future__ import annotations

import importlib
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from lirastore.errors import MissingDependency, SourceError
from lirastore.importers.npyfile import Npy

__all__ = ["open_tensor"]

_RECORD: Final = re.compile(r"[^/]+/data/\d+")
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")


def open_tensor(path: Path) -> Npy:
    """The tensor in the `.pt` file at `path`.

    Raises SourceError if it is absent, holds anything but one dense tensor of a type that numpy has, or is
    damaged; MissingDependency without torch.
    """
    start, size = _record(path)
    tensor = _load(path)
    torch = _torch()
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
        raise SourceError(
            f"{path}: holds a {type(tensor).__name__}, expected one dense tensor; save it alone"
        )
    try:
        dtype = torch.empty(0, dtype=tensor.dtype).numpy().dtype
    except TypeError as error:
        raise SourceError(
            f"{path}: a tensor of {tensor.dtype}, which numpy lacks; save tensor.float() instead"
        ) from error
    fortran = not tensor.is_contiguous()
    if fortran and not tensor.permute(*reversed(range(tensor.ndim))).is_contiguous():
        raise SourceError(f"{path}: the tensor is a view with gaps; save tensor.contiguous() instead")
    offset = tensor.storage_offset() * dtype.itemsize
    if offset + tensor.numel() * dtype.itemsize > size:
        raise SourceError(f"{path}: cut short; copy or write it again")
    return Npy(
        str(path),
        tuple(tensor.shape),
        np.dtype(dtype).newbyteorder("<"),
        fortran,
        start + offset,
        lambda: path.open("rb"),
    )


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise MissingDependency(
            "torch is not installed, and only torch knows what a .pt file holds: pip install torch"
        ) from error


def _load(path: Path) -> Any:
    try:
        return _torch().load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"{path}: holds more than a tensor: a pickle, which could run any code and is never loaded; save "
            "the tensor alone with torch.save"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise SourceError(f"{path}: not a readable .pt file ({reason}); copy or write it again") from error


def _record(path: Path) -> tuple[int, int]:
    """(position in the file, size in bytes) of the record that has the values."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            records = [info for info in archive.infolist() if _RECORD.fullmatch(info.filename)]
            order = [archive.read(name) for name in names if re.fullmatch(r"[^/]+/byteorder", name)]
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise SourceError(f"{path}: a directory, expected a .pt file") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise SourceError(
            f"{path}: not a .pt file as torch.save has written it since torch 1.6, or cut short ({error}); "
            "copy it again, or save the tensor once more with torch.save"
        ) from error
    if len(records) != 1 or order not in ([], [b"little"]):
        raise SourceError(
            f"{path}: holds {len(records)} tensors{' in another byte order' * (order == [b'big'])}, expected "
            "one dense tensor; save it alone with torch.save"
        )
    return _position(path, records[0]), records[0].file_size


def _position(path: Path, record: zipfile.ZipInfo) -> int:
    """Where a record's bytes begin, by the header that stands before them."""
    with path.open("rb") as file:
        file.seek(record.header_offset)
        header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or record.compress_type != zipfile.ZIP_STORED:
        raise SourceError(f"{path}: its values are compressed; save the tensor once more with torch.save")
    magic, name, extra = _LOCAL_HEADER.unpack(header)
    if magic != b"PK\x03\x04":
        raise SourceError(f"{path}: damaged (no record at {record.header_offset}); copy or write it again")
    return int(record.header_offset + _LOCAL_HEADER.size + name + extra)

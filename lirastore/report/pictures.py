"""Small pictures as PNG data URIs, so that a page needs no other file."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from lirastore.report.content import Pictures

__all__ = ["LARGEST_SIDE", "Sheet", "data_uri", "sheet"]

LARGEST_SIDE = 128  # pixels; larger pictures are thinned, to keep a page of two dozen within a few MB
SHEET_SIDE = 64  # likewise on a sheet of hundreds
_COLUMNS = 20
_KINDS = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's colour types by the number of channels


@dataclass(frozen=True)
class Sheet:
    """Many pictures as one, row by row: `count` of width × height pixels, `columns` in a row."""

    uri: str
    count: int
    columns: int
    width: int
    height: int


def data_uri(picture: Pictures) -> str | None:
    """A picture (H, W, channel) as `data:image/png;base64,…`; None if it has not 1 to 4 channels.

    One channel is grey, two are grey and alpha, three are RGB, four RGB and alpha.
    """
    return _uri(_thinned(picture, LARGEST_SIDE)) if picture.shape[2] in _KINDS else None


def sheet(pictures: Pictures, most: int) -> Sheet | None:
    """The first of many pictures (n, H, W, channel), as many as fit into a data URI of `most` characters.

    None if there is none that fits, or if they have not 1 to 4 channels.
    """
    if pictures.shape[3] not in _KINDS:
        return None
    small = np.stack([_thinned(picture, SHEET_SIDE) for picture in pictures])
    count = len(small)
    while count:
        uri = _uri(_tiled(small[:count]))
        if len(uri) <= most:
            return Sheet(uri, count, min(_COLUMNS, count), small.shape[2], small.shape[1])
        count = min(count - 1, int(count * most / len(uri)))
    return None


def _thinned(picture: Pictures, side: int) -> Pictures:
    stride = -(-max(picture.shape[:2]) // side)
    return picture[::stride, ::stride]


def _tiled(pictures: Pictures) -> Pictures:
    count, height, width, channels = pictures.shape
    columns = min(_COLUMNS, count)
    lines = -(-count // columns)
    padded = np.zeros((lines * columns, height, width, channels), np.uint8)
    padded[:count] = pictures
    grid = padded.reshape(lines, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(lines * height, columns * width, channels)


def _uri(picture: Pictures) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(picture)).decode()


def _png(picture: Pictures) -> bytes:
    """https://www.w3.org/TR/png-3/: one filter for all rows, whichever of none, Sub and Up deflates best."""
    height, width, channels = picture.shape
    before = np.zeros((3, *picture.shape), np.uint8)
    before[1, :, 1:] = picture[:, :-1]
    before[2, 1:] = picture[:-1]
    packed = [
        zlib.compress(np.insert((picture - left).reshape(height, -1), 0, kind, axis=1).tobytes(), 9)
        for kind, left in enumerate(before)
    ]
    header = struct.pack(">IIBBBBB", width, height, 8, _KINDS[channels], 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", min(packed, key=len)), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

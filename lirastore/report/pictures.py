"""Small pictures as PNG data URIs, so that a page needs no other file."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt

__all__ = ["data_uri"]

LARGEST_SIDE = 128  # pixels; larger pictures are thinned, to keep a page of two dozen within a few MB
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> grey, grey + alpha, RGB, RGBA in PNG's numbering


def data_uri(picture: npt.NDArray[np.uint8]) -> str | None:
    """A picture (H, W, channel) as `data:image/png;base64,…`; None if it has not 1 to 4 channels."""
    stride = -(-max(picture.shape[:2]) // LARGEST_SIDE)
    thinned = np.ascontiguousarray(picture[::stride, ::stride], dtype=np.uint8)
    if thinned.shape[2] not in _COLOUR_TYPES:
        return None
    return "data:image/png;base64," + base64.b64encode(_png(thinned)).decode()


def _png(picture: npt.NDArray[np.uint8]) -> bytes:
    height, width, channels = picture.shape
    header = struct.pack(">2I5B", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    rows = np.zeros(
        (height, 1 + width * channels), dtype=np.uint8
    )  # each row starts with its filter: 0, none
    rows[:, 1:] = picture.reshape(height, -1)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

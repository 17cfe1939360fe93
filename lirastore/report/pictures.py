"""Small pictures as PNG data URIs, so that a page needs no other file."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["data_uri"]

LARGEST_SIDE = 128  # pixels; larger pictures are thinned, to keep a page of two dozen within a few MB


def data_uri(picture: npt.NDArray[np.uint8]) -> str | None:
    """A picture (H, W, channel) as `data:image/png;base64,…`; None if it has not 1 to 4 channels.

    One channel is grey, two are grey and alpha, three are RGB, four RGB and alpha.
    """
    stride = -(-max(picture.shape[:2]) // LARGEST_SIDE)
    thinned = picture[::stride, ::stride]
    if not 1 <= thinned.shape[2] <= 4:
        return None
    buffer = io.BytesIO()
    Image.fromarray(thinned[..., 0] if thinned.shape[2] == 1 else thinned).save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

"""Takes batches over from the caller: numpy arrays, and torch tensors on any device.

What is taken is a copy: the caller may reuse its buffer at once. torch is used only if the caller has it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lirastore.errors import InputError

__all__ = ["Batch", "Pending", "as_batch"]

Pending = Callable[[], npt.NDArray[Any]]
"""A copy under way: calling it waits until it is complete and returns it as a contiguous host array."""


class Batch(Protocol):
    """A caller's array: its shape, the bytes of the whole of it once on the host, and copies of its parts."""

    shape: tuple[int, ...]
    nbytes: int

    def copy(self, part: slice) -> Pending:
        """Starts to copy some of its first axis; the caller's buffer is free again when this returns."""
        ...


def as_batch(value: Any, name: str) -> Batch:
    """Wraps what a caller passed as `name`. Raises InputError unless it is a dense array of floats."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _TorchBatch(value, name, torch)
    return _NumpyBatch(value, name)


class _NumpyBatch:
    def __init__(self, value: Any, name: str) -> None:
        masked = sys.modules.get("numpy.ma")  # nobody has a masked array before it is imported
        if masked is not None and isinstance(value, masked.MaskedArray):
            raise InputError(f"{name} is a masked array: fill it first, every value is stored")
        self._array = np.asarray(value)
        if not np.issubdtype(self._array.dtype, np.floating):
            raise InputError(
                f"{name} has dtype {self._array.dtype}: expected float16, float32 or float64; cast it first"
            )
        self.shape = self._array.shape
        self.nbytes = self._array.nbytes

    def copy(self, part: slice) -> Pending:
        copied = np.array(self._array[part], order="C", copy=True)
        return lambda: copied


class _TorchBatch:
    """A torch tensor. Types that numpy lacks (bfloat16, float8) become float32 on the tensor's own device."""

    def __init__(self, tensor: Any, name: str, torch: Any) -> None:
        if not tensor.dtype.is_floating_point:
            raise InputError(f"{name} has dtype {tensor.dtype}: expected a floating dtype; cast it first")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
            raise InputError(
                f"{name} is a tensor of layout {tensor.layout} on device {tensor.device}: expected a dense "
                f"tensor with data"
            )
        self._torch = torch
        self._tensor = tensor.detach()
        native = (torch.float16, torch.float32, torch.float64)
        self._dtype = tensor.dtype if tensor.dtype in native else torch.float32
        self.shape = tuple(tensor.shape)
        self.nbytes = math.prod(self.shape) * self._dtype.itemsize

    def copy(self, part: slice) -> Pending:
        # On the tensor's device and in the order of its stream: what the caller does next cannot change it.
        torch = self._torch
        snapshot = self._tensor[part].to(dtype=self._dtype, copy=True, memory_format=torch.contiguous_format)
        if snapshot.device.type == "cuda":
            return _from_cuda(snapshot, torch)
        copied: npt.NDArray[Any] = snapshot.cpu().numpy()
        return lambda: copied


def _from_cuda(snapshot: Any, torch: Any) -> Pending:
    """Copies to pinned memory on a stream of its own, so that the caller's next batch computes meanwhile."""
    device = snapshot.device
    stream = _side_stream(device, torch)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        host = torch.empty(snapshot.shape, dtype=snapshot.dtype, pin_memory=True)
        host.copy_(snapshot, non_blocking=True)
        copied = torch.cuda.Event(blocking=True)  # the thread that waits for it is not to spin
        copied.record(stream)
    snapshot.record_stream(stream)  # its memory is not reused before the copy is through

    def wait() -> npt.NDArray[Any]:
        with torch.cuda.device(device):  # a thread's own is the first GPU, which may be somebody else's
            copied.synchronize()
        array: npt.NDArray[Any] = host.numpy()
        return array

    return wait


_streams: dict[Any, Any] = {}


def _side_stream(device: Any, torch: Any) -> Any:
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)
    return _streams[device]

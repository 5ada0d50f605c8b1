"""The one place where a caller's images become what the core takes: float32, NCHW, in [0, 1]."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["as_image_tensor", "as_images"]


def as_images(
    images: torch.Tensor | NDArray[np.generic], shape: tuple[int, int, int] | None = None, name: str = "images"
) -> NDArray[np.float32]:
    """`images` as float32 NCHW in [0, 1]; no copy where they are that already (also on the way from a CPU tensor).

    images: (B, C, H, W), uint8 in 0..255 or floating point in [0, 1]; a tensor may lie on any device.
    shape: the (C, H, W) they must have.
    Raises TypeError for another dtype, ValueError for an empty batch, a wrong shape, NaN, infinity or a value outside
    [0, 1]; the message names `name` and says what to do.
    """
    if isinstance(images, torch.Tensor):
        tensor = images.detach()
        if tensor.dtype in (torch.bfloat16, torch.float16):
            tensor = tensor.to(torch.float32)
        array: NDArray[np.generic] = tensor.cpu().numpy()
    else:
        array = np.asarray(images)
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"{name}: expected uint8 in 0..255 or floating point in [0, 1], got dtype {array.dtype}")
    if array.ndim != 4:
        hint = "; add the batch dimension with images[None]" if array.ndim == 3 else ""
        raise ValueError(f"{name}: expected four dimensions (B, C, H, W), got shape {array.shape}{hint}")
    if array.shape[0] == 0:
        raise ValueError(f"{name}: the batch is empty, expected at least one image")
    if shape is not None and array.shape[1:] != shape:
        last = array.shape[1:] == (shape[1], shape[2], shape[0])
        hint = "; the channels come second: use permute(0, 3, 1, 2)" if last else ""
        raise ValueError(f"{name}: expected (B, {shape[0]}, {shape[1]}, {shape[2]}), got {array.shape}{hint}")
    if array.dtype == np.uint8:
        scaled: NDArray[np.float32] = np.divide(array, np.float32(255), dtype=np.float32)
        return scaled
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        first = int(np.flatnonzero(~np.isfinite(array).all(axis=(1, 2, 3)))[0])
        raise ValueError(f"{name}: image {first} holds NaN or infinity")
    if low < 0 or high > 1:
        if low >= 0 and high <= 255:
            hint = "these look like 0..255: give them as uint8, or divide by 255"
        else:
            hint = "these look normalised: give images in [0, 1] and pass mean= and std= to Diffence"
        raise ValueError(f"{name}: expected values in [0, 1], got {low:.4g} to {high:.4g}; {hint}")
    return np.ascontiguousarray(array, dtype=np.float32)


def as_image_tensor(
    images: torch.Tensor | NDArray[np.generic],
    device: torch.device,
    shape: tuple[int, int, int] | None = None,
    name: str = "images",
) -> torch.Tensor:
    """`as_images` as a contiguous tensor on `device`; images that lie there already are checked there and not moved."""
    there = isinstance(images, torch.Tensor) and images.device == device and device.type != "cpu"
    if isinstance(images, torch.Tensor) and there and images.ndim == 4 and images.numel():
        right = shape is None or images.shape[1:] == shape
        if right and images.dtype == torch.uint8:
            # By a tensor: torch multiplies by the reciprocal of a number, and a last digit decides about the noise.
            return (images.detach().float() / torch.full((), 255.0, device=device)).contiguous()
        if right and images.is_floating_point():
            low, high = (float(end) for end in images.detach().aminmax())
            if low >= 0 and high <= 1:
                return images.detach().float().contiguous()
    return torch.from_numpy(as_images(images, shape, name)).to(device)  # what is wrong has its message there

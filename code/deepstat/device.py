"""Where to compute: the best device at hand, or the one that is named.

Chapter: foundations/pytorch.
"""

import torch


def _available(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available() and not device.index
    return device.type == "cpu" and not device.index


def pick(name: str | None = None) -> torch.device:
    """The named device, or else the first that is there of ``cuda``, ``mps`` and ``cpu``.

    Args:
        name: such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; the best available one if not given.

    Returns:
        The device, for ``model.to(device)`` or ``torch.zeros(3, device=device)``.

    Raises:
        TypeError: if ``name`` is not a string.
        ValueError: if there is no such device, here or anywhere.
    """
    choices = [torch.device(kind) for kind in ("cuda", "mps", "cpu")]
    here = [device for device in choices if _available(device)]
    if name is None:
        return here[0]
    if not isinstance(name, str):
        raise TypeError(f"name must be a string or None, got {type(name).__name__}")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not _available(device):
        raise ValueError(f"name must be a device of this machine ({', '.join(map(str, here))}), got {name!r}")
    return device

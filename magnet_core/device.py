"""Where tensors are computed: `auto` takes the first CUDA device if there is one."""

import torch

from magnet_core.errors import MagnetError

# The encoder's arithmetic by name; weights stay in float32, autocast does the rest. `auto` is resolved by device.
PRECISIONS: dict[str, torch.dtype | None] = {
    "auto": None,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def pick_device(name: str = "auto") -> torch.device:
    """Return the torch device of a name such as auto, cpu, cuda or cuda:1.

    On the CPU, numbers too small to be normal count as zero: the optimiser's moments are full of them, and arithmetic
    on them takes many times as long.
    """
    torch.set_flush_denormal(True)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise MagnetError(
            "--device", expected="auto, cpu, cuda or cuda:N", found=f"'{name}'", remedy="choose one of them"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MagnetError(
            "--device", expected="a CUDA device", found="none that torch can use", remedy="use --device cpu"
        )
    return device


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Widen half precision: sums over hundreds of genes lose too much in float16 and bfloat16."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a tensor; pinned on the way to a GPU, so that the copy does not wait."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def pick_precision(name: str, device: torch.device) -> str:
    """Resolve `auto`: bf16 on CUDA, fp32 elsewhere."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" else "fp32"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which an encoder runs at a precision of `PRECISIONS`."""
    dtype = PRECISIONS[pick_precision(precision, device)]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)

"""Where tensors are computed: `auto` takes the first CUDA device if there is one."""

import torch

from magnet_core.errors import MagnetError


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

"""How much of an encoder is trained: all of it, its last blocks, low-rank adapters beside its weights, or nothing.

In: an `Encoder` and a `TuningConfig`. Out: the same encoder, changed in place. The paper (section 3) fine-tunes the
whole ResNet50 of the bin level; of a ViT of 300 million and more parameters a few slides can tune only a part.
"""

import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from magnet_core.backbones.encoder import Encoder
from magnet_core.errors import MagnetError
from magnet_core.settings.tuning import Mode, TuningConfig

# B rows, C features in, D features out, R rank


class LowRankLinear(nn.Module):
    """A linear layer with a trained term beside its fixed weights: base(x) + up(down(x)) (LoRA, Hu et al. 2022).

    The scale alpha/R is 1. `up` starts at zero, so that the layer starts as it was. Some models (BEiT, EVA) read weight
    and bias past `forward`; they find the sum of both terms.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        like = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.down = nn.Linear(base.in_features, rank, bias=False, **like)
        self.up = nn.Linear(rank, base.out_features, bias=False, **like)
        nn.init.zeros_(self.up.weight)

    @property
    def weight(self) -> Tensor:
        """The weight (D, C) of the one linear layer that does the same."""
        return self.base.weight + self.up.weight @ self.down.weight

    @property
    def bias(self) -> Tensor | None:
        """The bias (D,) of the layer."""
        return self.base.bias

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows (B, C) to (B, D)."""
        mapped: Tensor = self.base(rows) + self.up(self.down(rows))
        return mapped


def tune(encoder: Encoder, config: TuningConfig) -> None:
    """Set which parameters are trained, and for `lora` put in the adapters, drawn from torch's global seed.

    Below the first trained block nothing asks for a gradient, so that autograd keeps no activations there. Tuning
    again replaces the choice, except that adapters have to be merged first.
    """
    if any(isinstance(module, LowRankLinear) for module in encoder.modules()):
        raise MagnetError(
            f"encoder '{encoder.spec.name}'",
            expected="one without adapters",
            found="the adapters of an earlier tuning",
            remedy="merge them first",
        )
    chosen = _MODES[config.mode](encoder, config)
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_(True)


@torch.no_grad()
def merge(encoder: Encoder) -> None:
    """Fold the adapters into the weights: same outputs, and the state dict of an encoder that never had any."""
    for name, module in list(encoder.named_modules()):
        if isinstance(module, LowRankLinear):
            module.base.weight.copy_(module.weight)
            encoder.set_submodule(name, module.base, strict=True)


def _full(encoder: Encoder, _config: TuningConfig) -> list[nn.Parameter]:
    return list(encoder.parameters())


def _frozen(_encoder: Encoder, _config: TuningConfig) -> list[nn.Parameter]:
    return []


def _last(encoder: Encoder, config: TuningConfig) -> list[nn.Parameter]:
    blocks = _block_of_parameter(encoder)
    num_blocks = max(blocks.values())
    if config.last_blocks > num_blocks:
        raise MagnetError(
            f"encoder '{encoder.spec.name}', last_blocks",
            expected=f"at most its {num_blocks} blocks",
            found=f"{config.last_blocks}",
            remedy="lower it, or set mode=full",
        )
    first = num_blocks - config.last_blocks + 1
    return [parameter for name, parameter in encoder.model.named_parameters() if blocks[name] >= first]


def _lora(encoder: Encoder, config: TuningConfig) -> list[nn.Parameter]:
    blocks = _block_of_parameter(encoder)
    linears = {
        name: module
        for name, module in encoder.model.named_modules()
        if isinstance(module, nn.Linear) and blocks.get(f"{name}.weight", 0) > 0
    }
    if not linears:
        raise MagnetError(
            f"encoder '{encoder.spec.name}', mode lora",
            expected="linear layers in its blocks",
            found="none: its blocks are convolutions",
            remedy="set mode=last",
        )
    adapters = {name: LowRankLinear(linear, config.lora_rank) for name, linear in linears.items()}
    for name, adapter in adapters.items():
        encoder.model.set_submodule(name, adapter, strict=True)
    return [
        parameter
        for adapter in adapters.values()
        for parameter in (*adapter.down.parameters(), *adapter.up.parameters())
    ]


_MODES: dict[Mode, Callable[[Encoder, TuningConfig], list[nn.Parameter]]] = {
    "full": _full,
    "last": _last,
    "lora": _lora,
    "frozen": _frozen,
}


def _block_of_parameter(encoder: Encoder) -> dict[str, int]:
    """Which block each parameter of the timm model belongs to: 0 the stem, then 1, 2, … from the input on.

    The blocks are those of timm's layer-wise learning rates (`group_matcher`): patterns of names whose groups are the
    numbers of a block, with a constant (99999 for what belongs to the block before) behind them. What no pattern names
    comes after the last block and counts with it, except the model's own tokens and embeddings.
    """
    matcher = encoder.model.group_matcher(coarse=False) if hasattr(encoder.model, "group_matcher") else None
    if not isinstance(matcher, dict) or "blocks" not in matcher:
        raise MagnetError(
            f"encoder '{encoder.spec.name}'",
            expected="an architecture whose blocks timm names",
            found=type(encoder.model).__name__,
            remedy="set mode=full or mode=frozen",
        )
    stem, blocks = list(_patterns(matcher.get("stem"))), list(_patterns(matcher["blocks"]))
    places = {name: _place(name, stem, blocks) for name, _ in encoder.model.named_parameters()}
    starts = sorted({place for place in places.values() if place and place[-1] != _WITH_THE_BLOCK_BEFORE})
    return {name: sum(start <= place for start in starts) for name, place in places.items()}


_WITH_THE_BLOCK_BEFORE = 99999  # timm's MATCH_PREV_GROUP
Pattern = tuple[str, tuple[int, ...] | None]


def _patterns(entry: str | list[Pattern] | tuple[Pattern, ...] | None) -> Iterator[Pattern]:
    if isinstance(entry, str):
        yield entry, None
    else:
        yield from entry or ()


def _place(name: str, stem: list[Pattern], blocks: list[Pattern]) -> tuple[float, ...]:
    """Return a parameter's place in the order of the blocks: () for the stem, otherwise the numbers in its name."""
    if any(re.match(pattern, name) for pattern, _ in stem):
        return ()
    for pattern, suffix in blocks:
        if match := re.match(pattern, name):
            return (*(float(number) for number in match.groups() if number is not None), *(suffix or ()))
    return (float("inf"), _WITH_THE_BLOCK_BEFORE) if "." in name else ()

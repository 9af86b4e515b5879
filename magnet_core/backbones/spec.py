"""What has to be known of a backbone before it is built."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from magnet_core.errors import MagnetError

Pooling = Literal["model", "cls", "cls+mean", "avg"]
POOLINGS = ("model", "cls", "cls+mean", "avg")


@dataclass(frozen=True)
class BackboneSpec:
    """One row of the backbone table.

    name           as users type it after --backbone
    architecture   the timm model that holds the weights; built without any network
    hub_id         where `--weights pretrained` finds the weights on the Hugging Face hub, None if nowhere
    revision       branch, tag or commit there; None is the newest. In no fingerprint: the weights have their own
    kwargs         handed to timm.create_model beside num_classes=0; layers may stand by name (`architecture.LAYERS`)
    input_px       side every patch is resized to before the encoder; None takes patches as they are cut, or at the
                   one size a model with fixed position embeddings was built for
    mean, std      channel normalisation; None takes timm's for this architecture
    pooling        how the pooled feature is made, as the weights' authors do it: the class token `cls`; the class
                   token beside the mean of the patch tokens `cls+mean`; the mean of the feature map `avg`; or
                   `model`, whatever the timm model does by itself
    width          number of features D; None where only the built model tells
    patch_tokens   patch tokens of one image at `input_px`, without class and register tokens; None where it varies
    prefix_tokens  class and register tokens before them
    licence        of the weights; what it extends to is in `cards.py`, whether they are gated the hub says
    """

    name: str
    architecture: str
    hub_id: str | None = None
    revision: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    input_px: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    pooling: Pooling = "model"
    width: int | None = None
    patch_tokens: int | None = None
    prefix_tokens: int = 0
    licence: str = "see the model's page"

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise MagnetError(
                f"backbone '{self.name}', pooling",
                expected=f"one of {', '.join(POOLINGS)}",
                found=f"'{self.pooling}'",
                remedy="correct the spec",
            )

    @property
    def pinned_name(self) -> str:
        """Return what to type to get the same again: the name, with the revision where there is one."""
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @property
    def page(self) -> str:
        """Return the page where the weights are described and, where they are gated, asked for."""
        return f"https://huggingface.co/{self.hub_id}" if self.hub_id else "the model's own page"

    @property
    def settings(self) -> dict[str, Any]:
        """All of the spec that decides a feature beside the weights, as JSON takes it: for fingerprints."""
        return {
            "architecture": self.architecture,
            "kwargs": {key: _plain(value) for key, value in self.kwargs.items()},
            "input_px": self.input_px,
            "mean": self.mean and list(self.mean),
            "std": self.std and list(self.std),
            "pooling": self.pooling,
        }


def _plain(value: Any) -> Any:
    """Return layers by their names, as timm takes them (a class, or a class with some arguments), the rest as it is."""
    if isinstance(value, partial):
        return {"layer": _plain(value.func), **{key: _plain(argument) for key, argument in value.keywords.items()}}
    return value.__name__ if isinstance(value, type) else value

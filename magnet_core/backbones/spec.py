"""What has to be known of a backbone before it is built."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class BackboneSpec:
    """One row of the backbone table.

    name         as users type it after --backbone
    architecture the timm model that holds the weights; built without any network
    hub_id       where `--weights pretrained` finds the weights on the Hugging Face hub, None if nowhere
    kwargs       handed to timm.create_model beside num_classes=0
    input_px     side every patch is resized to before the encoder; None takes patches as they are cut
    mean, std    channel normalisation; None takes timm's for this architecture
    licence      of the weights; `gated` weights have to be asked for at `page`
    """

    name: str
    architecture: str
    hub_id: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    input_px: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    licence: str = "see the model's page"
    gated: bool = False

    @property
    def page(self) -> str:
        """Return the page where the weights are described and, if gated, asked for."""
        return f"https://huggingface.co/{self.hub_id}" if self.hub_id else "the model's own page"

"""How a run's features were made, so that those of a slide that is in no store can be made alike.

In: the headers of a slide's geometry and features. Out: `StageOne`, which a run records.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from magnet_core.files import plain_json
from magnet_core.units import WORKING_MPP

STAIN = "stain"
LAID = ("neighbours", "context_hops", "bin_patch_um", "spot_patch_um", "region_patch_um", STAIN)


@dataclass(frozen=True)
class StageOne:
    """What decided the features that a run was trained on, beside the slides.

    laid      settings of the geometry that hold for every slide, `LAID`
    backbone  of the frozen encoder
    settings  of the features: encoder, checksum of its weights, tokens, own squares, precision
    weights   where those weights were taken from, see `extract.pipeline.features_header`
    """

    laid: Mapping[str, Any]
    backbone: str
    settings: Mapping[str, Any]
    weights: Mapping[str, Any]

    @classmethod
    def of(cls, laid_with: Mapping[str, Any], features_header: Mapping[str, Any]) -> Self | None:
        """Return what the headers say; None of features that stage one has not made."""
        weights, settings = features_header.get("weights", {}), features_header.get("settings", {})
        if weights.get("source", "imported") == "imported" or "weights_sha256" not in settings:
            return None
        laid = {name: laid_with[name] for name in LAID if name in laid_with}
        return cls(laid, features_header["backbone"], dict(settings), dict(weights))

    @property
    def working_mpp(self) -> float:
        """µm/px at which patches reached the encoder."""
        return float(self.settings.get("working_mpp", WORKING_MPP))

    def decides(self) -> dict[str, Any]:
        """Return all that decides a feature: where weights were taken from does not, and views are beside the first."""
        settings = {name: value for name, value in self.settings.items() if name != "views"}
        return {"laid": plain_json(dict(self.laid)), "backbone": self.backbone, "settings": plain_json(settings)}

    def plain(self) -> dict[str, Any]:
        """Return what a run records."""
        return {each.name: plain_json(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def from_plain(cls, recorded: Mapping[str, Any]) -> Self:
        """Return what a run has recorded."""
        return cls(recorded["laid"], recorded["backbone"], recorded["settings"], recorded["weights"])

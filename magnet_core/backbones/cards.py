"""What is stated of each backbone beyond what the code needs, each cell with the page where it was read.

Out: a card for every name of the table (`table.BACKBONES`), for `extract backbones NAME` and docs/backbones.md, which a
test compares with it. A cell that no source supports says "not stated" and has none. Licences and gates change: what
counts is the model's page on the day, and for a gate the hub's answer (`hub.py`). Imports nothing that takes long.
"""

from dataclasses import dataclass

from magnet_core.backbones.spec import BackboneSpec


@dataclass(frozen=True)
class Cell:
    """A fact in a few words, and the address of the page where it was read; none where nothing is stated."""

    text: str
    source: str = ""


NOT_STATED = Cell("not stated")


@dataclass(frozen=True)
class Card:
    """What is stated of one backbone.

    resolution      µm/px or magnification that the weights were trained at, or that their authors ask for
    licence_source  where `BackboneSpec.licence` was read
    extends         what the terms say of features, of models trained on them, and of copies
    scope           what the authors publish the weights for
    gate            what the page asked for when it was read
    input_source    where the input size was read, `normalisation_source` mean and sd, `pooling_source` the pooling
    practice        how TRIDENT, a public tool that computes features with these models, pools them
    """

    resolution: Cell = NOT_STATED
    licence_source: str = ""
    extends: Cell = NOT_STATED
    scope: Cell = NOT_STATED
    gate: Cell = NOT_STATED
    input_source: str = ""
    normalisation_source: str = ""
    pooling_source: str = ""
    practice: Cell = NOT_STATED


POOLED = {
    "cls": "class token",
    "cls+mean": "class token, mean of patch tokens",
    "avg": "mean of the feature map",
    "model": "as timm does by itself",
}


def card_of(spec: BackboneSpec) -> Card:
    """Return the card of a backbone; an empty one for what is not in the table."""
    return CARDS.get(spec.name, Card())


def cells(spec: BackboneSpec) -> dict[str, Cell]:
    """Return every cell of a backbone by its title: those of its card, and those that its spec holds for the code."""
    card = card_of(spec)
    return {
        "Training resolution": card.resolution,
        "Input": Cell(_input(spec), card.input_source),
        "Mean and sd": Cell(_normalisation(spec), card.normalisation_source),
        "Pooled feature": Cell(POOLED[spec.pooling], card.pooling_source),
        "Benchmark code": card.practice,
        "Licence": Cell(spec.licence, card.licence_source),
        "Extends to": card.extends,
        "Scope of use": card.scope,
        "Gate": card.gate,
    }


def _input(spec: BackboneSpec) -> str:
    return "patches as they are cut" if spec.input_px is None else f"{spec.input_px} px"


def _normalisation(spec: BackboneSpec) -> str:
    if spec.mean is None or spec.std is None:
        return "timm's for this architecture"
    return f"({_numbers(spec.mean)}), ({_numbers(spec.std)})"


def _numbers(values: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


_HUB = "https://huggingface.co"
_UNI = "https://github.com/mahmoodlab/UNI"
_TRIDENT = "https://github.com/mahmoodlab/TRIDENT"
_TRIDENT_ENCODERS = f"{_TRIDENT}/blob/main/trident/patch_encoder_models/load.py"
_GIGAPATH = "https://github.com/prov-gigapath/prov-gigapath"
_H_OPTIMUS_0 = "https://github.com/bioptimus/releases/blob/main/models/h-optimus/v0/README.md"
_MIDNIGHT = "https://github.com/kaiko-ai/Midnight"
_HIBOU = "https://github.com/HistAI/hibou"
_RECIPES = "https://ramonkaspar.github.io/wsistream/recipes"  # which reads the papers' methods

_CLASS_TOKEN = Cell("class token", _TRIDENT_ENCODERS)
_NONE_SEEN = "none seen"


def _mahmood_lab(model: str) -> dict[str, Cell]:
    return {
        "extends": Cell(
            f"models trained on outputs of {model}, and data sets made from it, are its derivatives: their commercial "
            "use, sale or other monetisation is prohibited without prior approval; no copy may be passed on",
            _UNI,
        ),
        "scope": Cell("non-commercial, academic research, with attribution", _UNI),
        "gate": Cell("registration", _UNI),
    }


def _torchvision(name: str) -> Card:
    page = f"{_HUB}/timm/{name}.tv_in1k"
    return Card(
        resolution=Cell("natural images", page),
        licence_source=page,
        gate=Cell(_NONE_SEEN, page),
    )


CARDS: dict[str, Card] = {
    "resnet50": _torchvision("resnet50"),
    "resnet18": _torchvision("resnet18"),
    "uni": Card(
        resolution=Cell("20× (0.5 µm/px)", f"{_RECIPES}/uni/"),
        licence_source=_UNI,
        input_source=_UNI,
        normalisation_source=_UNI,
        pooling_source=_UNI,
        practice=_CLASS_TOKEN,
        **_mahmood_lab("UNI"),
    ),
    "uni2-h": Card(
        licence_source=_UNI,
        input_source=_UNI,
        normalisation_source=_UNI,
        pooling_source=_UNI,
        practice=_CLASS_TOKEN,
        **_mahmood_lab("UNI2-h"),
    ),
    "virchow2": Card(
        resolution=Cell("5×, 10×, 20×, 40×", f"{_RECIPES}/virchow/"),
        licence_source=f"{_HUB}/paige-ai/Virchow2/tree/main",
        extends=Cell(
            "models trained on outputs of Virchow2, and data sets made from it, are its derivatives: their commercial "
            "use, sale or other monetisation is prohibited without prior approval; no copy may be passed on",
            f"{_HUB}/paige-ai/Virchow2/tree/main",
        ),
        scope=Cell("non-commercial, academic research, with attribution", f"{_HUB}/paige-ai/Virchow2/tree/main"),
        gate=Cell("registration", f"{_HUB}/paige-ai/Virchow2/tree/main"),
        input_source=_TRIDENT_ENCODERS,
        normalisation_source=_TRIDENT_ENCODERS,
        pooling_source=f"{_MIDNIGHT}/blob/main/eval/backbones.py",
        practice=Cell("class token, mean of patch tokens; PRISM2 takes the class token alone", _TRIDENT_ENCODERS),
    ),
    "h-optimus-0": Card(
        resolution=Cell("0.5 µm/px", _H_OPTIMUS_0),
        licence_source=_H_OPTIMUS_0,
        scope=Cell(
            "no restriction stated; as it is, approved by no regulator, to be validated before any use in care",
            f"{_HUB}/bioptimus/H-optimus-0",
        ),
        gate=Cell("none, later a form", f"{_HUB}/bioptimus/H-optimus-0"),
        input_source=_H_OPTIMUS_0,
        normalisation_source=_H_OPTIMUS_0,
        pooling_source=_H_OPTIMUS_0,
        practice=_CLASS_TOKEN,
    ),
    "h-optimus-1": Card(
        resolution=Cell("0.5 µm/px", "https://docs.bioptimus.com/guides/reference/wsi-reader"),
        licence_source=_TRIDENT,
        gate=Cell("request", f"{_HUB}/bioptimus/H-optimus-1/discussions/21"),
        input_source=_TRIDENT_ENCODERS,
        normalisation_source=_TRIDENT_ENCODERS,
        pooling_source=_TRIDENT_ENCODERS,
        practice=_CLASS_TOKEN,
    ),
    "prov-gigapath": Card(
        resolution=Cell("0.5 µm/px", f"{_GIGAPATH}/blob/main/demo/1_slide_mpp_check.py"),
        licence_source=f"{_HUB}/prov-gigapath/prov-gigapath-flash/blob/main/README.md",
        extends=Cell(
            "Apache-2.0 is what the page of a later model of its makers states, as its own was not open to us; the "
            "licence beside its code, which names models too, is another: research without commerce or revenue, "
            "no copy passed on, results may be published without a substantial part of the model",
            f"{_GIGAPATH}/blob/main/LICENSE",
        ),
        scope=Cell(
            "research on pathology foundation models and reproduction of the paper; any deployed use, commercial or "
            "not, and any clinical use or decision is out of scope",
            _GIGAPATH,
        ),
        gate=Cell("terms to accept", f"{_HUB}/prov-gigapath/prov-gigapath"),
        input_source=_GIGAPATH,
        normalisation_source=_GIGAPATH,
        pooling_source=f"{_MIDNIGHT}/blob/main/eval/hest_bench_config.yaml",
        practice=_CLASS_TOKEN,
    ),
    "phikon-v2": Card(
        resolution=Cell("20× (0.5 µm/px)", f"{_RECIPES}/phikon/"),
        licence_source=f"{_HUB}/owkin/phikon-v2/commit/419e8285b80eac3b60beca0d9b91942d48ad7b8e",
        extends=Cell(
            "of its own licence not stated; that of the first Phikon, to which its page pointed at first, binds "
            "derivative works and any results of use to non-commercial ends of non-profit bodies, and is passed on "
            "with them",
            "https://github.com/owkin/HistoSSLscaling/blob/main/LICENSE.txt",
        ),
        gate=Cell(_NONE_SEEN, _TRIDENT),
        input_source=_TRIDENT_ENCODERS,
        normalisation_source=_TRIDENT_ENCODERS,
        pooling_source=_TRIDENT_ENCODERS,
        practice=_CLASS_TOKEN,
    ),
    "hibou-l": Card(
        licence_source=_HIBOU,
        gate=Cell("terms to accept", _TRIDENT),
        input_source=_TRIDENT_ENCODERS,
        normalisation_source=f"{_MIDNIGHT}/blob/main/eval/hest_bench_config.yaml",
        pooling_source=f"{_MIDNIGHT}/blob/main/eval/hest_bench_config.yaml",
        practice=Cell("class token, as the model pools by itself", _TRIDENT_ENCODERS),
    ),
    "midnight-12k": Card(
        resolution=Cell("0.25, 0.5, 1, 2 µm/px", f"{_RECIPES}/midnight/"),
        licence_source=_MIDNIGHT,
        scope=Cell("commercial use is permitted", _MIDNIGHT),
        gate=Cell(_NONE_SEEN, _MIDNIGHT),
        input_source=f"{_HUB}/kaiko-ai/midnight",
        normalisation_source=f"{_HUB}/kaiko-ai/midnight",
        pooling_source=_MIDNIGHT,
        practice=Cell("class token alone, unless class token and mean are asked for", _TRIDENT_ENCODERS),
    ),
}

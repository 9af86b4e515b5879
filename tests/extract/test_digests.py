"""Each setting of a run, changed alone: the digests of geometry and features change if and only if the bytes could."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from cache.fingerprint import digest
from extract.config import OUTPUT_NEUTRAL, RunConfig
from extract.geometry import geometry_settings
from extract.pipeline import embedding_settings, features_header
from magnet_core.backbones.encoder import build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.records import Sample
from magnet_core.settings import nested

WEIGHTS = "other.safetensors"  # beside the image
BASE = {"embedding": {"backbone": "timm:test_convnext", "weights": "random", "precision": "fp32"}}
CHANGED: dict[str, Any] = {
    "samples": "other.csv",
    "store": "other",
    "slides": ["S1"],
    "device": "cpu",
    "batch_size": 65,
    "workers": 3,
    "compile": True,
    "pixels": False,
    "geometry.targets": [8, 55],
    "stain": "matched",
    "working_mpp": 0.5,
    "geometry.sampling": "all",
    "geometry.bins": 6001,
    "geometry.spots": 2501,
    "geometry.window": 25,
    "geometry.neighbours": 9,
    "geometry.context_hops": 3,
    "geometry.bin_patch_um": 29.0,
    "geometry.spot_patch_um": 57.0,
    "geometry.region_patch_um": 129.0,
    "geometry.seed": 1,
    "embedding.backbone": "timm:test_vit",
    "embedding.weights": WEIGHTS,
    "embedding.weights_sha256": "0" * 64,
    "embedding.token_grid": 5,
    "embedding.own": 1,
    "embedding.views": 8,
    "embedding.precision": "bf16",
    "embedding.seed": 1,
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A slide, beside its image a checkpoint of other weights than those of `BASE`."""
    folder = tmp_path_factory.mktemp("slide")
    (folder / "image.tif").write_bytes(b"pixels")
    encoder = build_encoder(find_backbone("timm:test_convnext"), "random", seed=9)
    state = {name: tensor.contiguous() for name, tensor in encoder.model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    return Sample("S1", folder / "image.tif")


def digests(sample: Sample, config: RunConfig) -> tuple[str, str]:
    """The digests of the geometry and of the features that a run would write."""
    of_encoder = config.embedding
    encoder = build_encoder(find_backbone(of_encoder.backbone), of_encoder.weights, seed=of_encoder.seed)
    settings = geometry_settings(sample, config)
    return digest(settings), features_header(embedding_settings(config, encoder), settings, config)["digest"]


def test_every_setting_is_among_those_that_are_changed_here() -> None:
    plain = RunConfig().plain()
    tables = ("geometry", "embedding")
    names = {f"{table}.{name}" for table in tables for name in plain[table]} | (plain.keys() - {*tables})
    assert names == CHANGED.keys()
    assert names >= {*OUTPUT_NEUTRAL}


@pytest.mark.parametrize("name", CHANGED)
def test_digests_change_with_what_is_not_neutral(name: str, sample: Sample) -> None:
    before = RunConfig.build(BASE, where="test")
    value = str(sample.image.parent / WEIGHTS) if CHANGED[name] == WEIGHTS else CHANGED[name]
    after = before.changed(**nested({name: value}, where="test"))
    geometry, features = (
        one != other for one, other in zip(digests(sample, before), digests(sample, after), strict=True)
    )
    assert geometry == (name.startswith("geometry.") or name in ("stain", "working_mpp"))  # of stored pixels, too
    assert features == (name not in OUTPUT_NEUTRAL)


def test_digests_are_those_of_the_first_release(sample: Sample) -> None:
    config = RunConfig.build(BASE, where="test")
    encoder = build_encoder(find_backbone("timm:test_convnext"), "random")
    assert geometry_settings(sample, config)["schema"] == embedding_settings(config, encoder)["schema"] == 1
    assert digest(geometry_settings(sample, config)) == "4bbb4917804e"


def test_a_pinned_revision_of_the_same_weights_is_in_no_digest_and_told_to_stage_two(sample: Sample) -> None:
    config = RunConfig.build(BASE, where="test")
    pinned = config.changed(embedding={"backbone": "timm:test_convnext@v1", "weights_sha256": "0" * 64})
    assert digests(sample, pinned) == digests(sample, config)
    header, before = (
        features_header(each.deciding("embedding"), geometry_settings(sample, each), each) for each in (pinned, config)
    )
    assert header["weights"] == {"source": "random", "seed": 0, "revision": "v1", "sha256": "0" * 64}
    assert before["weights"] == {"source": "random", "seed": 0}
    assert header | {"weights": before["weights"]} == before


def test_the_path_of_equal_weights_is_in_no_digest(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "copy.safetensors").write_bytes((sample.image.parent / WEIGHTS).read_bytes())
    config = RunConfig.build(BASE, where="test")
    one, other = (
        config.changed(embedding={"weights": str(path)})
        for path in (sample.image.parent / WEIGHTS, tmp_path / "copy.safetensors")
    )
    assert digests(sample, one) == digests(sample, other)

"""What a device computes is what the CPU does: each test runs on the CPU, and on a GPU where there is one.

The arithmetic is float32 on both; convolutions may be computed in TF32 on a GPU, whose relative error is some 1e-3.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cache.knn import cosine_neighbours, knn_edges
from cache.store import Store
from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
from extract.pipeline import run
from extract.synthetic.config import SynthConfig
from extract.synthetic.dataset import synthesise
from magnet_core.backbones.encoder import build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.backbones.own_square import OwnSquare
from magnet_core.device import to_device
from magnet_core.losses import magnet_loss
from tests.train.setting import config, labels_of, parts
from train.data.subgraph import SubgraphSpec, build_batch
from train.data.three_levels import three_level_features
from train.learning.checkpoint import go_on, read_checkpoint, write_checkpoint
from train.model.placement import place_features
from train.model.whole_slide import predict_slide

BACKBONE = "timm:test_convnext"
NEAR = 0.05  # of a standard deviation, at the worst; what is of another row or patch is apart by about 1


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, then the GPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One small slide, extracted on the CPU."""
    folder = tmp_path_factory.mktemp("device")
    samples = synthesise(folder / "data", SynthConfig(slides=1, seed=2, size_mm=0.4, genes=60))
    return extracted(samples, folder / "store", "cpu")


def extracted(samples: Path, store: Path, device: str) -> Store:
    settings = RunConfig(
        samples=samples,
        store=store,
        geometry=GeometryConfig(targets=(8,), bins=100, spots=20, window=10),
        embedding=EmbeddingConfig(backbone=BACKBONE, weights="random", token_grid=2, precision="fp32"),
        device=device,
    )
    assert run(settings).failed == {}
    return Store(store)


def test_a_tensor_arrives_as_it_was(device: torch.device) -> None:
    values = torch.arange(1000)
    moved = to_device(values, device)
    assert moved.device.type == device.type
    torch.testing.assert_close(moved.cpu(), values, rtol=0, atol=0)


@pytest.mark.parametrize("side_um", [100.0, 6000.0])
def test_neighbours_on_a_plane_are_the_same(device: torch.device, side_um: float) -> None:
    points_um = np.round(np.random.default_rng(0).uniform(0, side_um, (3000, 2)))  # many of them equally far apart
    np.testing.assert_array_equal(knn_edges(points_um, 8, device=str(device)), knn_edges(points_um, 8))


def test_the_most_alike_features_are_the_same(device: torch.device) -> None:
    rng = np.random.default_rng(0)
    queries, keys = rng.standard_normal((50, 64)), rng.standard_normal((500, 64))
    expected, cosines = cosine_neighbours(queries, keys, 5)
    found, ours = cosine_neighbours(queries, keys, 5, device=str(device))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(ours, cosines, atol=1e-5)


@pytest.mark.parametrize("backbone", ["timm:test_resnet", "timm:test_vit"])
def test_an_encoder_sees_the_same(device: torch.device, backbone: str) -> None:
    encoder = build_encoder(find_backbone(backbone), "random")
    patches = torch.randint(0, 256, (4, 112, 112, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    own = OwnSquare(8 / 28, 2)
    with torch.inference_mode():
        expected = encoder(patches, 2, own=own)
        found = encoder.to(device)(patches.to(device), 2, own=own)
    for kind in ("pooled", "tokens", "own"):
        values = getattr(expected, kind)
        torch.testing.assert_close(getattr(found, kind).cpu(), values, rtol=0, atol=NEAR * float(values.std()))


def test_features_that_a_training_holds_on_a_device_are_where_the_next_system_asks_for_them(
    device: torch.device, store: Store, tmp_path: Path
) -> None:
    slide, predictor = parts(store, config(store, tmp_path, "encoder.mode=frozen"))
    place_features(predictor.to(device), [slide], "always")
    rows = np.arange(0, len(slide.fine), 3)
    for asked in (torch.device("cpu"), device, torch.device("meta")):
        assert slide.fine.features("fine", rows, device=asked).device.type == asked.type
    assert three_level_features(slide).isfinite().all()  # of a plain baseline, on the CPU


@pytest.mark.parametrize("settings", [["encoder.mode=frozen"], ["compute.micro_batch=10", "compute.precision=fp32"]])
def test_a_step_has_the_same_loss_and_a_gradient_for_every_parameter(
    device: torch.device, store: Store, tmp_path: Path, settings: list[str]
) -> None:
    losses = []
    for place in (torch.device("cpu"), device):
        chosen = config(store, tmp_path, *settings)
        slide, predictor = parts(store, chosen)
        predictor.to(place)
        spec = SubgraphSpec.to_train(predictor.model, halo=0, pixels=predictor.encoder is not None)
        rows = np.arange(0, len(slide.fine), 2)
        batch = build_batch(slide, rows, labels_of(slide, chosen), spec=spec, device=place, symmetry=3)
        loss, _ = magnet_loss(predictor(batch), batch.labels, graph=batch.graph, config=chosen.loss)
        loss.backward()
        trained = [parameter for parameter in predictor.parameters() if parameter.requires_grad]
        assert all(each.grad is not None and bool(each.grad.isfinite().all()) for each in trained)
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)


def test_a_checkpoint_brings_back_the_optimiser_and_what_is_drawn(device: torch.device, tmp_path: Path) -> None:
    module = nn.Linear(4, 3).to(device)
    optimiser = torch.optim.AdamW(module.parameters(), fused=True)

    def step() -> list[torch.Tensor]:
        optimiser.zero_grad()
        module(torch.rand(2, 4, device=device)).square().sum().backward()
        optimiser.step()
        return [torch.rand(3), *(parameter.detach().clone() for parameter in module.parameters())]

    step()
    states = {"module": module, "optimiser": optimiser}
    write_checkpoint(tmp_path, states, {}, device=device)
    expected = step()
    values = read_checkpoint(tmp_path)
    assert values is not None
    go_on(tmp_path, states, values, device=device)
    for found, value in zip(step(), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["frozen", "full"])
def test_a_slide_is_predicted_the_same(device: torch.device, store: Store, tmp_path: Path, mode: str) -> None:
    slide, predictor = parts(store, config(store, tmp_path, f"encoder.mode={mode}", "compute.precision=fp32"))
    expected = predict_slide(predictor, slide)
    found = predict_slide(predictor.to(device), slide, batch_size=30)
    np.testing.assert_allclose(found, expected, atol=NEAR * expected.std())


def test_extraction_writes_the_same(device: torch.device, store: Store, tmp_path: Path) -> None:
    again = extracted(store.root.parent / "data" / "samples.csv", tmp_path / "store", str(device))
    expected, found = store.features("S1", BACKBONE), again.features("S1", BACKBONE)
    assert sorted(found.names()) == sorted(expected.names())
    for name in expected.names():
        values = expected.read(name).astype(np.float32)
        np.testing.assert_allclose(found.read(name).astype(np.float32), values, atol=NEAR * values.std())

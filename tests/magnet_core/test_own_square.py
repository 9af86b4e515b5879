"""What a row's own square shows: against a map painted in pixels, and beside all else that an encoder gives."""

import pytest
import torch
from torch import Tensor

from magnet_core.backbones.encoder import Encoder, build_encoder
from magnet_core.backbones.find import find_backbone
from magnet_core.backbones.own_square import LAST, OwnSquare, mean_and_spread, stages_of
from magnet_core.errors import MagnetError
from magnet_core.levels import own_square_um
from magnet_core.symmetry import NUM_SYMMETRIES, turn

BIN = OwnSquare(8 / 28, 3)
ARCHITECTURES = ["test_vit", "test_resnet", "test_mambaout", "test_convnext", "test_efficientnet"]


def build(architecture: str) -> Encoder:
    return build_encoder(find_backbone(f"timm:{architecture}"), "random")


def patches_of(number: int, side: int = 112) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (number, side, side, 3), dtype=torch.uint8, generator=generator)


def measured_slowly(feature_map: Tensor, share: float) -> Tensor:
    """Mean and spread in the square of a map of many more pixels, in which each cell is a block of equal values."""
    fine = 840  # a multiple of all sides here, and of all borders of squares
    _, _, height, width = feature_map.shape
    painted = feature_map[:, :, torch.arange(fine) * height // fine][..., torch.arange(fine) * width // fine]
    low, side = round((1 - share) / 2 * fine), round(share * fine)
    inside = painted[:, :, low : low + side, low : low + side].flatten(2)
    return torch.cat([inside.mean(dim=2), inside.std(dim=2, correction=0)], dim=1)


@pytest.mark.parametrize("cells", [(1, 1), (3, 3), (4, 4), (7, 4), (14, 14)])
@pytest.mark.parametrize("share", [2 / 7, 4 / 7, 1])
def test_equals_the_mean_over_a_map_painted_in_pixels(cells: tuple[int, int], share: float) -> None:
    feature_map = torch.randn(2, 5, *cells, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = measured_slowly(feature_map, share).float()
    torch.testing.assert_close(mean_and_spread(feature_map, OwnSquare(share, 1)), expected, atol=2e-3, rtol=1e-4)


def test_of_seven_by_seven_cells_a_bin_is_the_one_in_the_middle_and_half_of_those_around() -> None:
    feature_map = torch.zeros(1, 1, 7, 7)
    feature_map[0, 0, 3, 3], feature_map[0, 0, 3, 4], feature_map[0, 0, 4, 4] = 4.0, 40.0, 400.0
    assert mean_and_spread(feature_map, BIN)[0, 0].item() == pytest.approx((4.0 + 0.5 * 40 + 0.25 * 400) / 4)


def test_what_lies_outside_the_square_changes_nothing() -> None:
    feature_map = torch.zeros(1, 1, 14, 14)
    changed = feature_map.clone()
    changed[:, :, :5] = changed[:, :, 9:] = changed[..., :5] = changed[..., 9:] = 1e6
    assert torch.equal(mean_and_spread(changed, BIN), mean_and_spread(feature_map, BIN))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_encoder_gives_it_beside_what_it_gave_before(architecture: str) -> None:
    encoder, patches = build(architecture), patches_of(3)
    of_maps = []
    with torch.inference_mode():
        before = encoder(patches, 4)
        for maps in (1, 2, 3):
            square = OwnSquare(BIN.share, maps)
            features = encoder(patches, 4, own=square)
            assert torch.equal(features.pooled, before.pooled)
            assert torch.equal(features.tokens, before.tokens)
            assert features.own.shape == (3, encoder.own_width(square))
            assert torch.equal(features.fine, torch.cat([features.pooled, features.own], dim=1))
            of_maps.append(features.own)
    assert before.own is None
    assert torch.equal(before.fine, before.pooled)
    for fewer, more in zip(of_maps, of_maps[1:], strict=False):
        assert torch.equal(more[:, : fewer.shape[1]], fewer)


def test_the_first_map_of_a_vit_is_that_of_its_tokens() -> None:
    encoder = build("test_vit")  # 10 × 10 cells of 16 px
    square = OwnSquare(0.2, 1)
    with torch.inference_mode():
        features = encoder(patches_of(2), 10, own=square)
    middle = features.tokens.unflatten(1, (10, 10))[:, 4:6, 4:6].mean(dim=(1, 2))
    torch.testing.assert_close(features.own[:, :64], middle)


@pytest.mark.parametrize(
    ("architecture", "stages"),
    [
        ("resnet50", [1, 2, 3]),  # of five, the stem's among them
        ("test_mambaout", [0, 1, 2]),
        ("swin_tiny_patch4_window7_224", [0, 1, 2]),
        ("test_vit", [LAST, 2, 0]),  # of six blocks
    ],
)
def test_the_stages_that_are_kept(architecture: str, stages: list[int]) -> None:
    model = build(architecture).model
    assert stages_of(model, BIN) == stages
    assert stages_of(model, OwnSquare(BIN.share, 2)) == stages[:2]


def test_a_model_of_which_timm_says_nothing_has_its_last_map_alone() -> None:
    encoder = build("test_resnet")
    encoder.model.feature_info = []
    assert encoder.own_width(BIN) == 2 * encoder.model.num_features
    with torch.inference_mode():
        last = encoder._feature_map(encoder.model.forward_features(encoder.normalise(patches_of(1))))
        torch.testing.assert_close(encoder(patches_of(1), own=BIN).own, mean_and_spread(last, BIN))


def test_a_fine_map_hardly_sees_what_a_coarse_one_sees_all_of() -> None:
    encoder = build("test_resnet")
    with torch.no_grad():
        patches = patches_of(1)
        changed = patches.clone()
        changed[:, :8] = 255 - changed[:, :8]  # 2 µm at the upper rim, 8 µm from the bin
        one, other = encoder(patches, own=BIN), encoder(changed, own=BIN)
    finest = slice(0, 32)
    assert (one.own - other.own)[:, finest].abs().max() < (one.pooled - other.pooled).abs().max()


def test_the_square_of_a_turned_map_is_the_same() -> None:
    feature_map = torch.randn(1, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    for symmetry in range(NUM_SYMMETRIES):
        turned = turn(feature_map.permute(0, 2, 3, 1), symmetry).permute(0, 3, 1, 2)
        torch.testing.assert_close(mean_and_spread(turned, BIN), mean_and_spread(feature_map, BIN))


@pytest.mark.parametrize("architecture", ["test_vit", "test_resnet"])
def test_gradients_reach_the_first_layer_through_it(architecture: str) -> None:
    encoder = build(architecture)
    encoder(patches_of(1), own=OwnSquare(BIN.share, 1)).own.square().sum().backward()
    first = next(encoder.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


def test_an_even_square_has_a_gradient_too() -> None:
    even = torch.zeros(1, 2, 7, 7, requires_grad=True)
    mean_and_spread(even, BIN).sum().backward()
    assert even.grad is not None
    assert even.grad.isfinite().all()


def test_squares_of_the_levels() -> None:
    sides = {level: own_square_um(level, patch_um=28.0) for level in ("bin_008um", "bin_016um", "centre", "region")}
    assert sides == {"bin_008um": 8.0, "bin_016um": 16.0, "centre": None, "region": None}
    assert own_square_um("spot", patch_um=56.0) == 56.0
    assert own_square_um("bin_016um", patch_um=12.0) == 12.0  # a patch smaller than its bin shows nothing more


@pytest.mark.parametrize(("share", "maps"), [(0.0, 1), (1.5, 1), (0.5, 0), (0.5, 4)])
def test_impossible_squares_are_refused(share: float, maps: int) -> None:
    with pytest.raises(MagnetError, match="own square: expected a share within"):
        OwnSquare(share, maps)

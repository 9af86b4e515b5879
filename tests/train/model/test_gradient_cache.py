"""Encoding in micro-batches gives the features and the gradients of encoding at once."""

import pytest
import torch
from torch import Tensor, nn

from train.model.gradient_cache import encode_in_parts


def encoder(*, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 4))


def gradients(module: nn.Module, patches: Tensor, *, micro_batch: int) -> list[Tensor]:
    module.zero_grad()
    features = encode_in_parts(module, patches, micro_batch=micro_batch)
    mixed = features @ features.T  # a loss in which every patch meets every other
    mixed.softmax(dim=1).square().sum().backward()
    return [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("micro_batch", [1, 4, 7, 20])
def test_gradients_are_the_direct_ones(micro_batch: int) -> None:
    module, patches = encoder().double(), torch.randn(20, 6, dtype=torch.float64)
    direct = gradients(module, patches, micro_batch=0)
    assert len(direct) == 4
    for cached, expected in zip(gradients(module, patches, micro_batch=micro_batch), direct, strict=True):
        torch.testing.assert_close(cached, expected, rtol=1e-9, atol=1e-12)


def test_dropout_falls_on_the_same_values_in_both_passes() -> None:
    module, patches = encoder(dropout=0.5).double(), torch.randn(12, 6, dtype=torch.float64)

    torch.manual_seed(3)
    cached = gradients(module, patches, micro_batch=4)
    torch.manual_seed(3)
    module.zero_grad()
    features = torch.cat([module(part) for part in patches.split(4)])  # drawn in the same order, all kept
    (features @ features.T).softmax(dim=1).square().sum().backward()
    for one, parameter in zip(cached, module.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(one, parameter.grad, rtol=1e-9, atol=1e-12)


def test_autocast_is_replayed() -> None:
    module, patches = encoder(), torch.randn(12, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = encode_in_parts(module, patches, micro_batch=5)
    assert features.dtype == torch.bfloat16
    features.float().square().sum().backward()  # outside autocast: encoded again in float32 it would not match
    cached = [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]
    module.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        direct = torch.cat([module(part) for part in patches.split(5)])
    direct.float().square().sum().backward()
    for one, parameter in zip(cached, module.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(one, parameter.grad)


def test_what_backward_needs_is_kept_of_one_micro_batch_at_a_time() -> None:
    module, patches = encoder(), torch.randn(20, 6)

    def kept_rows(micro_batch: int) -> int:
        """Rows of hidden activations that the graph holds on to after the forward pass."""
        rows = 0

        def note(tensor: Tensor) -> Tensor:
            nonlocal rows
            rows += len(tensor) if tensor.shape[1:] == (16,) and not isinstance(tensor, nn.Parameter) else 0
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            encode_in_parts(module, patches, micro_batch=micro_batch)
        return rows

    assert kept_rows(0) > 0
    assert kept_rows(5) == 0


def test_without_gradient_each_patch_is_encoded_once() -> None:
    patches = []

    def encode(part: Tensor) -> Tensor:
        patches.append(len(part))
        return part

    with torch.no_grad():
        encode_in_parts(encode, torch.zeros(7, 2), micro_batch=3)
    assert patches == [3, 3, 1]

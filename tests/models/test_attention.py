"""The spatial basis (M6, M7, X25) and one look at the map (M8, X23, X24), with the memory it takes."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from s3ta.models import S3TAConfig
from s3ta.models.attention import attend, spatial_basis
from s3ta.models.s3ta import Controller

from .helpers import mini_config, pictures


def test_basis_test_values_at_28x28():
    basis = spatial_basis(28, 28)
    assert basis.dtype == torch.float64
    assert basis.shape == (64, 28, 28)
    assert basis.abs().max() <= 1
    torch.testing.assert_close(
        basis.square().sum(0), torch.full((28, 28), 16.0, dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert basis.square().sum().item() == pytest.approx(12_544, abs=1e-8)
    assert basis.sum().item() == pytest.approx(660.0906, abs=5e-5)
    grid = basis.unflatten(0, (8, 8))
    assert torch.equal(grid[:4, :4, 0, 0], torch.ones(4, 4, dtype=torch.float64))
    rest = grid[:, :, 0, 0].clone()
    rest[:4, :4] = 0
    assert rest.count_nonzero() == 0
    assert grid[0, 0, 14, 7].item() == pytest.approx(0, abs=1e-12)
    assert grid[4, 4, 14, 7].item() == pytest.approx(0.70711, abs=5e-6)
    codes = basis.flatten(1).T
    assert torch.linalg.matrix_rank(codes) == 64
    distances = torch.cdist(codes, codes, compute_mode="donot_use_mm_for_euclid_dist")
    assert distances.fill_diagonal_(math.inf).min().item() == pytest.approx(1.2215, abs=5e-5)


@pytest.mark.parametrize(("height", "width", "num_frequencies"), [(5, 7, 4), (11, 3, 1), (13, 2, 3), (1, 1, 2)])
def test_every_entry_is_a_row_function_times_a_column_function(height, width, num_frequencies):
    basis = spatial_basis(height, width, num_frequencies)
    assert basis.shape == ((2 * num_frequencies) ** 2, height, width)
    functions = [(f, u) for f in (math.cos, math.sin) for u in range(1, num_frequencies + 1)]
    for a, (row, u) in enumerate(functions):
        for b, (column, v) in enumerate(functions):
            for i in range(height):
                for j in range(width):
                    expected = row(math.pi * u * i / height) * column(math.pi * v * j / width)
                    assert basis[a * len(functions) + b, i, j].item() == pytest.approx(expected, abs=1e-12)


def test_swapping_height_and_width_swaps_the_grid_of_functions():
    wide = spatial_basis(5, 7, 3).unflatten(0, (6, 6))
    tall = spatial_basis(7, 5, 3).unflatten(0, (6, 6))
    assert torch.equal(wide, tall.permute(1, 0, 3, 2))
    assert not torch.equal(wide.permute(1, 0, 2, 3), wide)


def _inputs(heads=3, keys=5, values=17, height=7, width=11, num_frequencies=1, batch=2):
    def draw(seed, *shape):
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    basis = spatial_basis(height, width, num_frequencies)
    return (
        draw(0, batch, heads, keys + len(basis)),
        draw(1, batch, keys, height, width),
        draw(2, batch, values, height, width),
        basis,
    )


def _logits(attention):
    """Up to a constant per map, which the softmax removes: relative to the first place."""
    logits = attention.log().flatten(2)
    return logits - logits[..., :1]


def test_each_head_sums_to_one_over_all_places():
    answers, attention = attend(*_inputs())
    assert answers.shape == (2, 3, 21)
    assert attention.shape == (2, 3, 7, 11)
    assert attention.min() > 0
    torch.testing.assert_close(attention.sum((2, 3)), torch.ones(2, 3, dtype=torch.float64), rtol=0, atol=1e-12)
    for axis in (1, 2, 3):  # and over nothing else
        assert (attention.sum(axis) - 1).abs().max() > 0.1


def test_a_query_of_zeros_attends_to_every_place_alike():
    query, *rest = _inputs(height=28, width=28)
    _, attention = attend(torch.zeros_like(query), *rest)
    assert torch.equal(attention, torch.full_like(attention, 1 / 784))


def test_doubling_the_query_doubles_the_logits():
    query, *rest = _inputs()
    once, twice = (_logits(attend(factor * query, *rest)[1]) for factor in (1, 2))
    torch.testing.assert_close(twice, 2 * once, rtol=0, atol=1e-10)
    assert once.abs().max() > 1


def test_logits_are_unscaled_inner_products_with_keys_and_basis():
    query, keys, values, basis = _inputs()
    _, attention = attend(query, keys, values, basis)
    both = torch.cat([keys, basis.expand(2, -1, -1, -1)], dim=1)
    expected = torch.einsum("bnc,bchw->bnhw", query, both).flatten(2)
    torch.testing.assert_close(_logits(attention), expected - expected[..., :1], rtol=0, atol=1e-10)
    no_basis = torch.einsum("bnc,bchw->bnhw", query[..., :5], keys).flatten(2)
    assert (no_basis - no_basis[..., :1] - _logits(attention)).abs().max() > 0.1


def test_answers_at_full_size_end_with_the_weighted_basis():
    query, keys, values, basis = _inputs(heads=4, keys=32, values=2016, height=28, width=28, num_frequencies=4, batch=1)
    answers, attention = attend(query / 5, keys, values, basis)
    assert answers.shape == (1, 4, 2080)
    torch.testing.assert_close(
        answers[..., :2016], torch.einsum("bnhw,bvhw->bnv", attention, values), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(answers[..., 2016:], torch.einsum("bnhw,shw->bns", attention, basis), rtol=0, atol=1e-12)


def test_an_image_does_not_change_the_attention_of_another():
    query, keys, values, basis = _inputs(batch=3)
    together = attend(query, keys, values, basis)
    alone = attend(query[1:2], keys[1:2], values[1:2], basis)
    for several, one in zip(together, alone, strict=True):
        torch.testing.assert_close(several[1:2], one, rtol=0, atol=1e-12)


def test_gradients_are_exact_and_nothing_is_detached():
    query, keys, values, basis = _inputs(heads=2, keys=3, values=5, height=2, width=3, batch=2)
    inputs = [tensor.requires_grad_(True) for tensor in (query, keys, values)]
    assert torch.autograd.gradcheck(lambda *tensors: attend(*tensors, basis), inputs)


class _Allocations(TorchDispatchMode):
    """Bytes of every new tensor that an operation returns; views of known storage do not count."""

    def __init__(self, *known):
        super().__init__()
        self.known, self.sizes = {tensor.untyped_storage()._cdata for tensor in known}, []
        self.kept = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                self.known.add(tensor.untyped_storage()._cdata)
                self.kept.append(tensor)  # so that no storage address is used twice
                self.sizes.append(tensor.untyped_storage().nbytes())
        return result


def _paper_map(batch, device="meta"):
    features = torch.empty(batch, 2048, 28, 28, device=device).requires_grad_(True)
    return features, features[:, :32], features[:, 32:], spatial_basis(28, 28).float().to(device)


def test_one_look_allocates_no_copy_of_the_map():
    features, keys, values, basis = _paper_map(3)
    query = torch.empty(3, 4, 96, device="meta", requires_grad=True)
    with _Allocations(features, query, basis) as allocated:
        answers, attention = attend(query, keys, values, basis)
    outputs = {tensor.numel() * 4 for tensor in (answers, attention)}
    assert outputs <= set(allocated.sizes)  # the recorder sees what is allocated
    assert max(allocated.sizes) < keys.numel() * 4 < features.numel() * 4
    with _Allocations(features, basis) as copying:
        torch.cat([values, basis.expand(3, -1, -1, -1)], dim=1)
    assert max(copying.sizes) > features.numel() * 4  # and would see the copy


def _saved_bytes(batch, num_glimpses):
    with torch.device("meta"):
        controller = Controller(S3TAConfig(), 2048)
    features, keys, values, basis = _paper_map(batch)
    ours = {tensor.untyped_storage()._cdata for tensor in (features, basis, *controller.parameters())}
    saved = {}

    def pack(tensor):
        if tensor.untyped_storage()._cdata not in ours:
            saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trace = controller(keys, values, basis, num_glimpses)
    assert trace.logits.shape == (num_glimpses, batch, 1000)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def test_four_glimpses_keep_less_than_a_megabyte_per_image():
    per_image = (_saved_bytes(7, 4) - _saved_bytes(2, 4)) / 5
    assert 4 * 784 * 4 * 4 < per_image < 1e6  # at least the four maps, far from a copy of the features (6.4 MB)


def test_the_model_hands_its_own_basis_to_the_look():
    from s3ta.models import build_model

    torch.manual_seed(0)
    model = build_model(mini_config(image_size=12)).eval()
    for size in ((12, 12), (10, 14)):
        features = model.vision(pictures(1, 2, *size))
        expected = spatial_basis(*features.shape[-2:], 2)
        torch.testing.assert_close(model._basis_for(features), expected.float(), rtol=0, atol=1e-7)
        assert torch.equal(model._basis_for(features.double()), expected)

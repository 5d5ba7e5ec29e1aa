"""Deformable attention without GridSample against GridSample: values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kanoclip.train.model.deformable import DeformableSelfAttention

HEADS, POINTS = 4, 4
GRIDS = [(3, 5), (5, 3), (4, 4), (2, 7)]


def sampled(value: Tensor, positions: Tensor, weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """F.grid_sample, one head and one point at a time.

    value [B, heads, P, D], positions (y, x) in cells [B, heads, P, points, 2] -> [B, P, heads * D].
    """
    rows, columns = grid
    last = torch.tensor([columns - 1, rows - 1], dtype=positions.dtype)
    batches = []
    for batch in range(len(value)):
        heads = []
        for head in range(value.shape[1]):
            image = value[batch, head].T.reshape(1, -1, rows, columns)
            total = 0
            for point in range(positions.shape[3]):
                where = positions[batch, head, :, point].flip(-1) * 2 / last - 1
                read = F.grid_sample(image, where[None, :, None], align_corners=True, padding_mode="zeros")
                total = total + weights[batch, head, :, point, None] * read[0, :, :, 0].T
            heads.append(total)
        batches.append(torch.cat(heads, dim=-1))
    return torch.stack(batches)


def make(grid, dim=32, inner=16):
    torch.manual_seed(0)
    return DeformableSelfAttention(dim, inner, HEADS, grid)


def uniform(*shape):
    return torch.full(shape, 1 / POINTS, dtype=torch.float64)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [0.0, 0.3, 3.0])
def test_forward_and_its_gradients_are_grid_samples(shake, normal, grid, size):
    module = shake(make(grid), size=size)
    cells = grid[0] * grid[1]
    tokens, upstream = normal(2, cells, 32), normal(2, cells, 16)
    learnt = [module.offsets.weight, module.offsets.bias, module.weights.weight, module.weights.bias]
    learnt += [module.value.weight, module.value.bias]

    output = module(tokens)
    gradients = torch.autograd.grad((output * upstream).sum(), learnt)

    offsets = F.linear(tokens, module.offsets.weight, module.offsets.bias).view(2, cells, HEADS, POINTS, 2)
    own = torch.tensor([[y, x] for y in range(grid[0]) for x in range(grid[1])]).view(1, cells, 1, 1, 2)
    positions = (own + 3 * torch.tanh(offsets)).permute(0, 2, 1, 3, 4)
    weights = F.linear(tokens, module.weights.weight, module.weights.bias).view(2, cells, HEADS, POINTS)
    weights = weights.softmax(-1).permute(0, 2, 1, 3)
    value = F.linear(tokens, module.value.weight, module.value.bias).view(2, cells, HEADS, 4).transpose(1, 2)
    expected = sampled(value, positions, weights, grid)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    for got, wanted in zip(
        gradients, torch.autograd.grad((expected * upstream).sum(), learnt, allow_unused=True), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=2e-3, atol=2e-4)


coordinate = st.floats(-3.5, 9.5, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(
    grid=st.sampled_from(GRIDS),
    points=st.lists(st.tuples(coordinate, coordinate), min_size=POINTS, max_size=POINTS),
    shares=st.lists(st.floats(0.01, 1), min_size=POINTS, max_size=POINTS),
)
def test_matrix_at_any_points_is_grid_sample(grid, points, shares):
    cells = grid[0] * grid[1]
    generator = torch.Generator().manual_seed(1)
    value = torch.randn(1, 1, cells, 3, generator=generator, dtype=torch.float64)
    upstream = torch.randn(1, cells, 3, generator=generator, dtype=torch.float64)
    # Tokens look at the same points, each shifted a little: more cases for each example.
    shift = torch.arange(cells, dtype=torch.float64)[:, None, None] * 0.377
    positions = (torch.tensor(points, dtype=torch.float64) + shift)[None, None].requires_grad_()
    weights = torch.tensor(shares, dtype=torch.float64)
    weights = (weights / weights.sum()).expand(1, 1, cells, POINTS).clone().requires_grad_()
    module = make(grid).double()
    matrix = module.matrix(positions, weights)
    module.elementwise = True
    torch.testing.assert_close(module.matrix(positions, weights), matrix, rtol=0, atol=1e-12)

    output = (matrix @ value)[:, 0]
    expected = sampled(value, positions, weights, grid)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)
    assert matrix.min() >= 0
    assert matrix.sum(-1).max() <= 1 + 1e-6

    by_position, by_weight = torch.autograd.grad((output * upstream).sum(), [positions, weights])
    position_wanted, weight_wanted = torch.autograd.grad((expected * upstream).sum(), [positions, weights])
    torch.testing.assert_close(by_weight, weight_wanted, rtol=0, atol=1e-6)
    # At a whole cell the bilinear function has a kink, and the two take different sides of it.
    smooth = ((positions - positions.round()).abs() > 1e-4).all(-1)
    torch.testing.assert_close(by_position[smooth], position_wanted[smooth], rtol=0, atol=1e-6)


@pytest.mark.parametrize("elementwise", [False, True])
def test_matrix_is_made_in_float32_under_autocast(normal, elementwise):
    module = make((3, 5))
    module.elementwise = elementwise
    positions, weights = module.points(normal(2, 15, 32))
    wanted = module.matrix(positions, weights)
    with torch.autocast("cpu", torch.bfloat16):
        matrix = module.matrix(positions, weights)
    assert matrix.dtype == torch.float32
    torch.testing.assert_close(matrix, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("grid", GRIDS)
def test_exactly_on_cells_reads_the_cell_and_nothing_else(grid):
    rows, columns = grid
    value = torch.arange(rows * columns, dtype=torch.float64)
    for y in range(-1, rows + 1):
        for x in range(-1, columns + 1):
            positions = torch.tensor([y, x], dtype=torch.float64).expand(1, 1, 1, POINTS, 2)
            row = make(grid).double().matrix(positions, uniform(1, 1, 1, POINTS))[0, 0, 0]
            inside = 0 <= y < rows and 0 <= x < columns
            assert float(row.sum()) == inside
            if inside:
                assert float(row @ value) == y * columns + x


def test_whole_cells_have_no_gradient_which_is_why_the_points_start_between_them():
    positions = torch.ones(1, 1, 1, POINTS, 2, dtype=torch.float64, requires_grad=True)
    value = torch.randn(9, 2, dtype=torch.float64)
    (make((3, 3)).double().matrix(positions, uniform(1, 1, 1, POINTS)) @ value).sum().backward()
    assert torch.count_nonzero(positions.grad) == 0


@pytest.mark.parametrize("grid", GRIDS)
def test_initial_points_weights_and_gradient(normal, grid):
    module = make(grid)
    cells = grid[0] * grid[1]
    tokens = normal(2, cells, 32)
    positions, weights = module.points(tokens)
    own = torch.tensor([[y, x] for y in range(grid[0]) for x in range(grid[1])])[:, None]
    corners = torch.tensor([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])
    expected = (own + corners).expand(2, HEADS, cells, POINTS, 2)
    torch.testing.assert_close(positions, expected, rtol=0, atol=1e-6)
    assert torch.equal(weights, torch.full_like(weights, 0.25))
    (module(tokens) * normal(2, cells, 16)).sum().backward()
    for parameter in (module.offsets.weight, module.offsets.bias, module.weights.weight, module.weights.bias):
        assert parameter.grad.abs().max() > 1e-3
    by_head = module.offsets.bias.grad.view(HEADS, POINTS, 2)
    assert (by_head.abs().amax(dim=(1, 2)) > 1e-4).all()


def test_rows_sum_to_one_inside_and_less_at_the_edge(normal):
    module = make((4, 6))
    sums = module.matrix(*module.points(normal(1, 24, 32))).sum(-1)[0, 0].view(4, 6)
    torch.testing.assert_close(sums[1:-1, 1:-1], torch.ones(2, 4))
    torch.testing.assert_close(sums[0, 1:-1], torch.full((4,), 0.75))
    torch.testing.assert_close(sums[0, 0], torch.tensor(0.5625))


def test_points_stay_within_reach(shake, normal):
    module = shake(make((3, 5)), size=50.0)
    positions, weights = module.points(normal(2, 15, 32))
    own = torch.tensor([[y, x] for y in range(3) for x in range(5)])[:, None]
    offsets = positions - own
    assert offsets.abs().max() <= 3 + 1e-5
    assert offsets.abs().max() > 2.9
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, HEADS, 15))
    assert module.matrix(positions, weights).sum(-1).max() <= 1 + 1e-5
    assert torch.isfinite(module(normal(2, 15, 32))).all()


def test_grid_of_one_row():
    positions = torch.tensor([0.25, 1.5], dtype=torch.float64).expand(1, 1, 1, POINTS, 2)
    row = make((1, 4)).double().matrix(positions, uniform(1, 1, 1, POINTS))[0, 0, 0]
    torch.testing.assert_close(row, torch.tensor([0, 0.375, 0.375, 0], dtype=torch.float64))


def test_points_are_float32_whatever_the_tokens_are(normal):
    module = make((3, 3)).to(torch.bfloat16)
    for name in ("rows", "columns"):
        setattr(module, name, getattr(module, name).float())
    tokens = normal(1, 9, 32).to(torch.bfloat16)
    positions, weights = module.points(tokens)
    assert positions.dtype == weights.dtype == module.matrix(positions, weights).dtype == torch.float32
    assert module(tokens).dtype == torch.bfloat16

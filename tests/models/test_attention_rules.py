"""Full, window, axial, dilated and deformable attention, each against its rule written out token by token."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from attention_layers import DIM, HEADS, layer
from torch import Tensor, nn

from models.attention.bra import BiLevelRoutingAttention
from models.attention.deformable import DeformableAttention, read_between
from models.attention.tiles import Cut, from_tiles, to_tiles, visible_keys

MAPS = [(1, 1), (3, 2), (7, 13), (8, 8), (1, 9), (10, 6)]
Rule = Callable[[tuple[int, int], tuple[int, int], tuple[int, int], int], bool]  # query, key, map, head: seen?


@pytest.fixture(autouse=True)
def one_thread(threads: None) -> None:
    """Thousands of tiny calls: waking a second thread costs more than it saves."""
    torch.set_num_threads(1)


# Which keys a query sees, token by token


def same_window(window: int, shift: int) -> Rule:
    def one_side(a: int, b: int, length: int) -> bool:
        return length < window or (a + shift) // window == (b + shift) // window

    return lambda query, key, size, _: all(map(one_side, query, key, size))


def same_stripe(stripe: int) -> Rule:
    return lambda query, key, _, head: query[head * 2 // HEADS] // stripe == key[head * 2 // HEADS] // stripe


def same_grid(window: int, dilation: int) -> Rule:
    def one_side(a: int, b: int, length: int) -> bool:
        step = dilation or -(-length // window)
        return a % step == b % step and a // (step * window) == b // (step * window)

    return lambda query, key, size, _: all(map(one_side, query, key, size))


RULES: dict[str, tuple[tuple, Rule]] = {
    "full": ((), lambda *_: True),
    "window": ((3,), same_window(3, 0)),
    "window-shifted": ((4, 2), same_window(4, 2)),
    "axial": ((1,), same_stripe(1)),
    "axial-wide": ((3,), same_stripe(3)),
    "dilated-whole": ((3, 0), same_grid(3, 0)),
    "dilated": ((2, 2), same_grid(2, 2)),
    "dilated-far": ((2, 4), same_grid(2, 4)),
}


def projected(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Queries, keys and values of each token: (B, H, W, M, D)."""
    batch, _, height, width = x.shape
    parts = module.qkv_linear(x).chunk(3, dim=1)
    return [part.permute(0, 2, 3, 1).reshape(batch, height, width, module.num_heads, -1) for part in parts]


def finished(module: nn.Module, mixed: Tensor, v: Tensor) -> Tensor:
    """Mixed values (B, H, W, M, D) to the layer's output: local term, then projection."""
    mixed, v = (part.flatten(3).permute(0, 3, 1, 2) for part in (mixed, v))
    return module.output_linear(mixed + module.lepe(v))


def by_hand(module: nn.Module, x: Tensor, rule: Rule) -> Tensor:
    """The layer, one query of one head of one image at a time."""
    q, k, v = projected(module, x)
    batch, height, width = q.shape[:3]
    tokens = list(itertools.product(range(height), range(width)))
    rows = []
    for image, query, head in itertools.product(range(batch), tokens, range(module.num_heads)):
        seen = [key for key in tokens if rule(query, key, (height, width), head)]
        keys = torch.stack([k[image, y, column, head] for y, column in seen])
        values = torch.stack([v[image, y, column, head] for y, column in seen])
        logits = keys @ q[image, query[0], query[1], head] * module.scale
        rows.append(logits.softmax(dim=0) @ values)
    return finished(module, torch.stack(rows).reshape(q.shape), v)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (7, 5), (1, 9), (6, 4)], ids=str)
@pytest.mark.parametrize("name", RULES)
def test_output_and_gradients_follow_the_rule(name: str, size: tuple[int, int]) -> None:
    settings, rule = RULES[name]
    module = layer(name.split("-")[0], *settings).double()
    x = torch.randn(1 if size == (7, 5) else 2, DIM, *size, dtype=torch.float64, requires_grad=True)
    out, wanted = module(x), by_hand(module, x, rule)
    torch.testing.assert_close(out, wanted)
    probe = torch.randn_like(out)
    inputs = [x, *module.parameters()]
    for found, expected in zip(
        torch.autograd.grad((out * probe).sum(), inputs),
        torch.autograd.grad((wanted * probe).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def deformable_by_hand(module: DeformableAttention, x: Tensor) -> Tensor:
    """Deformable attention with loops over images, heads and points."""
    q, k, v = projected(module, x)
    batch, height, width, heads, _ = q.shape
    count = (-(-height // module.stride), -(-width // module.stride))
    mixed = torch.zeros_like(q)
    for image in range(batch):
        maps = q[image].flatten(2).permute(2, 0, 1)  # (C, H, W)
        for head in range(heads):
            group = head * module.groups // heads
            own = maps.chunk(module.groups)[group]
            offsets = module.offset(own[None])[0].tanh() * module.reach  # (2, rows, cols)
            keys, values = [], []
            for row, col in itertools.product(range(count[0]), range(count[1])):
                y = (row + 0.5 + offsets[0, row, col]) * height / count[0] - 0.5
                column = (col + 0.5 + offsets[1, row, col]) * width / count[1] - 0.5
                y, column = y.clamp(0, height - 1), column.clamp(0, width - 1)
                keys.append(between(k[image, :, :, head], y, column))
                values.append(between(v[image, :, :, head], y, column))
            logits = q[image, :, :, head] @ torch.stack(keys).T * module.scale
            mixed[image, :, :, head] = logits.softmax(dim=-1) @ torch.stack(values)
    return finished(module, mixed, v)


def between(maps: Tensor, y: Tensor, column: Tensor) -> Tensor:
    """(H, W, D) read at one point: every pixel weighs what is left of 1 after its distance, on each axis."""
    height, width = maps.shape[:2]
    weight_y = (1 - (y - torch.arange(height)).abs()).clamp(min=0)
    weight_x = (1 - (column - torch.arange(width)).abs()).clamp(min=0)
    return (maps * (weight_y[:, None] * weight_x)[:, :, None]).sum(dim=(0, 1))


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (7, 5), (1, 9)], ids=str)
@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 2), (3, 1)])
def test_deformable_attention_follows_its_rule(stride: int, groups: int, size: tuple[int, int]) -> None:
    module = layer("deformable", stride, groups, heads=4).double()
    with torch.no_grad():
        module.offset[-1].weight.mul_(5)  # far enough for some points to reach the border
    x = torch.randn(2, DIM, *size, dtype=torch.float64, requires_grad=True)
    out, wanted = module(x), deformable_by_hand(module, x)
    torch.testing.assert_close(out, wanted)
    probe = torch.randn_like(out)
    for found, expected in zip(
        torch.autograd.grad((out * probe).sum(), [x, *module.parameters()]),
        torch.autograd.grad((wanted * probe).sum(), [x, *module.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("full", ()),
        ("window", (2, 1)),
        ("axial", (2,)),
        ("dilated", (2, 0)),
        ("dilated", (1, 3)),
        ("deformable", (2, 2)),
    ],
    ids=str,
)
def test_gradcheck(name: str, settings: tuple) -> None:
    module = layer(name, *settings, dim=4, init_scale=0.5).double()
    x = torch.randn(1, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,), eps=1e-6, atol=1e-6)


FULL_SIGHT = {
    "window": lambda: layer("window", 13),
    "axial": lambda: layer("axial", 13),
    "dilated over the map": lambda: layer("dilated", 13, 0),
    "dilated by one": lambda: layer("dilated", 13, 1),
    "points on every pixel": lambda: layer("deformable", 1, reach=0),
    "routing to all": lambda: BiLevelRoutingAttention(DIM, HEADS, qk_scale=(DIM // HEADS) ** -0.5, topk=999),
}


@pytest.mark.parametrize("size", MAPS, ids=str)
@pytest.mark.parametrize("name", FULL_SIGHT)
def test_a_layer_that_sees_all_is_full_attention(name: str, size: tuple[int, int]) -> None:
    full, other = layer("full"), FULL_SIGHT[name]()
    other.load_state_dict(full.state_dict(), strict=name != "points on every pixel")
    x = torch.randn(2, DIM, *size)
    torch.testing.assert_close(other(x), full(x), rtol=1e-5, atol=1e-5)


def test_dilation_of_one_is_window_attention() -> None:
    x = torch.randn(2, DIM, 7, 13)
    torch.testing.assert_close(layer("dilated", 4, 1)(x), layer("window", 4)(x))


def test_axial_heads_look_one_way_each() -> None:
    module = layer("axial", side_dwconv=0)
    x = torch.randn(1, DIM, 4, 6, requires_grad=True)
    qkv = module.qkv_linear(x).permute(0, 2, 3, 1).unflatten(3, (3, HEADS, -1))
    for head, axis in ((0, 1), (1, 2)):  # a change at (2, 3) reaches its row in the first head, its column in the other
        moved = qkv.clone()
        moved[0, 2, 3, 2] += 1
        changed = (module.attend(moved) - module.attend(qkv))[0, :, :, head].abs().sum(-1) > 1e-6
        expected = torch.zeros(4, 6, dtype=torch.bool)
        expected.select(axis - 1, (2, 3)[axis - 1]).fill_(True)
        assert torch.equal(changed, expected)


# Tiles


CUTS = [
    (Cut(7, 3), Cut(5, 5)),
    (Cut(8, 4, before=3), Cut(9, 4, before=1)),
    (Cut(9, 2, 3), Cut(4, 4)),
    (Cut(1, 2, 4), Cut(5, 1, 2, before=1)),
]


@pytest.mark.parametrize(("rows", "cols"), CUTS, ids=str)
def test_tiles_come_back_as_the_map(rows: Cut, cols: Cut) -> None:
    x = torch.randn(2, rows.length, cols.length, 3)
    tiles = to_tiles(x, rows, cols)
    torch.testing.assert_close(from_tiles(tiles, rows, cols), x, rtol=0, atol=0)
    inside = to_tiles(torch.ones_like(x), rows, cols)[0, :, :, 0] > 0
    empty = ~inside.any(dim=1)
    seen = visible_keys(rows, cols, x.device)
    assert seen[empty].all()
    assert torch.equal(seen[~empty], inside[~empty])


# Reading between pixels


def test_a_ramp_is_read_exactly() -> None:
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    ramp = torch.stack([2 * y - 3 * x, x], dim=-1)[None]
    points = torch.rand(1, 50, 2) * torch.tensor([3.0, 5.0])
    wanted = torch.stack([2 * points[..., 0] - 3 * points[..., 1], points[..., 1]], dim=-1)
    torch.testing.assert_close(read_between(ramp, points), wanted)


def test_reading_agrees_with_torch_at_the_border_too() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 5, 7, 3, dtype=torch.float64, requires_grad=True)
    points = torch.rand(2, 40, 2, dtype=torch.float64) * torch.tensor([4.0, 6.0])
    points[:, :4] = torch.tensor([[0, 0], [4, 6], [4, 2.5], [1.5, 6]])
    points.requires_grad_()
    scaled = (points / torch.tensor([4.0, 6.0]) * 2 - 1).flip(-1)[:, None]  # (N, 1, P, 2): x, y in -1..1
    wanted = F.grid_sample(maps.permute(0, 3, 1, 2), scaled, padding_mode="border", align_corners=True)
    wanted = wanted[:, :, 0].transpose(1, 2)
    found = read_between(maps, points)
    torch.testing.assert_close(found, wanted)
    probe = torch.randn_like(found)
    (of_maps, of_points), (wanted_maps, wanted_points) = (
        torch.autograd.grad((out * probe).sum(), [maps, points]) for out in (found, wanted)
    )
    torch.testing.assert_close(of_maps, wanted_maps)
    torch.testing.assert_close(of_points[:, 4:], wanted_points[:, 4:])  # on a pixel itself the slope has two sides


@pytest.mark.parametrize("size", MAPS, ids=str)
def test_points_lie_evenly_and_inside(size: tuple[int, int]) -> None:
    still, moving = layer("deformable", 3, reach=0), layer("deformable", 3, 2, reach=50)
    nn.init.normal_(moving.offset[-1].weight)
    q = torch.randn(2, DIM, *size)
    rows, cols = (-(-side // 3) for side in size)
    with torch.no_grad():
        even, far = still.points(q), moving.points(q)
    assert (even.shape, far.shape) == ((2, 1, rows * cols, 2), (2, 2, rows * cols, 2))
    torch.testing.assert_close(even[0, 0].mean(dim=0), (torch.tensor(size) - 1) / 2)  # centred
    assert (far >= 0).all()
    assert (far <= torch.tensor(size) - 1).all()


def test_points_move_by_what_the_network_says() -> None:
    module = layer("deformable", 2, reach=1.0)
    with torch.no_grad():
        module.offset[-1] = nn.Conv2d(DIM, 2, 1)
        nn.init.zeros_(module.offset[-1].weight)
        module.offset[-1].bias.copy_(torch.tensor([0.25, -0.5]).atanh())
        points = module.points(torch.randn(1, DIM, 6, 6))[0, 0].reshape(3, 3, 2)
    torch.testing.assert_close(points[1, 1], torch.tensor([2.5 + 2 * 0.25, 2.5 - 2 * 0.5]))

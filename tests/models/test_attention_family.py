"""What full, window, axial, dilated and deformable attention have in common: types, formats, export, cost, rows."""

from __future__ import annotations

import copy

import pytest
import torch
from attention_layers import BLOCKS, DIM, HEADS, LAYERS, layer
from live_memory import peak_of_training
from torch import nn

from models.attention import AxialAttention, BiFormerBlock, BiLevelRoutingAttention
from models.config import load_model_yaml
from models.registry import layer_spec
from utils.errors import ConfigError
from utils.model_info import count_flops


@pytest.fixture(autouse=True)
def one_thread(threads: None) -> None:
    """Thousands of tiny calls: waking a second thread costs more than it saves."""
    torch.set_num_threads(1)


def small(name: str, **named) -> nn.Module:
    """A layer with settings that pad an 9x10 map."""
    settings = {"full": (), "window": (4, 1), "axial": (2,), "dilated": (4,), "deformable": (4, 1)}[name]
    return layer(name, *settings, dim=32, **named)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_half_precision_stays_close(name: str, dtype: torch.dtype) -> None:
    module = small(name)
    x = torch.randn(1, 32, 9, 10)
    low = copy.deepcopy(module).to(dtype)
    given = x.to(dtype).requires_grad_()
    out = low(given)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), module(x), rtol=2e-2, atol=2e-2)
    out.float().square().mean().backward()
    assert all(torch.isfinite(part.grad).all() for part in (given, *low.parameters()))
    assert torch.isfinite(low(given.detach() * 300)).all()  # logits far beyond what an exponential in half can hold


@pytest.mark.parametrize("local", [0, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_the_memory_format_is_kept(name: str, local: int) -> None:
    module = small(name, side_dwconv=local)
    x = torch.randn(2, 32, 9, 10)
    plain, last = module(x), module(x.contiguous(memory_format=torch.channels_last))
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_deterministic_mode_finds_nothing_to_refuse(name: str) -> None:
    module = small(name)
    x = torch.randn(2, 32, 9, 10, requires_grad=True)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (torch.autograd.grad(module(x).square().sum(), [x, *module.parameters()]) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_a_batch_of_no_images_goes_through(name: str) -> None:
    x = torch.zeros(0, 32, 9, 5, requires_grad=True)
    out = small(name)(x)
    out.sum().backward()
    assert out.shape == x.grad.shape == (0, 32, 9, 5)


@pytest.mark.parametrize("name", LAYERS)
def test_compiles_whole(name: str) -> None:
    module = small(name, init_scale=0.5)
    x = torch.randn(1, 32, 9, 10)
    torch.testing.assert_close(torch.compile(module, backend="eager", fullgraph=True)(x), module(x))


@pytest.mark.skipif(
    torch.__version__ < (2, 7), reason="the solver of torch 2.6 cannot see that rounding up never makes a map smaller"
)
@pytest.mark.parametrize(
    "name", ["full", "window", *(pytest.param(name, marks=pytest.mark.slow) for name in list(LAYERS)[2:])]
)
def test_exports_with_open_sizes(name: str) -> None:
    module = small(name, init_scale=0.5).eval()
    batch, height, width = (torch.export.Dim(axis, min=low, max=512) for axis, low in (("b", 1), ("h", 8), ("w", 8)))
    sizes = {"x": {0: batch, 2: height, 3: width}}
    program = torch.export.export(module, (torch.randn(2, 32, 20, 24),), dynamic_shapes=sizes, strict=False).module()
    for shape in ((1, 32, 14, 21), (2, 32, 9, 33)):
        x = torch.randn(shape)
        torch.testing.assert_close(program(x), module(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_the_pairs_of_tokens_are_never_all_kept(name: str) -> None:
    side = 40
    module = {
        "full": lambda: layer("full", dim=16, heads=4),
        "window": lambda: layer("window", 20, dim=16, heads=4),
        "axial": lambda: layer("axial", 10, dim=16, heads=4),
        "dilated": lambda: layer("dilated", 20, dim=16, heads=4),
        "deformable": lambda: layer("deformable", 2, dim=16, heads=4),
    }[name]()
    pairs_with_400_keys = 4 * 4 * side**2 * 400  # heads, bytes, queries, keys: what each but full keeps when naive
    assert peak_of_training(module, 1, 16, side, side) < 0.5 * pairs_with_400_keys


@pytest.mark.parametrize("name", LAYERS)
def test_floating_point_operations_follow_the_formula(name: str) -> None:
    side, dim = 80, 64
    module = layer(name, *{"window": (20,), "axial": (5,), "dilated": (20,)}.get(name, ()), dim=dim)
    keys = {"full": side**2}.get(name, 400)
    extra = 20 * 20 * (5 * 5 * dim + 2 * dim) if name == "deformable" else 0  # offsets, from 5x5 pixels of each point
    expected = 4 * side**2 * dim**2 + 9 * side**2 * dim + 2 * side**2 * keys * dim + extra
    assert count_flops(module, side, side, dim) == 2 * expected


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (10, 10)], ids=str)
@pytest.mark.parametrize("cls", [*LAYERS.values(), *BLOCKS.values()], ids=lambda cls: cls.__name__)
def test_a_row_starts_as_the_identity(cls: type, size: tuple[int, int]) -> None:
    spec = layer_spec(cls.__name__)
    assert spec.cls is cls
    x = torch.randn(2, 64, *size)
    assert torch.equal(spec.cls(64, **spec.row_defaults)(x), x)


@pytest.mark.parametrize("name", LAYERS)
def test_logits_are_scaled_by_the_head_width_unless_told_otherwise(name: str) -> None:
    assert layer(name, dim=32, heads=2).scale == 0.25
    assert layer(name, dim=32, heads=2, qk_scale=0.5).scale == 0.5
    assert LAYERS[name](64, 0).num_heads == 2


def test_all_keep_the_tensors_of_routed_attention() -> None:
    routed = {key: value.shape for key, value in BiLevelRoutingAttention(DIM, HEADS).state_dict().items()}
    of_block = {key: value.shape for key, value in BiFormerBlock(DIM, HEADS).state_dict().items()}
    for name in LAYERS:
        own = {key: value.shape for key, value in layer(name).state_dict().items() if not key.startswith("offset")}
        block = BLOCKS[name](DIM, HEADS).state_dict().items()
        assert list(own.items()) == list(routed.items())
        assert [(key, value.shape) for key, value in block if "offset" not in key] == list(of_block.items())


def test_rows_name_what_their_values_mean() -> None:
    rows = {"full": (), "window": ("window", "shift"), "axial": ("stripe",), "dilated": ("window", "dilation"),
            "deformable": ("stride", "groups")}  # fmt: skip
    for name, own in rows.items():
        bare, block = layer_spec(LAYERS[name].__name__), layer_spec(BLOCKS[name].__name__)
        assert bare.row == ("num_heads", *own)
        assert block.row == ("num_heads", *own, "mlp_ratio")
        values = dict(zip(own, (6, 2), strict=False))
        built = block.cls(64, num_heads=2, mlp_ratio=2, **values)
        assert {key: getattr(built.attn, key) for key in own} == values
        assert (built.attn.num_heads, built.mlp[0].out_features) == (2, 128)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("full", {"num_heads": 3}, "3 must divide 8"),
        ("full", {"side_dwconv": 4}, "odd"),
        ("window", {"window": 0}, "window must be a whole number from 1"),
        ("window", {"window": 2.5}, "window must be a whole number"),
        ("window", {"window": 4, "shift": 4}, "below the window of 4"),
        ("axial", {"stripe": 0}, "stripe"),
        ("axial", {"num_heads": 1}, "one half of both goes to the rows"),
        ("axial", {"dim": 7, "num_heads": 0}, "axial attention of 7 channels"),
        ("dilated", {"dilation": -1}, "dilation must be a whole number from 0"),
        ("deformable", {"stride": 0}, "stride"),
        ("deformable", {"groups": 3}, "3 groups of points do not divide 2 heads"),
        ("deformable", {"reach": -1.0}, "reach"),
    ],
)
def test_settings_that_make_no_layer(name: str, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LAYERS[name](**{"dim": DIM, "num_heads": HEADS, **settings})


@pytest.mark.parametrize(("dim", "heads"), [(32, 2), (64, 2), (96, 2), (256, 8)])
def test_axial_heads_are_even(dim: int, heads: int) -> None:
    assert AxialAttention(dim, 0).num_heads == heads


@pytest.mark.parametrize("name", BLOCKS)
def test_model_files_differ_from_the_biformer_one_in_the_block_alone(name: str) -> None:
    wanted, found = (load_model_yaml(f"yolov5s-{kind}.yaml")[0] for kind in ("biformer", name))
    blocks = 0
    for section in ("backbone", "head"):
        for row, other in zip(wanted.pop(section), found.pop(section), strict=True):
            if row[2] == "BiFormerBlock":
                blocks += 1
                assert other[:3] == [-1, 1, BLOCKS[name].__name__]
            else:
                assert other == row
    assert blocks == 3
    assert found == wanted

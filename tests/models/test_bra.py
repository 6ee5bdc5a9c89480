"""Bi-level routing attention as a layer: golden numbers, geometry, the residual form and its rows."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from golden_formulas import (
    assert_golden,
    check_numbers,
    fill_module,
    golden_arrays,
    golden_json,
    normal,
    uniform,
)
from models.attention.base import head_count
from models.attention.bra import BiLevelRoutingAttention
from models.attention.released import CheckpointBRA, released_to_ours
from models.registry import layer_spec
from utils.errors import ConfigError

CASES = golden_json("bra")["cases"]
ODD_MAPS = [(1, 1), (7, 13), (3, 2), (10, 10), (20, 20), (5, 9), (1, 30)]


@pytest.fixture(autouse=True)
def one_thread(threads: None) -> None:
    """Thousands of tiny calls: waking a second thread costs more than it saves."""
    torch.set_num_threads(1)


def layer_of(case: dict, cls: type = BiLevelRoutingAttention, **settings) -> nn.Module:
    sizes = {key: case[key] for key in ("dim", "num_heads", "n_win", "topk", "side_dwconv")}
    return fill_module(cls(**sizes, qk_scale=case.get("qk_scale"), **settings), case["fill_salt"])


def run_case(layer: nn.Module, case: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output, gradient at the input and routing of a golden case."""
    values = uniform(case["input"], case["shape"])
    np.testing.assert_allclose(check_numbers(values), case["input_check"], rtol=1e-6)
    x = torch.from_numpy(values).requires_grad_()
    out = layer(x)
    (out * torch.from_numpy(normal(case["input"] + ":probe", case["shape"]))).sum().backward()
    return out, x.grad, layer.route(x)[0]


@pytest.mark.golden
@pytest.mark.parametrize("backend", ["reference", "sdpa"])
@pytest.mark.parametrize("name", [name for name in CASES if name != "too_small"])
def test_released_numbers(name: str, backend: str) -> None:
    case, stored = CASES[name], golden_arrays("bra")
    layer = layer_of(case, padding="released", backend=backend)
    assert {k: list(v.shape) for k, v in layer.state_dict().items()} == case["nchw_state_dict"]
    assert list(layer.state_dict()) == list(case["nchw_state_dict"])
    out, grad, idx = run_case(layer, case)
    np.testing.assert_array_equal(idx.numpy(), stored[f"{name}.nchw.idx"])
    assert_golden(out, stored[f"{name}.nchw.out"])
    assert_golden(grad, stored[f"{name}.nchw.grad"])


@pytest.mark.golden
@pytest.mark.parametrize("padding", ["masked", "legacy"])
@pytest.mark.parametrize("name", [name for name in CASES if CASES[name]["fits"]])
def test_paddings_agree_where_the_map_divides(name: str, padding: str) -> None:
    case, stored = CASES[name], golden_arrays("bra")
    out, grad, idx = run_case(layer_of(case, padding=padding), case)
    np.testing.assert_array_equal(idx.numpy(), stored[f"{name}.nchw.idx"])
    assert_golden(out, stored[f"{name}.nchw.out"])
    assert_golden(grad, stored[f"{name}.nchw.grad"])


@pytest.mark.golden
@pytest.mark.parametrize("layout", ["ours", "checkpoint"])
@pytest.mark.parametrize("name", [name for name in CASES if not CASES[name]["fits"]])
def test_legacy_numbers(name: str, layout: str) -> None:
    case, stored = CASES[name], golden_arrays("bra")
    layer = layer_of(case, padding="legacy")
    if layout == "checkpoint":
        other = CheckpointBRA(
            case["dim"], case["num_heads"], case["n_win"], None, case["topk"], case["side_dwconv"], padding="legacy"
        )
        other.load_state_dict(layer.state_dict())
        assert {k: list(v.shape) for k, v in other.state_dict().items()} == case["legacy_state_dict"]
        layer = other
    out, grad, idx = run_case(layer, case)
    wanted = stored[f"{name}.legacy.idx"]
    known = wanted >= 0  # -1 stands for any of the windows of padding alone
    np.testing.assert_array_equal(idx.numpy()[known], wanted[known])
    assert_golden(out, stored[f"{name}.legacy.out"])
    assert_golden(grad, stored[f"{name}.legacy.grad"])


def test_released_padding_refuses_maps_it_cannot_cut() -> None:
    with pytest.raises(ConfigError, match="at least 7 x 7, got 5 x 9"):
        BiLevelRoutingAttention(32, padding="released")(torch.rand(1, 32, 5, 9))


@pytest.mark.parametrize("padding", ["masked", "legacy"])
@pytest.mark.parametrize("height,width", ODD_MAPS)
def test_any_map_keeps_its_shape(height: int, width: int, padding: str) -> None:
    layer = BiLevelRoutingAttention(16, 2, padding=padding)
    x = torch.randn(2, 16, height, width, requires_grad=True)
    out = layer(x)
    assert out.shape == x.shape
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("height,width", ODD_MAPS)
def test_masked_layer_with_all_regions_is_full_attention(height: int, width: int) -> None:
    torch.manual_seed(0)
    layer = BiLevelRoutingAttention(16, 2, n_win=7, topk=1000, side_dwconv=3)
    x = torch.randn(2, 16, height, width)
    q, k, v = layer.qkv_linear(x).chunk(3, dim=1)
    heads = [part.flatten(2).unflatten(1, (2, 8)).transpose(2, 3) for part in (q, k, v)]  # (B, M, HW, D)
    logits = heads[0] @ heads[1].transpose(2, 3) * 16**-0.5
    mixed = (logits.softmax(-1) @ heads[2]).transpose(2, 3).reshape(x.shape)
    torch.testing.assert_close(layer(x), layer.output_linear(mixed + layer.lepe(v)), rtol=1e-5, atol=1e-5)


def test_masked_layer_ignores_what_padding_would_add() -> None:
    # With one region a side and a map that is a region, nothing is padded; the 7x7 cut of the same map pads
    torch.manual_seed(0)
    plain = BiLevelRoutingAttention(16, 2, n_win=1, topk=1)
    padded = BiLevelRoutingAttention(16, 2, n_win=7, topk=49)
    padded.load_state_dict(plain.state_dict())
    x = torch.randn(1, 16, 10, 10)
    torch.testing.assert_close(plain(x), padded(x), rtol=1e-5, atol=1e-5)


def test_routing_tells_regions_apart() -> None:
    # Identity projections, one channel direction per quadrant: each region must find itself first
    layer = BiLevelRoutingAttention(4, 1, n_win=2, topk=1, side_dwconv=0)
    with torch.no_grad():
        layer.qkv_linear.weight.copy_(torch.eye(4).repeat(3, 1)[:, :, None, None])
        layer.qkv_linear.bias.zero_()
    x = torch.zeros(1, 4, 5, 5)
    for region, (rows, cols) in enumerate(
        [(s, t) for s in (slice(0, 3), slice(3, 5)) for t in (slice(0, 3), slice(3, 5))]
    ):
        x[0, region, rows, cols] = 1.0
    idx, grid = layer.route(x)
    assert idx.flatten().tolist() == [0, 1, 2, 3]
    assert (grid.rows, grid.cols, grid.region_h, grid.region_w) == (2, 2, 3, 3)


@pytest.mark.parametrize("shape", [(1, 16, 1, 1), (2, 16, 9, 14)])
def test_zero_scale_is_the_identity(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    assert torch.equal(BiLevelRoutingAttention(16, 2, init_scale=0)(x), x)


def test_residual_form_adds_the_scaled_layer() -> None:
    torch.manual_seed(0)
    scaled, plain = BiLevelRoutingAttention(16, 2, init_scale=0.5), BiLevelRoutingAttention(16, 2)
    plain.load_state_dict({k: v for k, v in scaled.state_dict().items() if k != "gamma"})
    x = torch.randn(1, 16, 8, 8)
    torch.testing.assert_close(scaled(x), x + 0.5 * plain(x))


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_every_parameter_gets_a_gradient(backend: str) -> None:
    layer = BiLevelRoutingAttention(32, 0, init_scale=1e-2, backend=backend)
    layer(torch.randn(2, 32, 9, 11)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_gradcheck() -> None:
    torch.manual_seed(0)
    layer = BiLevelRoutingAttention(4, 2, n_win=2, topk=2, init_scale=0.5).double()
    x = torch.randn(1, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = BiLevelRoutingAttention(32, 1, n_win=3, topk=9)  # all regions: routing cannot differ by rounding
    x = torch.randn(1, 32, 8, 10)
    low = copy.deepcopy(layer).to(dtype)(x.to(dtype))
    assert low.dtype == dtype
    torch.testing.assert_close(low.float(), layer(x), rtol=2e-2, atol=2e-2)


def test_autocast_stays_close() -> None:
    torch.manual_seed(0)
    layer = BiLevelRoutingAttention(32, 1, n_win=4, topk=16, init_scale=0.5)
    x = torch.randn(1, 32, 8, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = layer(x)
    torch.testing.assert_close(low.float(), layer(x), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("side_dwconv", [0, 3])
@pytest.mark.parametrize("cls", [BiLevelRoutingAttention, CheckpointBRA])
def test_memory_format_is_kept_and_changes_nothing(cls: type, side_dwconv: int, trained: bool) -> None:
    torch.manual_seed(0)
    layer = cls(32, 2, n_win=3, side_dwconv=side_dwconv)
    x = torch.randn(2, 32, 10, 13)
    with torch.set_grad_enabled(trained):
        plain, last = layer(x), layer(x.contiguous(memory_format=torch.channels_last))
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, plain, rtol=1e-5, atol=1e-5)


def test_training_and_inference_give_the_same() -> None:
    # They take different ways: see add_attention
    torch.manual_seed(0)
    for height, width in ODD_MAPS:
        for topk in (2, 49):
            layer = BiLevelRoutingAttention(32, 2, n_win=4, topk=topk)
            x = torch.randn(3, 32, height, width)
            given = x.clone()
            with torch.no_grad():
                inferred = layer(x)
            assert torch.equal(x, given)
            torch.testing.assert_close(inferred, layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
@pytest.mark.parametrize("shape", [(2, 16, 8, 12), (1, 16, 10, 13), (1, 16, 10, 10)])
def test_traces_to_torchscript(shape: tuple[int, ...], backend: str) -> None:
    torch.manual_seed(0)
    layer = BiLevelRoutingAttention(16, 2, init_scale=0.5, backend=backend).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own: that tracing is on its way out, and that sizes become fixed
        traced = torch.jit.trace(layer, torch.randn(shape))
    x = torch.randn(shape)
    torch.testing.assert_close(traced(x), layer(x), rtol=1e-5, atol=1e-5)


def test_older_keys_load_in_both_directions() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 32, 9, 9)
    older, ours = CheckpointBRA(32, 2), BiLevelRoutingAttention(32, 2)
    stored = older.state_dict()
    kept = list(stored)
    ours.load_state_dict(stored)
    assert list(stored) == kept
    torch.testing.assert_close(ours(x), older(x), rtol=1e-5, atol=1e-5)
    nested = nn.Sequential(CheckpointBRA(32, 2))
    nested.load_state_dict({f"0.{key}": value for key, value in ours.state_dict().items()})
    torch.testing.assert_close(nested(x), ours(x), rtol=1e-5, atol=1e-5)
    assert {k: v.shape for k, v in released_to_ours(stored).items()} == {
        k: v.shape for k, v in ours.state_dict().items()
    }


def test_wrong_older_shape_is_reported() -> None:
    stored = CheckpointBRA(16, 2).state_dict()
    with pytest.raises(RuntimeError, match="size mismatch"):
        BiLevelRoutingAttention(32, 2).load_state_dict(stored)


@pytest.mark.parametrize("side", [0, 1, 5])
def test_a_layer_can_be_copied(side: int) -> None:
    layer = BiLevelRoutingAttention(16, 2, side_dwconv=side, init_scale=0.1)
    x = torch.randn(1, 16, 7, 7)
    torch.testing.assert_close(copy.deepcopy(layer)(x), layer(x))


@pytest.mark.skipif(
    torch.__version__ < (2, 7), reason="the solver of torch 2.6 cannot see that rounding up never makes a map smaller"
)
@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_exports_with_open_sizes(backend: str) -> None:
    torch.manual_seed(0)
    layer = BiLevelRoutingAttention(16, 2, init_scale=0.5, backend=backend).eval()
    batch, height, width = (torch.export.Dim(name, min=low, max=512) for name, low in (("b", 1), ("h", 8), ("w", 8)))
    sizes = {"x": {0: batch, 2: height, 3: width}}
    program = torch.export.export(layer, (torch.randn(2, 16, 20, 24),), dynamic_shapes=sizes, strict=False).module()
    for shape in ((1, 16, 14, 21), (3, 16, 9, 33), (2, 16, 10, 10)):  # divides, is padded, has empty regions
        x = torch.randn(shape)
        torch.testing.assert_close(program(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "dim,wanted,heads",
    [
        (32, None, 1),
        (256, 0, 8),
        (16, 0, 1),  # below a head's usual width
        (48, 0, 1),  # dim // 32 divides
        (112, 0, 4),  # 3 does not: 28 channels a head are nearer to 32 than 56
        (64, 8, 8),
    ],
)
def test_head_count(dim: int, wanted: int | None, heads: int) -> None:
    assert head_count(dim, wanted) == heads


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"num_heads": 3}, "3 must divide 32"),
        ({"n_win": 0}, "n_win"),
        ({"topk": 0}, "topk"),
        ({"topk": 2.5}, "topk must be a whole number"),
        ({"n_win": True}, "n_win must be a whole number"),
        ({"num_heads": 2.0}, "num_heads must be a whole number"),
        ({"side_dwconv": 3.0}, "side_dwconv must be a whole number"),
        ({"side_dwconv": 4}, "odd"),
        ({"padding": "zeros"}, "masked, legacy, released"),
    ],
)
def test_settings_that_make_no_layer(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BiLevelRoutingAttention(32, **settings)


def test_a_yaml_row_is_residual_and_an_empty_one_works() -> None:
    spec = layer_spec("BiLevelRoutingAttention")
    assert (spec.width, spec.row) == ("same", ("num_heads", "n_win", "topk"))
    layer = spec.cls(64, **spec.row_defaults)
    x = torch.randn(1, 64, 5, 6)
    assert layer.num_heads == 2
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_a_batch_of_no_images_goes_through(backend):
    x = torch.zeros(0, 32, 9, 5, requires_grad=True)
    layer = BiLevelRoutingAttention(32, backend=backend)
    with torch.no_grad():
        assert layer(x).shape == x.shape
    output = layer(x)
    output.sum().backward()
    assert output.shape == x.grad.shape == (0, 32, 9, 5)


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    layer = BiLevelRoutingAttention(16, 2, 4, backend="sdpa").requires_grad_(False)
    x = torch.randn(1, 16, 9, 9, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="is not implemented"):
        torch.autograd.grad(grad.square().sum(), x)
    layer.backend = "reference"
    (grad,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    assert torch.autograd.grad(grad.square().sum(), x)[0].abs().sum() > 0


def test_pruned_and_watched_projections_are_called() -> None:
    torch.manual_seed(0)
    layer = BiLevelRoutingAttention(16, 2, 4)
    prune.l1_unstructured(layer.output_linear, "weight", 0.5)
    calls = []
    layer.output_linear.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(1, 16, 8, 8)
    for _ in range(2):
        layer(x).sum().backward()
    assert len(calls) == 2
    layer.output_linear.weight_orig.data.mul_(3)
    with torch.no_grad():
        last = layer(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(layer(x), last, rtol=1e-5, atol=1e-5)


def test_what_a_hook_keeps_stays_as_it_was() -> None:
    layer = BiLevelRoutingAttention(16, 2, 4)
    kept = []
    layer.lepe.register_forward_hook(lambda _, inputs, output: kept.append((output, output.clone())))
    with torch.no_grad():
        layer(torch.randn(1, 16, 8, 8))
    assert torch.equal(*kept[0])


def test_gradients_of_single_samples() -> None:
    torch.manual_seed(0)
    layer = BiLevelRoutingAttention(16, 2, 4)
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    x = torch.randn(2, 16, 8, 9)

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, parameters, (x,)).square().sum()

    transformed = torch.func.grad(loss)(parameters, x)
    plain = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    for ours, wanted in zip(transformed.values(), plain, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_the_default_device_is_no_concern_of_the_layer() -> None:
    layer, x = BiLevelRoutingAttention(16, 2, 4), torch.randn(1, 16, 9, 10)
    wanted = layer(x)
    with torch.device("meta"):
        out = layer(x)
        out.sum().backward()
    assert torch.equal(out, wanted)
    assert layer.lepe.weight.grad.abs().sum() > 0


def test_threads_may_change_before_a_checkpointed_backward_pass() -> None:
    layer, x = BiLevelRoutingAttention(64, 2, 8, topk=16), torch.randn(2, 64, 80, 80)
    torch.set_num_threads(2)
    out = checkpoint(layer, x, use_reentrant=False)
    torch.set_num_threads(1)
    out.sum().backward()
    assert layer.qkv_linear.weight.grad.abs().sum() > 0

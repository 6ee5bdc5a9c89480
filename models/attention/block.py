"""The block around an attention: a convolution for position, the attention, an MLP, each on a residual branch.

"BiFormer: Vision Transformer with Bi-Level Routing Attention", Zhu et al., CVPR 2023
(https://arxiv.org/abs/2303.08810), section 3.3; with bi-level routing attention inside it is the paper's own, see
:mod:`models.attention.biformer`.

Differs from the released code in:

- Layer scale, when asked for, is on the position branch as well, so that a scale of 0 makes the block the identity.
- The block takes and gives (B, C, H, W), and any attention of that form can be put in.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from models.attention.base import layer_scale, scaled


class DropPath(nn.Module):
    """Leave out a branch for some images of a batch in training, and scale it up for the others to make up for it.

    "Deep Networks with Stochastic Depth", Huang et al., ECCV 2016 (https://arxiv.org/abs/1603.09382), section 3.
    Differs from the paper in: the scale is applied in training, so that evaluation needs none.

    Args:
        p: probability to leave out, 0 to 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) to the same shape."""
        if not self.training or self.p == 0:
            return x
        kept = 1.0 - self.p
        factor = x.new_empty([x.shape[0]] + [1] * (x.ndim - 1)).bernoulli_(kept)
        return x * (factor / kept if kept else factor)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"


class AttentionBlock(nn.Module):
    """Position convolution, attention and MLP, each added to the map: (B, C, H, W) to the same shape.

    Args:
        dim: C, channels in and out.
        make_attention: gives the attention, (B, C, H, W) to the same shape; called once, between the making of the
            other parts, so that one seed gives one set of weights.
        mlp_ratio: hidden channels of the MLP per channel.
        init_scale: None for plain residuals. A number multiplies each branch by a vector that starts there: ``gamma0``
            position, ``gamma1`` attention, ``gamma2`` MLP. With 0 the block starts as the identity.
        drop_path: probability to skip the attention, and the MLP, of an image in training.
    """

    def __init__(
        self,
        dim: int,
        make_attention: Callable[[], nn.Module],
        *,
        mlp_ratio: float = 3,
        init_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = make_attention()
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        # The published keys are mlp.0 and mlp.3: a place is kept free between them
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.Identity(), nn.GELU(), nn.Linear(hidden, dim))
        self.drop_path = DropPath(drop_path)
        self.gamma0, self.gamma1, self.gamma2 = (layer_scale(dim, init_scale) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        x = x + scaled(self.pos_embed(x), self.gamma0)
        attended = self.attn(_channels_first(self.norm1(_channels_last(x))))
        x = x + self.drop_path(scaled(attended, self.gamma1))
        mixed = _channels_first(self.mlp(self.norm2(_channels_last(x))))
        return x + self.drop_path(scaled(mixed, self.gamma2))


def _channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def _channels_first(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W)."""
    return x.permute(0, 3, 1, 2)

"""Triton kernels of bi-level routing attention: no copy of keys and values, no atomics.

The attention is that of "BiFormer: Vision Transformer with Bi-Level Routing Attention", Zhu et al., CVPR 2023
(https://arxiv.org/abs/2303.08810); the running softmax that of "Online normalizer calculation for softmax",
Milakov and Gimelshein, 2018 (https://arxiv.org/abs/1805.02867), and the backward pass from its sums that of
"FlashAttention-2", Dao, 2023 (https://arxiv.org/abs/2307.08691).

A row is a region of an image; rows count through the batch. Each program owns some tokens of one row and head. For the
output and for the queries' gradient it walks the keys of the rows that its row is routed to, for the gradients of keys
and values the queries of the rows that are routed to its row. The tokens of those rows are walked as one sequence, so
that small regions fill a tile as well as large ones do.

This file imports triton, so nothing imports it before the backend is used.
"""

import triton
import triton.language as tl

# Triton compiles these functions rather than running them. The tensors, all contiguous:
#   the packed tokens and their gradient: rows x tokens x 3 x heads x HEAD, where heads x HEAD are the channels
#   the result and its gradient: rows x tokens x heads x HEAD
#   softmax sums and deltas: rows x heads x tokens, float32
# Logits are in units of log2(e), as powers of two are what the hardware has.
# Pointers to where a token's row begins are vectors, one for each token, as walked tokens lie in several rows; for a
# program's own tokens, which lie in one, `token * 0` makes a vector of it.


@triton.jit
def _load_tokens(start, token, step, head_width: tl.constexpr, wanted, BLOCK_D: tl.constexpr):
    """Read (n, BLOCK_D) numbers of n tokens; zeros where not ``wanted``.

    Token t of a row is ``step * t`` numbers behind the pointer to its row in ``start`` (n,).
    """
    d = tl.arange(0, BLOCK_D)
    return tl.load(
        start[:, None] + (token * step)[:, None] + d[None, :], wanted[:, None] & (d < head_width)[None, :], 0
    )


@triton.jit
def _store_tokens(start, token, step, head_width: tl.constexpr, wanted, values, BLOCK_D: tl.constexpr):
    """Write what :func:`_load_tokens` reads."""
    d = tl.arange(0, BLOCK_D)
    where = start[:, None] + (token * step)[:, None] + d[None, :]
    tl.store(where, values.to(start.dtype.element_ty), wanted[:, None] & (d < head_width)[None, :])


@triton.jit
def _is_real(row, token, regions, cols, region_h, region_w, height, width):
    """Whether a token of a row lies on the map rather than in its padding."""
    region = (row % regions).to(tl.int32)
    y = (region // cols) * region_h + token // region_w
    x = (region % cols) * region_w + token % region_w
    return (y < height) & (x < width)


@triton.jit
def _own_tokens(tokens, heads, BLOCK: tl.constexpr):
    """Row, head and tokens of this program; the programs of one row and head follow each other."""
    tiles = tl.cdiv(tokens, BLOCK)
    place = tl.program_id(0)
    token = (place % tiles) * BLOCK + tl.arange(0, BLOCK)
    return (place // tiles // heads).to(tl.int64), place // tiles % heads, token


@triton.jit
def _routed_keys(routed, row, first, topk, tokens, BLOCK: tl.constexpr):
    """Rows and tokens of some keys that a row looks at, and which of them there are."""
    place = first + tl.arange(0, BLOCK)
    there = place < topk * tokens
    return tl.load(routed + row * topk + place // tokens, there, 0), place % tokens, there


@triton.jit
def _product(a, b, PRECISION: tl.constexpr):
    """Matrix product, summed in float32; "wide" also widens the numbers, for where halves cannot be multiplied."""
    if PRECISION == "wide":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def attend_kernel(
    qkv, routed, out, sums, scale, tokens, topk, heads, regions, cols, region_h, region_w, height, width,
    HEAD: tl.constexpr, BLOCK_D: tl.constexpr, OWN: tl.constexpr, WALK: tl.constexpr, MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Output and softmax sums of OWN queries."""
    row, head, token = _own_tokens(tokens, heads, OWN)
    channels = heads * HEAD
    step = 3 * channels
    inside = token < tokens
    own = qkv + row * tokens * step + head * HEAD + token * 0
    q = _load_tokens(own, token, step, HEAD, inside, BLOCK_D)

    highest = tl.full([OWN], float("-inf"), tl.float32)
    total = tl.zeros([OWN], tl.float32)
    mixed = tl.zeros([OWN, BLOCK_D], tl.float32)
    for first in range(0, topk * tokens, WALK):
        key_row, key_token, there = _routed_keys(routed, row, first, topk, tokens, WALK)
        near = qkv + key_row * tokens * step + head * HEAD
        k = _load_tokens(near + channels, key_token, step, HEAD, there, BLOCK_D)
        v = _load_tokens(near + 2 * channels, key_token, step, HEAD, there, BLOCK_D)
        if MASKED:
            there = there & _is_real(key_row, key_token, regions, cols, region_h, region_w, height, width)
        logits = _product(q, tl.trans(k), PRECISION) * scale
        logits = tl.where(there[None, :], logits, float("-inf"))
        # The first token of a routed region is always real, so no maximum stays infinite
        higher = tl.maximum(highest, tl.max(logits, 1))
        shares = tl.exp2(logits - higher[:, None])
        shrink = tl.exp2(highest - higher)
        total = total * shrink + tl.sum(shares, 1)
        mixed = mixed * shrink[:, None] + _product(shares.to(v.dtype), v, PRECISION)
        highest = higher

    _store_tokens(out + row * tokens * channels + head * HEAD + token * 0, token, channels, HEAD, inside,
                  mixed / total[:, None], BLOCK_D)  # fmt: skip
    tl.store(sums + (row * heads + head) * tokens + token, highest + tl.log2(total), inside)


@triton.jit
def grad_queries_kernel(
    qkv, routed, out, sums, grad_out, deltas, grad_qkv, scale, logit_scale, tokens, topk, heads, regions, cols,
    region_h, region_w, height, width,
    HEAD: tl.constexpr, BLOCK_D: tl.constexpr, OWN: tl.constexpr, WALK: tl.constexpr, MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of OWN queries, and for the other kernel how much of each query's gradient its softmax takes back."""
    row, head, token = _own_tokens(tokens, heads, OWN)
    channels = heads * HEAD
    step = 3 * channels
    inside = token < tokens
    own = row * tokens * step + head * HEAD + token * 0
    own_out = row * tokens * channels + head * HEAD + token * 0
    own_sums = (row * heads + head) * tokens + token
    q = _load_tokens(qkv + own, token, step, HEAD, inside, BLOCK_D)
    grad = _load_tokens(grad_out + own_out, token, channels, HEAD, inside, BLOCK_D)
    result = _load_tokens(out + own_out, token, channels, HEAD, inside, BLOCK_D)
    delta = tl.sum(grad.to(tl.float32) * result.to(tl.float32), 1)
    tl.store(deltas + own_sums, delta, inside)
    log_total = tl.load(sums + own_sums, inside, 0)

    grad_q = tl.zeros([OWN, BLOCK_D], tl.float32)
    for first in range(0, topk * tokens, WALK):
        key_row, key_token, there = _routed_keys(routed, row, first, topk, tokens, WALK)
        near = qkv + key_row * tokens * step + head * HEAD
        k = _load_tokens(near + channels, key_token, step, HEAD, there, BLOCK_D)
        v = _load_tokens(near + 2 * channels, key_token, step, HEAD, there, BLOCK_D)
        if MASKED:
            there = there & _is_real(key_row, key_token, regions, cols, region_h, region_w, height, width)
        logits = _product(q, tl.trans(k), PRECISION) * logit_scale
        shares = tl.where(there[None, :], tl.exp2(logits - log_total[:, None]), 0.0)
        grad_shares = _product(grad, tl.trans(v), PRECISION)
        grad_logits = shares * (grad_shares - delta[:, None])
        grad_q += _product(grad_logits.to(k.dtype), k, PRECISION)
    _store_tokens(grad_qkv + own, token, step, HEAD, inside, grad_q * scale, BLOCK_D)


@triton.jit
def grad_keys_values_kernel(
    qkv, lookers, bounds, sums, grad_out, deltas, grad_qkv, scale, logit_scale, tokens, heads, regions, cols,
    region_h, region_w, height, width,
    HEAD: tl.constexpr, BLOCK_D: tl.constexpr, OWN: tl.constexpr, WALK: tl.constexpr, MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of OWN keys and their values: rows ``lookers[bounds[row]:bounds[row + 1]]`` look at this row."""
    row, head, token = _own_tokens(tokens, heads, OWN)
    channels = heads * HEAD
    step = 3 * channels
    inside = token < tokens
    own = row * tokens * step + head * HEAD + token * 0
    k = _load_tokens(qkv + own + channels, token, step, HEAD, inside, BLOCK_D)
    v = _load_tokens(qkv + own + 2 * channels, token, step, HEAD, inside, BLOCK_D)
    seen = inside
    if MASKED:
        seen = seen & _is_real(row, token, regions, cols, region_h, region_w, height, width)

    grad_k = tl.zeros([OWN, BLOCK_D], tl.float32)
    grad_v = tl.zeros([OWN, BLOCK_D], tl.float32)
    begin = tl.load(bounds + row)
    queries = ((tl.load(bounds + row + 1) - begin) * tokens).to(tl.int32)
    for first in range(0, queries, WALK):
        place = first + tl.arange(0, WALK)
        there = place < queries
        query_row = tl.load(lookers + begin + place // tokens, there, 0)
        query_token = place % tokens
        q = _load_tokens(qkv + query_row * tokens * step + head * HEAD, query_token, step, HEAD, there, BLOCK_D)
        grad = _load_tokens(grad_out + query_row * tokens * channels + head * HEAD, query_token, channels, HEAD, there,
                            BLOCK_D)  # fmt: skip
        of_query = (query_row * heads + head) * tokens + query_token
        log_total = tl.load(sums + of_query, there, 0)
        delta = tl.load(deltas + of_query, there, 0)
        logits = _product(k, tl.trans(q), PRECISION) * logit_scale  # (OWN, WALK): keys by queries
        shares = tl.where(seen[:, None] & there[None, :], tl.exp2(logits - log_total[None, :]), 0.0)
        grad_v += _product(shares.to(grad.dtype), grad, PRECISION)
        grad_shares = _product(v, tl.trans(grad), PRECISION)
        grad_logits = shares * (grad_shares - delta[None, :])
        grad_k += _product(grad_logits.to(q.dtype), q, PRECISION)
    _store_tokens(grad_qkv + own + channels, token, step, HEAD, inside, grad_k * scale, BLOCK_D)
    _store_tokens(grad_qkv + own + 2 * channels, token, step, HEAD, inside, grad_v, BLOCK_D)

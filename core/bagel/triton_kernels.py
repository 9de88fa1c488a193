"""The Triton kernels behind core.bagel.fused, and their launch.

Block sizes are fixed, never chosen by timing, so that the same content gives the same bits on the same card. All
arithmetic is float32. Axes as in fused.py; G = N / M query heads share a key-value head.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

SILU_BLOCK = 1024
HEADS_BLOCK = 4
CHUNK = 128
"""Rows of the cache for one program of decode_attention. It decides the order of the sum, so it is part of a result."""
ROWS_BLOCK = 64
INT8_ROWS, INT8_BLOCK = 8, 512
"""Rows of the weights for one program of int8_row, and their numbers that it reads at once."""
MERGE_BLOCK = 32
"""Chunks that are merged at once."""
OPTIONS = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}
"""Stated because the defaults change with Triton's version."""
LOG2_E = math.log2(math.e)
MIN_DOT = 16
"""The smallest side of a tile in tl.dot."""
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether the kernels run on the CPU, for tests. Triton's interpreter multiplies the bits of bfloat16 in tl.dot."""


@triton.jit
def _silu_mul(gate_up, out, inner, row_stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < inner
    gate = tl.load(gate_up + row * row_stride + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * row_stride + inner + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * inner + column, gate / (1.0 + tl.exp(-gate)) * up, mask=inside)


@triton.jit
def _norm_rotate_put(
    qkv, q_weight, k_weight, eps, cos, sin, queries, keys, values, row,
    qkv_stride, cos_stride, sin_stride, q_row_stride, q_head_stride, k_row_stride, k_head_stride,
    v_row_stride, v_head_stride,
    N: tl.constexpr, M: tl.constexpr, H: tl.constexpr, H_BLOCK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[:, None]
    column = tl.arange(0, H_BLOCK)[None, :]
    inside = (head < N + 2 * M) & (column < H)
    partner = tl.where(column < H // 2, column + H // 2, column - H // 2)
    here = qkv + token * qkv_stride + head * H
    x = tl.load(here + column, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(here + partner, mask=inside, other=0.0).to(tl.float32)
    is_query, is_key = inside & (head < N), inside & (head >= N) & (head < N + M)
    weight = tl.load(q_weight + column, mask=is_query, other=0.0).to(tl.float32)
    weight += tl.load(k_weight + column, mask=is_key, other=0.0).to(tl.float32)
    other_weight = tl.load(q_weight + partner, mask=is_query, other=0.0).to(tl.float32)
    other_weight += tl.load(k_weight + partner, mask=is_key, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, axis=1) / H + eps)[:, None]
    turn = tl.load(cos + token * cos_stride + column, mask=column < H, other=0.0)
    cross = tl.load(sin + token * sin_stride + column, mask=column < H, other=0.0)
    rotated = x * scale * weight * turn + other * scale * other_weight * cross
    to = token
    if row is not None:
        to = tl.load(row)
    tl.store(queries + token * q_row_stride + head * q_head_stride + column, rotated, mask=is_query)
    tl.store(keys + to * k_row_stride + (head - N) * k_head_stride + column, rotated, mask=is_key)
    tl.store(values + to * v_row_stride + (head - N - M) * v_head_stride + column, x, mask=inside & (head >= N + M))


@triton.jit
def _attend_chunk(
    query, keys, values, length, sums, tops, weights, scale,
    k_row_stride, k_head_stride, v_row_stride, v_head_stride,
    N: tl.constexpr, G: tl.constexpr, G_BLOCK: tl.constexpr, H: tl.constexpr, H_BLOCK: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    chunk, kv_head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    stop = tl.load(length)
    if chunk * CHUNK >= stop:
        return
    member, column = tl.arange(0, G_BLOCK)[:, None], tl.arange(0, H_BLOCK)[None, :]
    head = kv_head * G + member
    q_mask = (member < G) & (column < H)
    q = tl.load(query + head * H + column, mask=q_mask, other=0.0)
    if INTERPRETED:
        q = q.to(tl.float32)
    top = tl.full((G_BLOCK,), float("-inf"), tl.float32)
    weight = tl.zeros((G_BLOCK,), tl.float32)
    total = tl.zeros((G_BLOCK, H_BLOCK), tl.float32)
    for start in range(0, CHUNK, BLOCK):
        row = chunk * CHUNK + start + tl.arange(0, BLOCK)[:, None]
        mask = (row < stop) & (column < H)
        k = tl.load(keys + row * k_row_stride + kv_head * k_head_stride + column, mask=mask, other=0.0)
        v = tl.load(values + row * v_row_stride + kv_head * v_head_stride + column, mask=mask, other=0.0)
        if INTERPRETED:
            k, v = k.to(tl.float32), v.to(tl.float32)
        score = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        score = tl.where(tl.trans(row < stop), score, float("-inf"))
        new_top = tl.maximum(top, tl.max(score, axis=1))
        kept, p = tl.exp2(top - new_top), tl.exp2(score - new_top[:, None])
        weight = weight * kept + tl.sum(p, axis=1)
        total = total * kept[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        top = new_top
    tl.store(sums + (chunk * N + head) * H + column, total, mask=q_mask)
    each = chunk * N + kv_head * G + tl.arange(0, G_BLOCK)
    tl.store(tops + each, top, mask=tl.arange(0, G_BLOCK) < G)
    tl.store(weights + each, weight, mask=tl.arange(0, G_BLOCK) < G)


@triton.jit
def _merge_chunks(
    sums, tops, weights, length, out,
    N: tl.constexpr, H: tl.constexpr, H_BLOCK: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, H_BLOCK)
    used = tl.cdiv(tl.load(length), CHUNK)
    top = float("-inf")
    weight = 0.0
    total = tl.zeros((H_BLOCK,), tl.float32)
    for start in range(0, used, BLOCK):
        chunk = start + tl.arange(0, BLOCK)
        inside = chunk < used
        tops_here = tl.load(tops + chunk * N + head, mask=inside, other=float("-inf"))
        new_top = tl.maximum(top, tl.max(tops_here, axis=0))
        kept, share = tl.exp2(top - new_top), tl.exp2(tops_here - new_top)
        weight = weight * kept + tl.sum(share * tl.load(weights + chunk * N + head, mask=inside, other=0.0))
        mask = inside[:, None] & (column < H)[None, :]
        part = tl.load(sums + (chunk[:, None] * N + head) * H + column[None, :], mask=mask, other=0.0)
        total = total * kept + tl.sum(share[:, None] * part, axis=0)
        top = new_top
    tl.store(out + head * H + column, total / weight, mask=column < H)


@triton.jit
def _int8_row(x, weight, scale, bias, out, width, outputs, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    start_of_row = weight + row.to(tl.int64)[:, None] * width
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)[None, :]
        w = tl.load(start_of_row + column, mask=(row < outputs)[:, None] & (column < width), other=0).to(tl.float32)
        total += w * tl.load(x + column, mask=column < width, other=0.0).to(tl.float32)
    result = tl.sum(total, axis=1) * tl.load(scale + row, mask=row < outputs, other=0.0).to(tl.float32)
    if bias is not None:
        result += tl.load(bias + row, mask=row < outputs, other=0.0).to(tl.float32)
    tl.store(out + row, result, mask=row < outputs)


def silu_mul(gate_up: Tensor) -> Tensor:
    """See fused.silu_mul."""
    rows = gate_up.view(-1, gate_up.shape[-1])
    inner = rows.shape[1] // 2
    out = gate_up.new_empty((*gate_up.shape[:-1], inner))
    with torch.cuda.device_of(gate_up):
        _silu_mul[rows.shape[0], triton.cdiv(inner, SILU_BLOCK)](
            rows, out, inner, rows.stride(0), BLOCK=SILU_BLOCK, **OPTIONS
        )
    return out


def norm_rotate_put(
    qkv: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    row: Tensor | None = None,
) -> None:
    """See fused.norm_rotate_put."""
    heads, kv_heads, head_dim = queries.shape[1], keys.shape[1], q_weight.shape[0]
    tokens = qkv.shape[0]
    one = cos.shape[0] == 1
    with torch.cuda.device_of(qkv):
        _norm_rotate_put[tokens, triton.cdiv(heads + 2 * kv_heads, HEADS_BLOCK)](
            qkv, q_weight, k_weight, eps, cos, sin, queries, keys, values, row,
            qkv.stride(0), 0 if one else cos.stride(0), 0 if one else sin.stride(0),
            *queries.stride()[:2], *keys.stride()[:2], *values.stride()[:2],
            N=heads, M=kv_heads, H=head_dim, H_BLOCK=triton.next_power_of_2(head_dim),
            BLOCK=HEADS_BLOCK, **OPTIONS | {"num_warps": 1},
        )  # fmt: skip


def decode_attention(query: Tensor, keys: Tensor, values: Tensor, first: int, length: Tensor) -> Tensor:
    """See fused.decode_attention. The grid covers the whole buffer; programs past `length` return at once."""
    (heads, head_dim), kv_heads = query.shape, keys.shape[1]
    chunks = triton.cdiv(keys.shape[0] - first, CHUNK)
    head_block = max(MIN_DOT, triton.next_power_of_2(head_dim))
    group = heads // kv_heads
    sums = query.new_empty((chunks, heads, head_dim), dtype=torch.float32)
    tops, weights = sums.new_empty((2, chunks, heads))
    out = torch.empty_like(query)
    with torch.cuda.device_of(query):
        _attend_chunk[chunks, kv_heads](
            query, keys[first:], values[first:], length, sums, tops, weights, LOG2_E / head_dim**0.5,
            *keys.stride()[:2], *values.stride()[:2],
            N=heads, G=group, G_BLOCK=max(MIN_DOT, triton.next_power_of_2(group)), H=head_dim, H_BLOCK=head_block,
            CHUNK=CHUNK, BLOCK=ROWS_BLOCK, **OPTIONS,
        )  # fmt: skip
        _merge_chunks[(heads,)](
            sums, tops, weights, length, out, N=heads, H=head_dim, H_BLOCK=head_block,
            CHUNK=CHUNK, BLOCK=MERGE_BLOCK, **OPTIONS,
        )  # fmt: skip
    return out


def int8_row(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """See fused.int8_row."""
    outputs, width = weight.shape
    out = x.new_empty((*x.shape[:-1], outputs))
    with torch.cuda.device_of(x):
        _int8_row[(triton.cdiv(outputs, INT8_ROWS),)](
            x.contiguous(), weight, scale, bias, out, width, outputs, ROWS=INT8_ROWS, BLOCK=INT8_BLOCK, **OPTIONS
        )
    return out

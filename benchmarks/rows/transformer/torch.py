"""Torch in eager mode, with its fused attention and AdamW."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.loops import repeated
from benchmarks.loops.torch import device, fill, loop, tensor
from benchmarks.protocol import Call, Case
from benchmarks.rows.transformer import DECAY, EPS, RATE, Sizes, form, matrices, unstacked


class Block(nn.Module):
    """Attention, with one product for queries, keys and values, and the feed-forward network."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim, self.heads = sizes.dim, sizes.heads
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(dim, EPS), nn.LayerNorm(dim, EPS)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """To the same."""
        batch, time, dim = x.shape
        heads = self.qkv(self.attention_norm(x)).view(batch, time, 3, self.heads, dim // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, time, dim))
        return x + self.down(F.gelu(self.up(self.feed_forward_norm(x)), approximate="tanh"))


class GPT(nn.Module):
    """The network."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embed, self.positions = (
            nn.Embedding(sizes.vocabulary, sizes.dim),
            nn.Embedding(sizes.time, sizes.dim),
        )
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(sizes.dim, EPS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """To logits."""
        x = self.embed(tokens) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.embed.weight)


def contestants(case: Case) -> dict[str, Call]:
    """One step."""
    weights, sizes = case.given["weights"], case.given["sizes"]
    model = GPT(sizes).to(device())
    fill(model.norm, weights["norm"])
    with torch.no_grad():
        model.embed.weight.copy_(tensor(weights["embed"]["embedding"]))
        model.positions.weight.copy_(tensor(weights["positions"]["embedding"]))
    for block, each in zip(model.blocks, unstacked(weights), strict=True):
        part = matrices(each)
        fill(block, {name: part[name] for name in ("attention_norm", "feed_forward_norm")})
        fill(block, part["feed_forward"] | {"out": part["attention"]["out"]})
        three = [part["attention"][name] for name in ("query", "key", "value")]
        with torch.no_grad():
            block.qkv.weight.copy_(torch.cat([tensor(p["kernel"]).T for p in three]))
            block.qkv.bias.copy_(torch.cat([tensor(p["bias"]) for p in three]))
    batch = tuple(map(tensor, case.given["batch"]))
    made = loop(model, partial(torch.optim.AdamW, lr=RATE, weight_decay=DECAY, fused=True))
    return {f"eager, {form(False)}": repeated(made, batch)}

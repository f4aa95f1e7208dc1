"""A Llama of 24 layers, one training step

Rotary positions, RMSNorm, grouped-query attention and a gated MLP, with the names that
`transformers` gives them, here only 32 wide.
"""

import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)


class LlamaRMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotate_half(x):
    one, other = x.chunk(2, dim=-1)
    return torch.cat((-other, one), dim=-1)


def apply_rotary(x, cos, sin):
    return x * cos + rotate_half(x) * sin


class LlamaAttention(nn.Module):
    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.size = width // heads
        self.groups = heads // shared
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, shared * self.size, bias=False)
        self.v_proj = nn.Linear(width, shared * self.size, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x, cos, sin):
        q, k, v = (
            project(x).unflatten(-1, (-1, self.size)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
        k, v = (part.repeat_interleave(self.groups, dim=1) for part in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class LlamaMLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, 3 * width, bias=False)
        self.up_proj = nn.Linear(width, 3 * width, bias=False)
        self.down_proj = nn.Linear(3 * width, width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaDecoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.input_layernorm = LlamaRMSNorm(width)
        self.self_attn = LlamaAttention(width, heads, shared)
        self.post_attention_layernorm = LlamaRMSNorm(width)
        self.mlp = LlamaMLP(width)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self, vocabulary: int, layers: int, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(LlamaDecoderLayer(width, heads, shared) for _ in range(layers))
        self.norm = LlamaRMSNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.size = width // heads

    def forward(self, tokens):
        x = self.embed_tokens(tokens)
        turns = 10_000.0 ** (-torch.arange(0, self.size, 2) / self.size)
        angles = (torch.arange(tokens.shape[1])[:, None] * turns).repeat(1, 2)
        cos, sin = angles.cos(), angles.sin()
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.lm_head(self.norm(x))


model = Llama(vocabulary=100, layers=24, width=32, heads=4, shared=2)
tokens = torch.randint(100, (2, 17))
logits = model(tokens[:, :-1])
loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
loss.backward()

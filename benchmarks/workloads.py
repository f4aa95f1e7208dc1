"""The training steps that recording is timed on, each from its name to a function that runs one.

They span what costs: four nodes run many times, thousands of small nodes in a row or side by side,
and models where a few hundred nodes read large tensors. Weights are random, the data fixed. No
package but PyTorch is needed; with `transformers` installed, three of its architectures join in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional

Seen = Callable[[Tensor], None]
"""Called with the loss of each pass, between forward and backward."""


def see_nothing(loss: Tensor) -> None:
    """Nothing is done between forward and backward."""


def nothing() -> None:
    """Nothing is done before or after a pass."""


@dataclass(frozen=True)
class Workload:
    """A training step: as many passes as `passes`, each with what comes before and after it.

    `loss_of(data)` is the loss; `model` holds the tensors that are trained.
    """

    model: nn.Module
    loss_of: Callable[[Tensor], Tensor]
    data: Tensor
    before: Callable[[], None] = nothing
    after: Callable[[], None] = nothing
    passes: int = 1

    def step(self, seen: Seen = see_nothing) -> None:
        """Train for a step."""
        for _ in range(self.passes):
            self.before()
            loss = self.loss_of(self.data)
            seen(loss)
            loss.backward()
            self.after()


def make(name: str) -> Workload:
    """Make the workload of that name, with weights that are the same each time."""
    torch.manual_seed(0)
    return (WORKLOADS | TRANSFORMERS)[name]()


def _training(model: nn.Module, loss_of: Callable[[Tensor], Tensor], data: Tensor) -> Workload:
    """Forward, backward, the optimizer's step: as a training loop has them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    return Workload(model, loss_of, data, optimizer.zero_grad, optimizer.step)


class _Holding(nn.Module):
    """One tensor to train."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(value)


# ---- small nodes


def tiny_sgd() -> Workload:
    """Gradient descent by hand: 200 passes over 4 nodes, in a step of 200 epochs."""
    model = _Holding(torch.ones(1))
    b = model.w

    def loss_of(target: Tensor) -> Tensor:
        return torch.sum((b - target) ** 2)

    def before() -> None:
        b.grad = torch.zeros(1)

    def after() -> None:
        b.data = b.data - b.grad * (1 / 100) / 10

    return Workload(model, loss_of, torch.full((1, 100), 100.0), before, after, passes=200)


def mlp() -> Workload:
    """1,000 times Linear and ReLU, 64 wide, initialised to keep the size of what flows."""
    model = nn.Sequential(*(layer for _ in range(1000) for layer in (nn.Linear(64, 64), nn.ReLU())))
    for layer in model[::2]:
        nn.init.kaiming_normal_(layer.weight)  # the default makes denormals, 40 times as slow
        nn.init.zeros_(layer.bias)
    return _training(model, lambda x: model(x).square().mean(), torch.randn(32, 64))


def lstm() -> Workload:
    """An LSTMCell of 32 unrolled over 2,000 steps."""
    cell = nn.LSTMCell(16, 32)

    def loss_of(inputs: Tensor) -> Tensor:
        hidden, state = torch.zeros(4, 32), torch.zeros(4, 32)
        for x in inputs:
            hidden, state = cell(x, (hidden, state))
        return hidden.square().mean()

    return _training(cell, loss_of, torch.randn(2000, 4, 16))


def wide() -> Workload:
    """A sum over 3,000 small branches."""
    model = _Holding(torch.randn(64))
    w = model.w

    def loss_of(steps: Tensor) -> Tensor:
        branches = [torch.tanh(w * (k / 3000)).mean() for k in range(len(steps))]
        return torch.stack(branches).sum()

    def before() -> None:
        w.grad = None

    def after() -> None:
        with torch.no_grad():
            w.sub_(w.grad, alpha=1e-4)

    return Workload(model, loss_of, torch.zeros(3000), before, after)


# ---- convolutions


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y)) + self.downsample(x)
        return self.relu(y)


class _ResNet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
        )
        blocks: list[nn.Module] = []
        inputs = 64
        for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for number in range(count):
                blocks.append(_Bottleneck(inputs, width, stride if number == 0 else 1))
                inputs = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


def resnet50() -> Workload:
    """ResNet-50 on four images of 224 by 224."""
    model = _ResNet50()
    images, labels = torch.randn(4, 3, 224, 224), torch.randint(1000, (4,))
    return _training(model, lambda images: functional.cross_entropy(model(images), labels), images)


# ---- transformers


class _GPT2Block(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.c_attn, self.c_proj = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.c_fc, self.c_out = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
        self.dropout = nn.Dropout(0.1)

    def _attend(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.c_attn(x).split(x.shape[-1], dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.dropout(self.c_proj(mixed.transpose(1, 2).flatten(-2)))

    def _widen(self, x: Tensor) -> Tensor:
        y = self.c_fc(x)
        inner = math.sqrt(2 / math.pi) * (y + 0.044715 * torch.pow(y, 3))
        return self.dropout(self.c_out(0.5 * y * (1 + torch.tanh(inner))))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(self.ln_1(x))
        return x + self._widen(self.ln_2(x))


class _GPT2(nn.Module):
    def __init__(self, size: int = 768, layers: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(50257, size), nn.Embedding(1024, size)
        self.h = nn.ModuleList(_GPT2Block(size, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(size)
        self.lm_head = nn.Linear(size, 50257, bias=False)
        for weight in (self.wte.weight, self.wpe.weight):
            nn.init.normal_(weight, std=0.02)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


def _next_token(model: nn.Module, tokens: Tensor) -> Tensor:
    scores = model(tokens)[:, :-1]
    return functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())


def gpt2() -> Workload:
    """GPT-2 small on two sequences of 128 tokens."""
    model = _GPT2()
    return _training(model, partial(_next_token, model), torch.randint(50257, (2, 128)))


class _RMSNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


class _LlamaBlock(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(size, size, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(size, 2 * size, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * size, size, bias=False)
        self.norm_1, self.norm_2 = _RMSNorm(size), _RMSNorm(size)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y = self.norm_1(x)
        query = _rotate(self._split(self.q(y)), cos, sin)
        key = _rotate(self._split(self.k(y)), cos, sin)
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
        mixed = (weights @ self._split(self.v(y))).transpose(1, 2).flatten(-2)
        x = x + self.o(mixed)
        y = self.norm_2(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class _Llama(nn.Module):
    def __init__(self, size: int = 256, layers: int = 24, heads: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, size)
        self.layers = nn.ModuleList(_LlamaBlock(size, heads) for _ in range(layers))
        self.norm, self.head = _RMSNorm(size), nn.Linear(size, 1000, bias=False)
        self.width = size // heads

    def forward(self, tokens: Tensor) -> Tensor:
        steps = torch.arange(tokens.shape[1], dtype=torch.float32)
        speeds = 10_000 ** (-torch.arange(0, self.width, 2) / self.width)
        angles = torch.outer(steps, speeds).repeat(1, 2)
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin())
        return self.head(self.norm(x))


def llama() -> Workload:
    """A decoder like Llama, 24 layers, 256 wide, on two sequences of 128 tokens."""
    model = _Llama()
    return _training(model, partial(_next_token, model), torch.randint(1000, (2, 128)))


# ---- architectures of `transformers`, with random weights


def _language_model(config: object) -> Workload:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config)
    return _of_tokens(model)


def _of_tokens(model: nn.Module) -> Workload:
    def loss_of(tokens: Tensor) -> Tensor:
        return model(input_ids=tokens, labels=tokens).loss

    return _training(model, loss_of, torch.randint(1000, (2, 64)))


def gpt2_of_transformers() -> Workload:
    """GPT-2 small as `transformers` writes it, on two sequences of 64 tokens."""
    from transformers import GPT2Config

    return _language_model(GPT2Config())


def llama_of_transformers() -> Workload:
    """Llama as `transformers` writes it, 24 layers, 256 wide."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=512, num_hidden_layers=24,
        num_attention_heads=8, num_key_value_heads=8,
    )  # fmt: skip
    return _language_model(config)


def bert_of_transformers() -> Workload:
    """BERT as `transformers` writes it, 12 layers, 256 wide."""
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=1024, num_attention_heads=8
    )
    model = BertForMaskedLM(config)
    return _of_tokens(model)


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "tiny SGD": tiny_sgd,
    "MLP": mlp,
    "ResNet-50": resnet50,
    "GPT-2": gpt2,
    "LSTM": lstm,
    "wide": wide,
    "Llama": llama,
}
TRANSFORMERS: dict[str, Callable[[], Workload]] = {
    "GPT-2 (transformers)": gpt2_of_transformers,
    "Llama (transformers)": llama_of_transformers,
    "BERT (transformers)": bert_of_transformers,
}
"""What `--transformers` adds."""


def has_transformers() -> bool:
    """Whether the package is installed."""
    return find_spec("transformers") is not None

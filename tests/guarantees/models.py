"""Small real models, each trained for a few optimizer steps; what was learned comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

STEPS = 3

Training = Callable[[], list[Tensor]]
"""Trains from a seed of its own, and gives what it learned."""


def learned(*models: nn.Module) -> list[Tensor]:
    """Parameters and buffers."""
    return [tensor.detach().clone() for model in models for tensor in model.state_dict().values()]


def train(
    model: nn.Module,
    loss_of: Callable[[nn.Module], Tensor],
    optimizer: torch.optim.Optimizer,
    steps: int = STEPS,
) -> list[Tensor]:
    """The usual loop."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return learned(model)


def transformer_encoder() -> list[Tensor]:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
    model = nn.TransformerEncoder(layer, 2)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return train(model, lambda m: m(torch.randn(2, 5, 16)).square().mean(), adam)


def lstm() -> list[Tensor]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(11, 8)
            self.lstm = nn.LSTM(8, 12, num_layers=2, batch_first=True, bidirectional=True)
            self.cell = nn.LSTMCell(24, 6)
            self.head = nn.Linear(6, 11)

        def forward(self, tokens: Tensor) -> Tensor:
            found, _ = self.lstm(self.embedding(tokens))
            state = None
            for t in range(found.shape[1]):
                state = self.cell(found[:, t], state)
            assert state is not None
            return self.head(state[0])

    def loss_of(model: nn.Module) -> Tensor:
        tokens = torch.randint(11, (3, 6))
        return functional.cross_entropy(model(tokens), tokens[:, 0])

    model = Net()
    return train(model, loss_of, torch.optim.RMSprop(model.parameters(), lr=1e-2))


class Block(nn.Module):
    """A residual block with BatchNorm, in-place ReLU and in-place addition."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.down = nn.Conv2d(channels, channels, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        found = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        found += self.down(x)
        return self.relu(found)


def resnet() -> list[Tensor]:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        Block(8), Block(8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    return train(
        model,
        lambda m: functional.cross_entropy(m(torch.randn(4, 3, 16, 16)), torch.arange(4)),
        sgd,
    )


def gan() -> list[Tensor]:
    generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6), nn.Tanh())
    critic = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.2, inplace=True), nn.Linear(16, 1))
    for_generator = torch.optim.Adam(generator.parameters(), lr=1e-2)
    for_critic = torch.optim.Adam(critic.parameters(), lr=1e-2)
    right, wrong = torch.ones(8, 1), torch.zeros(8, 1)
    tell = functional.binary_cross_entropy_with_logits
    for _ in range(STEPS):
        for_critic.zero_grad()
        made = generator(torch.randn(8, 4))
        tell(critic(torch.randn(8, 6)), right).backward()
        tell(critic(made.detach()), wrong).backward()
        for_critic.step()
        for_generator.zero_grad(set_to_none=False)
        tell(critic(made), right).backward()
        for_generator.step()
    return learned(generator, critic)


def gradient_accumulation() -> list[Tensor]:
    model = nn.Sequential(nn.Linear(5, 20), nn.GELU(), nn.LayerNorm(20), nn.Linear(20, 1))
    adagrad = torch.optim.Adagrad(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        for _ in range(4):
            (model(torch.randn(3, 5)).square().mean() / 4).backward()
        adagrad.step()
        adagrad.zero_grad()
    return learned(model)


def weight_tying() -> list[Tensor]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(13, 8)
            self.mix = nn.Linear(8, 8)
            self.head = nn.Linear(8, 13, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(torch.tanh(self.mix(self.mix(self.embedding(tokens)))))

    def loss_of(model: nn.Module) -> Tensor:
        tokens = torch.randint(13, (2, 7))
        return functional.cross_entropy(model(tokens).flatten(0, 1), tokens.roll(1).flatten())

    model = Net()
    return train(model, loss_of, torch.optim.SGD(model.parameters(), lr=0.5, foreach=True))


class Checkpointed(nn.Module):
    """A transformer each of whose layers is computed again in backward."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.embedding = nn.Embedding(7, 8)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True) for _ in range(2)
        )
        self.tail = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 7))

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.embedding(tokens)
        for layer in self.layers:
            found = checkpoint(layer, found, use_reentrant=self.reentrant)
        return checkpoint_sequential(self.tail, 2, found, use_reentrant=self.reentrant)


def checkpointed(*, reentrant: bool) -> list[Tensor]:
    model = Checkpointed(reentrant=reentrant)

    def loss_of(model: nn.Module) -> Tensor:
        tokens = torch.randint(7, (2, 4))
        return functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())

    return train(model, loss_of, torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True))


def gradient_penalty() -> list[Tensor]:
    critic = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def loss_of(model: nn.Module) -> Tensor:
        x = torch.randn(6, 4, requires_grad=True)
        score = model(x)
        (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        return score.mean() + 10 * (slope.norm(dim=1) - 1).square().mean()

    return train(critic, loss_of, torch.optim.Adam(critic.parameters(), lr=1e-2))


def mixed_precision() -> list[Tensor]:
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.LayerNorm(24), nn.Linear(24, 3))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    for _ in range(STEPS):
        sgd.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = functional.cross_entropy(model(torch.randn(5, 6)), torch.arange(5) % 3)
        scaler.scale(loss).backward()
        scaler.unscale_(sgd)
        nn.utils.clip_grad_value_(model.parameters(), 0.5)
        scaler.step(sgd)
        scaler.update()
    return learned(model)


def line_search() -> list[Tensor]:
    """An optimizer that runs backward itself, several times a step."""
    model = nn.Sequential(nn.Linear(3, 8), nn.Softplus(), nn.Linear(8, 1))
    x, y = torch.randn(10, 3), torch.randn(10, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    for _ in range(STEPS):
        optimizer.step(closure)
    return learned(model)


def tiny_gpt2() -> list[Tensor]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=17, n_positions=8, n_embd=12, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    model.train()

    def loss_of(model: nn.Module) -> Tensor:
        tokens = torch.randint(17, (2, 6))
        return model(input_ids=tokens, labels=tokens).loss

    return train(model, loss_of, torch.optim.AdamW(model.parameters(), lr=1e-2))


def tiny_llama() -> list[Tensor]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.gradient_checkpointing_enable()
    model.train()

    def loss_of(model: nn.Module) -> Tensor:
        tokens = torch.randint(17, (2, 6))
        return model(input_ids=tokens, labels=tokens, use_cache=False).loss

    return train(model, loss_of, torch.optim.AdamW(model.parameters(), lr=1e-2))


def states(tensors: Iterable[Tensor]) -> list[bytes]:
    """Tensors as bytes, to compare bit by bit."""
    flat = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in tensors)
    return [bytes(tensor.tolist()) for tensor in flat]

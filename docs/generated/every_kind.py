"""A small program in which something of every kind happens; the page of events is made of it."""

import torch
from torch.utils.checkpoint import checkpoint

import tracer

x = torch.tensor([1.0, 2.0], requires_grad=True)
w = torch.tensor([3.0, 4.0], requires_grad=True)
optimizer = torch.optim.SGD([w], lr=0.1)
handle = w.register_hook(lambda grad: 2 * grad)


def block(t):
    return t.exp()


for epoch in range(2):
    tracer.mark(f"epoch {epoch}")
    optimizer.zero_grad()
    y = x * w
    loss = checkpoint(block, y, use_reentrant=False).sum()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        shown = (x * w).sum()

tracer.pause()
tracer.resume()

kept = x.exp()
loss = kept.sum()
kept.data.mul_(2)
loss.backward()

y.grad  # noqa: B018
handle.remove()
w.grad = None
w.sum().backward()
(2 * w).sum().backward()

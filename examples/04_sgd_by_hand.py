"""Gradient descent by hand

No optimizer and no module: one number, `b`, is moved towards 100 by following its gradient 200
times. Each epoch builds the same small graph anew, so the whole run is one picture, and one line
over time.
"""

import torch

# %%
# The task
# --------
#
# `X` is one hundred times the number 100. The sum of squared distances from `b` to all of them is
# smallest where `b` is 100.

X = torch.full((1, 100), 100.0)
b = torch.ones(1, requires_grad=True)

# %%
# Two hundred steps
# -----------------
#
# The order matters. `b.grad` is cleared first, since `backward` adds to what it finds there. Then
# `b` moves against its gradient: averaged over the hundred elements, a tenth of it at a time.
# Writing to `b.data` keeps that step out of the graph.
#
# The gradient is `2 * 100 * (b - 100)`, so each step takes away a fifth of the distance that is
# left.

for epoch in range(200):
    loss = torch.sum((b - X) ** 2)
    b.grad = torch.zeros(1)
    loss.backward()
    b.data = b.data - b.grad * (1 / 100) / 10
    if epoch in (0, 1, 2, 9, 49, 199):
        print(f"epoch {epoch + 1:3}: gradient {b.grad.item():11.4f}")

# %%
# `b` has arrived. Its gradient ends near 0 and not at it: the step it still asks for, 0.000003, is
# smaller than half the distance between 100 and the next 32-bit number, so `b` stays where it is.

print(b, b.grad)

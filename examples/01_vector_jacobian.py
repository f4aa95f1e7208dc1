"""Vector–Jacobian product

`backward` never builds a Jacobian. It takes a vector with the shape of the output and multiplies
it backwards through each operation, until it reaches the tensors that asked for a gradient. Here
that takes six tensors and three operations, small enough to follow every number by hand.
"""

import torch

# %%
# Three leaves
# ------------
#
# A *leaf* is a tensor that you made yourself, not the result of an operation. With
# `requires_grad=True` it gets a `.grad` when `backward` runs.

m1 = torch.ones(3, 2, requires_grad=True)
m2 = torch.full((3, 2), 2.0, requires_grad=True)
m3 = torch.full((3, 2), 4.0, requires_grad=True)

# %%
# Three operations
# ----------------
#
# `x1` is used twice: in `x2`, and directly in `y`. Written out, `y = m1*m2 + m1*m2*m3`.

x1 = m1 * m2
x2 = x1 * m3
y = x1 + x2

# %%
# One backward call
# -----------------
#
# `y` is no single number, so `backward` needs the vector to multiply by: one entry for each
# element of `y`. With ones, every gradient below is a plain derivative of `y`.
#
# Two paths lead from `y` to `x1`. The direct one brings 1, the one through `x2` brings `m3`,
# which is 4, and the gradient at `x1` is their sum, 5. From there on it is multiplied as before:
# `m1` receives 5 times `m2`, which is 10, and `m2` receives 5 times `m1`, which is 5.

y.backward(torch.ones(3, 2))

# %%
# What stays
# ----------
#
# The three leaves keep what arrived:

print(m1.grad, m2.grad, m3.grad, sep="\n")

# %%
# `x1`, `x2` and `y` are results, not leaves. Their gradients were needed only to go on with, so
# `.grad` is `None`, and PyTorch warns whoever asks:

print(x1.grad, x2.grad, y.grad)

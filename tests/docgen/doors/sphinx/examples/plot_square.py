"""
A square
========

Its slope.
"""

import torch

y = torch.tensor(2.0, requires_grad=True)
handle = y.register_hook(lambda grad: 2 * grad)

# %%
# One call.

(y * y).backward()
print(y.grad)

"""Hooks change a gradient before it is kept

A hook is a function that PyTorch calls with a tensor's gradient while `backward` runs. What the
hook returns takes the gradient's place. Two calls on a single leaf show when that happens, and
what happens to the `.grad` of the call before.
"""

import torch
from torch.autograd import Variable

# %%
# A leaf with a hook
# ------------------
#
# `Variable` is how tensors with a gradient were made before PyTorch 0.4. It still works, and
# gives an ordinary tensor.

v = Variable(torch.tensor([2.0, 2.0, 2.0]), requires_grad=True)
handle = v.register_hook(lambda grad: grad * grad)

# %%
# The first call
# --------------
#
# [1, 1, 2] goes in and the hook squares it, so `.grad` becomes [1, 1, 4]. The values of `v` play
# no part: nothing was computed from them.

v.backward(torch.tensor([1.0, 1.0, 2.0]))
print(v.grad)

# %%
# The second call
# ---------------
#
# Nobody has cleared `.grad`. The hook sees only the new gradient, [1, 1, 1], which squaring
# leaves as it is, and PyTorch adds the result to what is there already: [1, 1, 4] + [1, 1, 1] =
# [2, 2, 5]. The old gradient was not squared a second time, so the hook runs *before* the sum.

v.backward(torch.tensor([1.0, 1.0, 1.0]))
print(v.grad)

# %%
# The end of the hook
# -------------------
#
# It stays on the tensor until its handle is removed.

handle.remove()

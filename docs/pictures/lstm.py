"""An LSTM over 500 steps

One `LSTMCell`, called in a loop: the gradient goes back through time.
"""

import torch
from torch import nn

torch.manual_seed(0)

cell = nn.LSTMCell(8, 16)
read = nn.Linear(16, 1)
signal = torch.randn(500, 4, 8)
h, c = torch.zeros(4, 16), torch.zeros(4, 16)
for x in signal:
    h, c = cell(x, (h, c))
loss = read(h).pow(2).mean()
loss.backward()

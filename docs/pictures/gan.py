"""One step of a GAN

The generator is trained through the discriminator, the discriminator on detached samples.
"""

import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)

generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16), nn.Tanh())
discriminator = nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
optimizer_g = torch.optim.Adam(generator.parameters(), lr=2e-4)
optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4)
real = torch.randn(12, 16)

fake = generator(torch.randn(12, 8))
real_scores = discriminator(real)
fake_scores = discriminator(fake.detach())
loss_d = F.binary_cross_entropy_with_logits(real_scores, torch.ones(12, 1))
loss_d = loss_d + F.binary_cross_entropy_with_logits(fake_scores, torch.zeros(12, 1))
optimizer_d.zero_grad()
loss_d.backward()
optimizer_d.step()

scores = discriminator(fake)
loss_g = F.binary_cross_entropy_with_logits(scores, torch.ones(12, 1))
optimizer_g.zero_grad()
loss_g.backward()
optimizer_g.step()

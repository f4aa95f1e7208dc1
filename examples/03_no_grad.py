"""Evaluation under `no_grad` leaves no trace in the gradients

Linear regression from scratch, after the chapter of that name in *Dive into Deep Learning*.
Training needs gradients and evaluation does not: under `torch.no_grad()` the very same `net` and
`loss` build no graph, and `w` and `b` receive nothing from them.
"""

import torch

torch.manual_seed(0)

# %%
# The data
# --------
#
# Points on a line we know, with a little noise, handed out in minibatches in random order.

true_w, true_b = torch.tensor([[2.0], [-3.4]]), 4.2
features = torch.randn(60, 2)
labels = features @ true_w + true_b + 0.01 * torch.randn(60, 1)


def minibatches(batch_size):
    for rows in torch.randperm(len(features)).split(batch_size):
        yield features[rows], labels[rows]


# %%
# The model, its loss, its optimizer
# ----------------------------------
#
# Changing `w` and `b` is no part of the model, so `sgd` does it under `no_grad` as well.


def net(X, w, b):
    return X @ w + b


def loss(y_hat, y):
    return (y_hat - y) ** 2 / 2


def sgd(params, lr):
    with torch.no_grad():
        for param in params:
            param -= lr * param.grad
            param.grad.zero_()


# %%
# Training and evaluation
# -----------------------
#
# Each minibatch has a graph and a backward pass. The evaluation at the end of an epoch calls the
# same functions on all data, and has neither.

w = torch.normal(0.0, 0.01, (2, 1), requires_grad=True)
b = torch.zeros(1, requires_grad=True)

for epoch in range(3):
    for X, y in minibatches(batch_size=20):
        batch_l = loss(net(X, w, b), y).mean()
        batch_l.backward()
        sgd([w, b], lr=0.5)
    with torch.no_grad():
        train_l = loss(net(features, w, b), labels)
        print(f"epoch {epoch + 1}, loss {train_l.mean():.4f}")

# %%
# The last minibatch's loss knows how it was computed. The last evaluation's does not.

print("training:  ", batch_l.requires_grad)
print("evaluation:", train_l.requires_grad)

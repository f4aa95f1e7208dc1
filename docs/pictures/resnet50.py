"""ResNet-50, one training step

Sixteen bottleneck blocks in four stages, as in *Deep Residual Learning for Image Recognition*.
"""

import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * planes
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride > 1 or inputs != outputs:
            project = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(project, nn.BatchNorm2d(outputs))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + identity)


class ResNet(nn.Module):
    def __init__(self, depths: tuple[int, ...], classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self.stage(64, 64, depths[0], stride=1)
        self.layer2 = self.stage(256, 128, depths[1], stride=2)
        self.layer3 = self.stage(512, 256, depths[2], stride=2)
        self.layer4 = self.stage(1024, 512, depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, classes)

    def stage(self, inputs: int, planes: int, depth: int, stride: int) -> nn.Sequential:
        blocks = [Bottleneck(inputs, planes, stride)]
        blocks += [Bottleneck(4 * planes, planes, 1) for _ in range(depth - 1)]
        return nn.Sequential(*blocks)

    def forward(self, images):
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


model = ResNet((3, 4, 6, 3))
images, labels = torch.randn(2, 3, 64, 64), torch.tensor([3, 7])
loss = F.cross_entropy(model(images), labels)
loss.backward()

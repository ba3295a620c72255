"""MobileNetV2 in PyTorch, with torchvision's names and TensorFlow's padding.

The rival of `encoders.py` for `backbones/mobilenet.py`, of its weights. Batch norms are
folded into the convolutions, which is the fastest that PyTorch has for inference. Read
by the Python that has torch.
"""

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STAGES = (  # as in backbones/mobilenet.py
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def conv_norm(in_features, features, kernel, stride=1, groups=1):
    """Convolution and norm; a stride of 2 pads below and to the right alone."""
    conv = nn.Conv2d(
        in_features,
        features,
        kernel,
        stride,
        padding=kernel // 2 if stride == 1 else 0,
        groups=groups,
        bias=False,
    )
    return conv, nn.BatchNorm2d(features)


class Padded(nn.Module):
    """A convolution of stride 2 of even sides, as TensorFlow pads it."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        return self.conv(nn.functional.pad(x, (0, 1, 0, 1)))


class InvertedResidual(nn.Module):
    def __init__(self, in_features, features, expansion, stride):
        super().__init__()
        hidden = in_features * expansion
        self.skip = stride == 1 and in_features == features
        layers = []
        if expansion != 1:
            conv, norm = conv_norm(in_features, hidden, 1)
            layers.append(nn.Sequential(conv, norm, nn.ReLU6(inplace=True)))
        conv, norm = conv_norm(hidden, hidden, 3, stride, hidden)
        layers.append(nn.Sequential(conv, norm, nn.ReLU6(inplace=True)))
        layers += conv_norm(hidden, features, 1)
        self.conv = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.conv(x) if self.skip else self.conv(x)


class MobileNetV2(nn.Module):
    """Images [B, 3, H, W] to the last maps [B, 1280, h, w]."""

    def __init__(self):
        super().__init__()
        conv, norm = conv_norm(3, 32, 3, 2)
        blocks = [nn.Sequential(conv, norm, nn.ReLU6(inplace=True))]
        channels = 32
        for expansion, features, count, first_stride in STAGES:
            for i in range(count):
                stride = first_stride if i == 0 else 1
                blocks.append(InvertedResidual(channels, features, expansion, stride))
                channels = features
        conv, norm = conv_norm(channels, 1280, 1)
        blocks.append(nn.Sequential(conv, norm, nn.ReLU6(inplace=True)))
        self.features = nn.Sequential(*blocks)

    def forward(self, x):
        return self.features(x)


def folded(module: nn.Module) -> nn.Module:
    """The module, each norm folded into the convolution before it; in place."""
    for child in list(module.children()):
        folded(child)
    if not isinstance(module, nn.Sequential):
        return module
    for i in range(len(module) - 1):
        conv, norm = module[i], module[i + 1]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            conv = fuse_conv_bn_eval(conv, norm)
            module[i] = Padded(conv) if conv.stride == (2, 2) else conv
            module[i + 1] = nn.Identity()
    return module


def load(path) -> nn.Module:
    """The network of a file of weights in torchvision's names, for inference."""
    from safetensors.torch import load_file

    model = MobileNetV2()
    rest = model.load_state_dict(load_file(path), strict=False)
    missing = [k for k in rest.missing_keys if not k.endswith("num_batches_tracked")]
    if missing or rest.unexpected_keys:
        raise ValueError(f"not the same network: {missing}, {rest.unexpected_keys}")
    return folded(model.eval()).to(memory_format=torch.channels_last)

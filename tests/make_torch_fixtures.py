"""Stores what torchvision's networks compute with `seeded_weights`: `torch_maps.npz`.

    pip install torch torchvision safetensors
    python tests/make_torch_fixtures.py [mobilenet_v2.safetensors]

Of each map only 300 seeded positions, the mean and the deviation are kept. With a file
of MobileNetV2 weights that want TensorFlow's padding, its pooled features are kept too.
"""

import pathlib
import sys

import numpy as np
import seeded_weights
import torch
import torch.nn.functional as F
import torchvision

STORED = pathlib.Path(__file__).with_name("torch_maps.npz")


def load(network, state):
    tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in state.items()}
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    left = [k for k in missing if not k.endswith("num_batches_tracked")]
    assert not unexpected and all(k.startswith(("fc.", "classifier.")) for k in left)
    return network.eval()


def nchw(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def resnet18_maps(network, images):
    x = network.conv1(nchw(images))
    x = network.maxpool(network.relu(network.bn1(x)))
    conv4_2 = network.layer3(network.layer2(network.layer1(x)))
    return {"conv4_2": conv4_2, "conv5_2": network.layer4(conv4_2)}


def mobilenet_v2_maps(network, images):
    conv4 = network.features[:14](nchw(images))
    return {"conv4": conv4, "conv5": network.features[14:](conv4)}


def pad_as_tensorflow(network):
    """The padding of TensorFlow's 'SAME', given to every 3x3 convolution."""

    def pad_then_convolve(conv):
        def forward(x):
            borders = []
            for size, stride in zip(x.shape[:1:-1], conv.stride[::-1], strict=True):
                total = max((-(-size // stride) - 1) * stride + 3 - size, 0)
                borders += [total // 2, total - total // 2]
            x = F.pad(x, borders)
            return F.conv2d(x, conv.weight, None, conv.stride, 0, 1, conv.groups)

        return forward

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            module.forward = pad_then_convolve(module)
    return network


def summary(maps):
    flat = maps.permute(0, 2, 3, 1).contiguous().numpy()
    sampled = flat.ravel()[seeded_weights.sampled_positions(flat.size)]
    return np.array(flat.shape), sampled, np.array([flat.mean(), flat.std()])


@torch.no_grad()
def main(mobilenet_v2_file=None):
    resnet = load(torchvision.models.resnet18(), seeded_weights.resnet18())
    state = seeded_weights.mobilenet_v2()
    mobilenet = load(torchvision.models.mobilenet_v2(), state)
    mobilenet_same = pad_as_tensorflow(load(torchvision.models.mobilenet_v2(), state))
    networks = {
        "resnet18": (resnet18_maps, resnet),
        "mobilenet_v2_1": (mobilenet_v2_maps, mobilenet),
        "mobilenet_v2_SAME": (mobilenet_v2_maps, mobilenet_same),
    }
    stored = {}
    for name, (compute, network) in networks.items():
        for size in seeded_weights.IMAGE_SIZES:
            for which, maps in compute(network, seeded_weights.images(*size)).items():
                key = f"{name}/{size[1]}x{size[2]}/{which}"
                parts = ("shape", "sampled", "mean_std")
                for part, value in zip(parts, summary(maps), strict=True):
                    stored[f"{key}/{part}"] = value
    if mobilenet_v2_file:
        from safetensors.numpy import load_file

        network = pad_as_tensorflow(
            load(torchvision.models.mobilenet_v2(), load_file(mobilenet_v2_file))
        )
        maps = mobilenet_v2_maps(network, seeded_weights.images(2, 97, 130))["conv5"]
        stored["mobilenet_v2_file/pooled"] = maps.mean((2, 3)).numpy()
    np.savez_compressed(STORED, **stored)
    print(f"{STORED}: {STORED.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])

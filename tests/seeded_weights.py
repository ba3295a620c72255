"""Networks' weights in PyTorch's names, from a NumPy seed instead of a file.

Read by the tests and, in an environment with PyTorch, by `make_torch_fixtures.py`.
"""

import zlib

import numpy as np

IMAGE_SIZES = ((2, 64, 64), (2, 97, 130), (1, 224, 224))


def images(batch, height, width):
    """Seeded images [B, H, W, 3]."""
    generator = np.random.Generator(np.random.PCG64(height))
    return generator.normal(size=(batch, height, width, 3)).astype(np.float32)


def sampled_positions(size, count=300):
    """Flat positions at which a stored map of `size` values was sampled."""
    return np.random.Generator(np.random.PCG64(size)).integers(0, size, count)


class _Weights(dict):
    def __init__(self, seed):
        super().__init__()
        self.generator = np.random.Generator(np.random.PCG64(seed))

    def conv(self, name, out_features, in_features, kernel):
        shape = (out_features, in_features, kernel, kernel)
        scale = np.sqrt(2 / (in_features * kernel * kernel))
        weight = self.generator.standard_normal(shape, np.float32) * np.float32(scale)
        self[f"{name}.weight"] = weight

    def norm(self, name, features):
        def uniform(low, high):
            return self.generator.uniform(low, high, features).astype(np.float32)

        self[f"{name}.weight"] = uniform(0.5, 1.0)
        self[f"{name}.bias"] = uniform(-0.2, 0.2)
        self[f"{name}.running_mean"] = uniform(-0.3, 0.3)
        self[f"{name}.running_var"] = uniform(0.5, 2.0)


def resnet18(seed=18, width=64):
    """torchvision's resnet18 without its classifier."""
    state, channels = _Weights(seed), width
    state.conv("conv1", width, 3, 7)
    state.norm("bn1", width)
    for stage in range(4):
        features = width * 2**stage
        for block in range(2):
            name = f"layer{stage + 1}.{block}"
            state.conv(f"{name}.conv1", features, channels, 3)
            state.norm(f"{name}.bn1", features)
            state.conv(f"{name}.conv2", features, features, 3)
            state.norm(f"{name}.bn2", features)
            if stage and not block:
                state.conv(f"{name}.downsample.0", features, channels, 1)
                state.norm(f"{name}.downsample.1", features)
            channels = features
    return dict(state)


def mobilenet_v2(seed=2):
    """torchvision's mobilenet_v2 without its classifier."""
    state, channels = _Weights(seed), 32
    state.conv("features.0.0", 32, 3, 3)
    state.norm("features.0.1", 32)
    # Output channels of the 17 blocks.
    widths = [16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320]
    for i, features in enumerate(widths, start=1):
        hidden = channels if i == 1 else 6 * channels
        layers = [(hidden, 1, 3)] if i == 1 else [(hidden, channels, 1), (hidden, 1, 3)]
        for j, shape in enumerate(layers):
            state.conv(f"features.{i}.conv.{j}.0", *shape)
            state.norm(f"features.{i}.conv.{j}.1", hidden)
        state.conv(f"features.{i}.conv.{len(layers)}", features, hidden, 1)
        state.norm(f"features.{i}.conv.{len(layers) + 1}", features)
        channels = features
    state.conv("features.18.0", 1280, 320, 1)
    state.norm("features.18.1", 1280)
    return dict(state)


def transformer(shapes):
    """A transformer's arrays by key, each from a seed of its own, given their shapes.

    Sums keep a size of about 1, and norms differ from the identity.
    """
    state = {}
    for key, shape in shapes.items():
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
        values = generator.standard_normal(shape, np.float32)
        if "embed" in key and len(shape) < 4 or "token" in key or "probe" in key:
            scale, shift = 0.7, 0.0
        elif len(shape) < 2:
            is_scale = key.endswith("weight") and len(shape) == 1
            scale, shift = 0.2, 1.0 if is_scale else 0.0
        else:
            scale, shift = 1.5 / np.sqrt(np.prod(shape[1:])), 0.0
        state[key] = np.asarray(values * scale + shift, np.float32)
    return state

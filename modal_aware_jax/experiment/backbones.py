"""Names of image backbones, with what their public weights expect."""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from flax import nnx

from modal_aware_jax.backbones import pretrained
from modal_aware_jax.backbones.mobilenet import MobileNetV2
from modal_aware_jax.backbones.resnet import ResNet18
from modal_aware_jax.experiment.lookup import choose

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class BackboneKind(NamedTuple):
    """What a config's backbone name stands for.

    Attributes:
      constructor: of the module.
      load: fills it with public weights.
      mean, deviation: of the images those weights expect, of each colour in 0..1.
      block_of: the number of the block that a parameter's path lies in, from the stem.
    """

    constructor: Callable
    load: Callable
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    block_of: Callable[[tuple], int]


def _resnet_block(path):
    return 0 if path[0] == "stem" else 1 + 2 * int(path[1]) + int(path[2])


def _mobilenet_block(path):
    return int(path[1])


BACKBONES = {
    "resnet18": BackboneKind(
        ResNet18,
        pretrained.load_resnet18,
        IMAGENET_MEAN,
        IMAGENET_DEVIATION,
        _resnet_block,
    ),
    "mobilenet_v2": BackboneKind(
        MobileNetV2,
        pretrained.load_mobilenet_v2,
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
        _mobilenet_block,
    ),
    # The same network as torchvision pads it and scales its images.
    "mobilenet_v2_torchvision": BackboneKind(
        functools.partial(MobileNetV2, padding=1),
        pretrained.load_mobilenet_v2,
        IMAGENET_MEAN,
        IMAGENET_DEVIATION,
        _mobilenet_block,
    ),
}


def find_weights(name: str, data_dir: str) -> pathlib.Path | str:
    """A weights file as given, or in a folder `weights` beside or above the data."""
    if name.startswith("hf-hub:"):
        return name
    given = pathlib.Path(name).expanduser()
    places = [given]
    if not given.is_absolute():
        above = pathlib.Path(os.path.abspath(os.path.expanduser(data_dir)))
        for folder_above in (above, *above.parents):
            places += [folder_above / given, folder_above / "weights" / given]
    for place in places:
        if place.is_file():
            return place
    raise ValueError(
        f"The weights {name} were not found: neither as given nor in the data folder, "
        "a folder above it, or a folder `weights` in one of these. Name the file with "
        "--config.backbone.weights=FILE (README, 'Your data', says where to get it). "
        "Without any, all of the backbone has to learn: --config.backbone.weights='' "
        "--config.backbone.frozen_blocks=0 --config.training.cached_maps=False."
    )


def backbone(config, data_dir: str, rngs: nnx.Rngs) -> nnx.Module:
    """The image backbone of `config.backbone`, with its weights where given."""
    kind = choose("backbone", BACKBONES, config.name)
    module = kind.constructor(**config.options, rngs=rngs)
    if config.weights:
        kind.load(module, find_weights(config.weights, data_dir))
    return module

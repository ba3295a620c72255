"""MIR-Flickr 25k: photographs with their tags, 24 labels.

    python -m modal_aware_jax.main --config=configs/flickr.py --config.data.dir=FOLDER

FOLDER holds the official archives, zipped or extracted, and may hold the tag
vocabulary (`tag_vocabulary_*.txt`). MobileNetV2's ImageNet weights are looked for in
the folder, in the folders above it and in a folder `weights` in any of these. For
ResNet-18 with torchvision's weights: --config=configs/flickr.py:backbone=resnet18.

The quick variant keeps the backbone frozen and computes its lower maps once:

    python -m modal_aware_jax.main --config=configs/flickr.py:variant=quick \\
        --config.data.dir=FOLDER

Arguments after the colon, each optional: variant=full|quick, method=NAME, bits=K,
seed=S, backbone=mobilenet_v2|resnet18|mobilenet_v2_torchvision (whose weights README
tells how to get). Methods: modal_aware (recommended), modal_aware_paper (the literal
form), modal_aware_low_rank (the same functions, fewer weights), first_block,
last_block, no_kernel, no_attention, concat, gmu, mcb, text, image, dpsh, csq and the
others of `experiment/methods.py`. Measured results are in README.md.
"""

from ml_collections import ConfigDict

from modal_aware_jax.build import photograph_arguments, photograph_settings


def get_config(arg: str = "") -> ConfigDict:
    """The config of one run; see the module's docstring for `arg`."""
    choice = photograph_arguments(arg)
    return ConfigDict(
        photograph_settings(
            choice,
            source="flickr25k",
            options={"num_labels": 24, "on_problem": "skip"},
            queries={"num_queries": 2000},
        )
    )

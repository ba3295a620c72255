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
seed=S, backbone=mobilenet_v2|resnet18. Methods: modal_aware (recommended),
modal_aware_paper (the literal form), modal_aware_low_rank (the same functions, fewer
weights), no_kernel, no_attention, concat, gmu, mcb, text, image, dpsh, csq and the
others of `experiment/methods.py`. Measured results are in README.md.
"""

from ml_collections import ConfigDict

from modal_aware_jax.build import METHODS, default_options, parse_arguments

WEIGHTS = {
    "mobilenet_v2": "mobilenet_v2_imagenet_tf.safetensors",
    "resnet18": "resnet18.safetensors",
}


def get_config(arg: str = "") -> ConfigDict:
    """The config of one run; see the module's docstring for `arg`."""
    choice = parse_arguments(
        arg,
        variant=("full", "quick"),
        method=("modal_aware", *METHODS),
        bits=64,
        seed=0,
        backbone=("mobilenet_v2", "resnet18"),
    )
    mobilenet = choice["backbone"] == "mobilenet_v2"
    config = ConfigDict(
        {
            "seed": choice["seed"],
            "data": {
                "source": "flickr25k",
                "dir": "",
                "options": {"num_labels": 24, "on_problem": "skip"},
                "image_size": 160,
                "num_queries": 2000,
                "num_train": 10_000,
                "num_validation": 1000,
                "split_seed": 0,
                "text": "bag",  # or tfidf, or sentence: vectors of the captions
                "sentence_model": "",  # a folder; the installed model where empty
            },
            "backbone": {
                "name": choice["backbone"],
                # These weights have their norms folded in: see backbones/mobilenet.py.
                "options": {"freeze_norm": True} if mobilenet else {},
                "weights": WEIGHTS[choice["backbone"]],
                "frozen_blocks": 7 if mobilenet else 1,
            },
            "model": {
                "method": choice["method"],
                "num_bits": choice["bits"],
                "text_widths": (1024, 512),
                "dtype": "float32",  # or bfloat16: of the computation
                "image_features": 1024,
                "hidden_features": 512,
            },
            "loss": {
                "name": METHODS[choice["method"]].loss,
                "options": default_options(),
                "label_weight": 0.3,
            },
            "optimizer": {
                "learning_rate": 2e-3,
                "backbone_learning_rate": 1e-4,
                # The paper's is 1e-5. Adam takes full steps along an L2 term alone,
                # which between two uses of a rare tag wears its weights away.
                "weight_decay": 0.0,
                "schedule": "cosine",
                "decay_every_epochs": 20,
                "warmup_steps": 30,
            },
            "training": {
                "num_epochs": 12,
                "batch_size": 100,
                "word_dropout": 0.3,
                "cached_maps": False,
                "map_crop": 0,
                "cache_dir": "",
                # Validation queries search so many pairs each epoch; 0: all others.
                "validation_database": 2000,
                "checkpoint_steps": 50,
                "workers": 0,
                # Devices that share the wide text weights, split along their width.
                "tensor_parallel": 1,
            },
        }
    )
    if choice["method"] == "modal_aware_paper":
        config.model.text_widths = (8192, 512)
    if choice["variant"] == "quick":
        config.data.image_size = 192
        config.backbone.frozen_blocks = 19 if mobilenet else 9
        if mobilenet:  # block 1 before the last convolution: a fifth of the work
            config.backbone.options.num_lower_blocks = 18
        config.training.cached_maps = True
        config.training.checkpoint_steps = 0
    return config

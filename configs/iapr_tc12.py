"""IAPR TC-12: photographs with captions, 255 labels.

    python -m modal_aware_jax.main --config=configs/iapr_tc12.py \\
        --config.data.dir=FOLDER

FOLDER holds `annotations_complete_eng/`, `images/` and a file of labels;
`modal_aware_jax/data/iapr_tc12.py` says which. The papers read 2,912 words of the
captions, ask 2,000 queries and train on 10,000 pairs. Sentence vectors in place of
words: --config.data.text=sentence. Weights are found as in `configs/flickr.py`.

Arguments after the colon, each optional: variant=full|quick (a frozen backbone whose
lower maps are computed once), method=NAME, bits=K, seed=S,
backbone=mobilenet_v2|resnet18. Learning rates and epochs are those of
`configs/flickr.py`; no number has been measured with this config.
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
                "source": "iapr_tc12",
                "dir": "",
                "options": {"max_words": 2912, "on_problem": "skip"},
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
                "learning_rate": 1e-3,
                "backbone_learning_rate": 1e-4,
                "weight_decay": 1e-5,
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
        config.training.cached_maps = True
        config.training.map_crop = 8
        config.training.checkpoint_steps = 0
    return config

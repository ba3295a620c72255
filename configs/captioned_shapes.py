"""Embedded pictures with sentences: images find sentences and back, without a download.

    python -m modal_aware_jax.main --config=configs/captioned_shapes.py \\
        --workdir=runs/captioned_shapes

A small ResNet and a small reader of words learn from the start. Pictures come in
families of four whose sentences have the same words ("a red kite above a blue house",
"a blue kite above a red house"): data/captioned_shapes.py. Without layers in the reader
(--config.model.reader_layers=0) it sees a bag of words with their places.

With method=cmfg a graph of patches and words scores pairs, and ranks again the first
that the embeddings find; the report draws it.

Arguments after the colon, each optional: method=NAME of `experiment/matchers.py` (not
cca, which needs frozen features), seed=S.
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
    """The config of one run; `arg` is `method=NAME,seed=S`."""
    task = TASKS["matching"]
    choice = parse_arguments(arg, method=("towers", *task.methods), seed=0)
    source = "captioned_shapes"
    return ConfigDict(
        {
            "task": task.name,
            "seed": choice["seed"],
            "data": {
                "source": source,
                "dir": "",
                "options": reader_options(source, num_images=4000, image_size=80),
                "image_size": 80,
                # The collection brings its parts.
                "num_queries": config_dict.placeholder(int),
                "num_train": config_dict.placeholder(int),
                "num_validation": config_dict.placeholder(int),
                "split_seed": 0,
                "text": "sequences",
            },
            "backbone": {
                "name": "resnet18",
                "options": {"width": 16},
                "weights": "",
                "frozen_blocks": 0,
            },
            "model": {
                "method": choice["method"],
                "features": 128,  # of the embeddings
                "hidden_features": 256,
                "word_features": 64,
                "reader_layers": 2,
                "image_dropout": 0.0,
                "text_dropout": 0.0,
                "hidden_dropout": 0.0,
                # Of networks of tokens: width of the nodes, layers and so on.
                "token_features": 64,
                "token_layers": 2,
                "token_heads": 4,
                "token_dropout": 0.0,
                "dtype": "float32",  # or bfloat16: of the computation
            },
            "loss": {
                "name": choose_method(task, choice["method"]).loss,
                "options": default_options(task.losses),
                # Of networks that score pairs: see configs/flickr8k.py.
                "pair_weight": 1.0,
                "pair_rows": 16,
                "num_negatives": 7,
                "momentum": 0.995,
            },
            "optimizer": {
                "learning_rate": 1e-3,
                "backbone_learning_rate": 1e-3,
                "block_learning_rate": 1.0,
                "weight_decay": 0.0,
                "schedule": "cosine",
                "decay_every_epochs": 20,
                "warmup_steps": 60,
            },
            "retrieval": {"rerank": 20, "rerank_weight": 0.5},
            "training": {
                "num_epochs": 10,
                "batch_size": 100,
                "augment": False,  # crops and mirrors would belie "three", "left of"
                "cached_maps": False,
                "cached_means": False,
                "map_crop": 0,
                "cache_dir": "",
                "checkpoint_steps": 0,
                "workers": 0,
                "tensor_parallel": 1,
            },
        }
    )

"""Posts: one class from a picture and its words.

    python -m modal_aware_jax.main --config=configs/posts.py --workdir=runs/posts

This trains on the embedded `shapes`, in minutes and without a download: the class is
where and when a scene is set, of which the words tell one half and the picture the
other. Posts of your own, with a column `labels` that holds the class:

    ... --config=configs/posts.py:source=folder --config.data.dir=FOLDER

Methods are compared, post by post, with

    python -m modal_aware_jax.compare --config=configs/posts.py \\
        --methods=modal_aware,concat,gmu,text,image --workdir=runs/posts
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
    task = TASKS["classification"]
    choice = parse_arguments(
        arg,
        method=("modal_aware", *task.methods, *task.refused),
        source=("shapes", "folder"),
        seed=0,
    )
    embedded = choice["source"] == "shapes"
    options = {"on_problem": "stop"}
    if embedded:
        options = {"num_pairs": 4000, "image_size": 64, "one_class": True}
    return ConfigDict(
        {
            "task": task.name,
            "seed": choice["seed"],
            "data": {
                "source": choice["source"],
                "dir": "",
                "options": reader_options(choice["source"], **options),
                "image_size": 64 if embedded else 128,
                # The queries are the posts to test with. By the size of the collection
                # where not given: data/sizes.py.
                "num_queries": config_dict.placeholder(int),
                "num_train": config_dict.placeholder(int),
                "num_validation": config_dict.placeholder(int),
                "split_seed": 0,
                # bag, tfidf, sentence (vectors of the captions) or words (sums of
                # vectors of the words): see data/text_vectors.py.
                "text": "bag",
                "sentence_model": "",  # a folder; the installed model where empty
                # Of words: "own", or a sentence model's folder (empty: the installed).
                "word_vectors": "own",
            },
            "backbone": {
                "name": "resnet18",
                "options": {"width": 16 if embedded else 32},
                "weights": "",
                "frozen_blocks": 0,
            },
            "model": {
                "method": choice["method"],
                "text_widths": (256, 64) if embedded else (1024, 512),
                "dtype": "float32",  # or bfloat16: of the computation
                "image_features": 0,
                "image_dropout": 0.3,  # of the layer of `image_features`
                # Shares of rows that lose one in training: a stand-in is learned.
                "image_missing": 0.0,
                "text_missing": 0.0,
                "standard_text": False,
                "hidden_features": 0,
            },
            "loss": {
                # softmax: one class; sigmoid: several labels, each for itself.
                "name": choose_method(task, choice["method"]).loss,
                "options": default_options(task.losses),
                "label_weight": 0.0,
            },
            "optimizer": {
                "learning_rate": 1e-3,
                "backbone_learning_rate": 1e-3,
                "block_learning_rate": 1.0,  # a factor on the learning rate
                "weight_decay": 1e-5,
                "schedule": "cosine",
                "decay_every_epochs": 20,
                "warmup_steps": 30,
            },
            "training": {
                "num_epochs": 10,
                "batch_size": 100,
                "word_dropout": 0.0,
                "cached_maps": False,
                "cached_means": False,
                "map_crop": 0,
                "checkpoint_steps": 0,
                "workers": 0,
                # Devices that share the wide text weights, split along their width.
                "tensor_parallel": 1,
            },
        }
    )

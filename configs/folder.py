"""Your own collection: a folder of images with a table, or any other form of one.

    python -m modal_aware_jax.main --config=configs/folder.py \\
        --config.data.dir=FOLDER --workdir=runs/mine

The folder holds the images and one `.csv`, `.jsonl` or `.parquet` file with the columns
`image` (path inside the folder), `text` (free text or tags) and `labels`; other forms
and names that are read stand in `modal_aware_jax/data/folder.py`. The sizes of the
split follow that of the collection, 60 pairs at least, unless they are given. A pair
without words is kept, with an empty text.

A small ResNet learns from scratch, unless a pretrained backbone is named:

    --config=configs/folder.py:backbone=mobilenet_v2,variant=quick

The quick variant keeps it frozen and computes its lower maps once. All settings but the
size of a batch, which follows the collection's, are then those of `configs/flickr.py`,
and the weights are looked for as there.

Without labels its codes learn to keep the neighbours of the features that the network
starts from, of both modalities, and scores are of those (`tasks/neighbours.py`): name a
pretrained backbone then, one from scratch starts from random features.

It is hashed and searched; task=classification predicts the labels instead: one class,
or several with --config.loss.name=sigmoid.

Arguments after the colon, each optional: backbone=scratch|mobilenet_v2|resnet18|
mobilenet_v2_torchvision (README tells where their weights come from),
variant=full|quick, task=hashing|classification, method=NAME, bits=K, seed=S.
"""

from ml_collections import ConfigDict, config_dict

from modal_aware_jax.build import (
    METHODS,
    TASKS,
    WEIGHTS,
    choose_method,
    default_options,
    parse_arguments,
    photograph_settings,
    reader_options,
)

OPTIONS = {"on_problem": "stop", "allow_empty_text": True}


def get_config(arg: str = "") -> ConfigDict:
    """The config of one run; see the module's docstring for `arg`."""
    choice = parse_arguments(
        arg,
        backbone=("scratch", *WEIGHTS),
        variant=("full", "quick"),
        task=("hashing", "classification"),
        method=("modal_aware", *METHODS),
        bits=64,
        seed=0,
    )
    if choice["backbone"] == "scratch":
        if choice["variant"] == "quick":
            raise ValueError(
                "config argument variant=quick keeps a pretrained backbone frozen: "
                f"name one, backbone={next(iter(WEIGHTS))},variant=quick."
            )
        return ConfigDict(_from_scratch(choice) | _of_task(choice))
    settings = photograph_settings(
        choice, source="folder", options=dict(OPTIONS), queries=_open_sizes()
    )
    settings["data"].update(_open_sizes())
    settings["training"]["batch_size"] = config_dict.placeholder(int)
    return ConfigDict(settings | _of_task(choice))


def _of_task(choice):
    """What another task than hashing has of its own."""
    task = TASKS[choice["task"]]
    row = choose_method(task, choice["method"], METHODS)
    if task.comparison.by_bits:
        return {}
    options = default_options(task.losses)
    loss = {"name": row.loss, "options": options, "label_weight": 0.0}
    return {"task": task.name, "loss": loss}


def _open_sizes():
    """By the size of the collection where they are not given: data/sizes.py."""
    names = ("num_queries", "num_train", "num_validation")
    return {name: config_dict.placeholder(int) for name in names}


def _from_scratch(choice):
    return {
        "task": "hashing",
        "seed": choice["seed"],
        "data": {
            "source": "folder",
            "dir": "",
            # Every option of the reader, data/folder.py:load, by its name.
            "options": reader_options("folder", **OPTIONS),
            "image_size": 128,
            **_open_sizes(),
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
            "options": {"width": 32},
            "weights": "",
            "frozen_blocks": 0,
        },
        "model": {
            "method": choice["method"],
            "num_bits": choice["bits"],
            "nested_bits": (),  # lengths at which a prefix is a code, too
            "text_widths": (1024, 512),
            "dtype": "float32",  # or bfloat16: of the computation
            "image_features": 0,
            "image_dropout": 0.3,  # of the layer of `image_features`
            # Shares of rows that lose one in training: a stand-in is learned.
            "image_missing": 0.0,
            "text_missing": 0.0,
            "standard_text": True,
            "hidden_features": 0,
            # Width of the layer between label probabilities and codes that learn from
            # them; 0: codes are read off the joint vector.
            "head_features": 0,
        },
        "loss": {
            "name": METHODS[choice["method"]].loss,
            "options": default_options(),
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
            "num_epochs": 20,
            "batch_size": config_dict.placeholder(int),  # by the split's size
            "word_dropout": 0.1,
            # The share of training pictures that are noisy, blurred or compressed.
            "degraded": 0.0,
            "cached_maps": False,
            "cached_means": False,
            "map_crop": 0,
            # Validation queries search pairs that are not trained on (or
            # "database": all others), and so many of them each epoch (0: all).
            "validation_search": "unseen",
            "validation_database": 0,
            "checkpoint_steps": 0,
            "workers": 0,
            # Devices that share the wide text weights, split along their width.
            "tensor_parallel": 1,
        },
    }

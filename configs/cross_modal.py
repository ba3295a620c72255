"""MIR-Flickr 25k: one code from a photograph, one from its tags, in the same K bits.

    python -m modal_aware_jax.main --config=configs/cross_modal.py \\
        --config.data.dir=FOLDER --workdir=runs/cross_modal

Photographs ask for tags, tags for photographs; relevant is what shares one of 24
labels. FOLDER, protocol and weights are those of `configs/flickr.py`; the backbone is
frozen and its means are computed once.

Arguments after the colon, each optional: method=average_precision|dcmh|info_nce|
label_info_nce, bits=K, seed=S. Measured results are in README.md.
"""

from ml_collections import ConfigDict

from modal_aware_jax.build import (
    TASKS,
    default_options,
    parse_arguments,
    photograph_arguments,
    photograph_settings,
)


def get_config(arg: str = "") -> ConfigDict:
    """The config of one run; `arg` is `method=NAME,bits=K,seed=S`."""
    task = TASKS["cross_modal"]
    choice = parse_arguments(
        arg, method=("average_precision", *task.methods), bits=64, seed=0
    )
    config = ConfigDict(
        photograph_settings(
            photograph_arguments("variant=quick"),
            source="flickr25k",
            options={"num_labels": 24, "on_problem": "skip"},
            queries={"num_queries": 2000},
        )
    )
    config.task, config.seed = task.name, choice["seed"]
    config.model = ConfigDict(
        {
            "method": choice["method"],
            "num_bits": choice["bits"],
            "hidden_features": 1024,
            "image_dropout": 0.5,
            "hidden_dropout": 0.3,
            "dtype": "float32",  # or bfloat16: of the computation
        }
    )
    config.loss = ConfigDict(
        {
            "name": task.methods[choice["method"]].loss,
            "options": default_options(task.losses),
        }
    )
    return config

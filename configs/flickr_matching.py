"""MIR-Flickr 25k: photographs find tags, tags find photographs; relevance by labels.

    python -m modal_aware_jax.main --config=configs/flickr_matching.py \\
        --config.data.dir=FOLDER --workdir=runs/flickr_matching

The methods of `configs/flickr8k.py` with the tags of a photograph as its one sentence,
a vector a tag. Relevant is what shares one of 24 labels; MAP and precision at 5 and 10
of both ways. FOLDER, protocol and weights are those of `configs/flickr.py`: 2,000
queries, the rest the database, 10,000 of it trained on and the others scored apart.

Arguments after the colon, each optional: method=towers|towers_labels|siglip|vse|
vse_sum|cca|cmfg|cmfg_literal|towers_cmfg|single_stream|modal_aware|align_before_fuse|
distilled|towers_no_dropout, seed=S. Measured results are in README.md.
"""

from ml_collections import ConfigDict

from modal_aware_jax.build import (
    TASKS,
    captioned_settings,
    default_options,
    parse_arguments,
    photograph_arguments,
    photograph_settings,
)


def get_config(arg: str = "") -> ConfigDict:
    """The config of one run; see the module's docstring for `arg`."""
    task = TASKS["label_matching"]
    choice = parse_arguments(arg, method=("towers", *task.methods), seed=0)
    row = task.methods[choice["method"]]
    config = photograph_settings(
        photograph_arguments("variant=quick"),
        source="flickr25k",
        options={"num_labels": 24, "on_problem": "skip"},
        queries={"num_queries": 2000},
    )
    known = {"method": "towers", "seed": choice["seed"]}
    networks = captioned_settings(
        known, source="flickr25k", options={}, num_validation=1000
    )
    config |= {name: networks[name] for name in ("model", "loss", "retrieval")}
    config |= {"task": task.name, "seed": choice["seed"]}
    config["data"] |= {"text": "word_tokens", "num_tokens": 24}
    config["model"] |= {
        "method": choice["method"],
        "features": 512,
        "hidden_features": 1024,
    }
    config["loss"] |= {"name": row.loss, "options": default_options(task.losses)}
    config["optimizer"] |= {"block_learning_rate": 1.0}
    return ConfigDict(config)

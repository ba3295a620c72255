"""Flickr30k: 31,000 photographs with five sentences each.

    python -m modal_aware_jax.main --config=configs/flickr30k.py:source=karpathy \\
        --config.data.dir=FOLDER --workdir=runs/flickr30k

FOLDER holds the photographs with the official `results_20130124.token` or Kaggle's
table; or, with source=karpathy, `dataset_flickr30k.json`, whose split (1,000 images to
validate with, 1,000 to test with) the literature uses. All but the data is as in
`configs/flickr8k.py`; no number has been measured with this config.

Arguments after the colon, each optional: method=NAME, source=flickr30k|karpathy,
text=frozen|fine_tuned, seed=S.
"""

from ml_collections import ConfigDict

from modal_aware_jax.build import TASKS, captioned_settings, parse_arguments


def get_config(arg: str = "") -> ConfigDict:
    """The config of one run; see the module's docstring for `arg`."""
    choice = parse_arguments(
        arg,
        method=("towers", *TASKS["matching"].methods),
        source=("flickr30k", "karpathy"),
        text=("frozen", "fine_tuned"),
        seed=0,
    )
    return ConfigDict(
        captioned_settings(
            choice,
            source=choice["source"],
            options={"on_problem": "skip"},
            num_validation=1000,
        )
    )

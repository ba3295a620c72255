"""COCO: 123,000 photographs with five sentences each, in Karpathy's split.

    python -m modal_aware_jax.main --config=configs/coco.py \\
        --config.data.dir=FOLDER --workdir=runs/coco

FOLDER holds `dataset_coco.json`, whose split this is (5,000 images to validate with,
5,000 to test with, those of 'restval' among the others), and the folders `train2014`
and `val2014`, zipped or extracted. All 5,000 test images are one gallery; the mean of
five galleries of 1,000 is `retrieval/coco_protocol.py`. All but the data is as in
`configs/flickr8k.py`; no number has been measured with this config.

Arguments after the colon, each optional: method=NAME, text=frozen|fine_tuned,
seed=S.
"""

from ml_collections import ConfigDict

from modal_aware_jax.build import TASKS, captioned_settings, parse_arguments


def get_config(arg: str = "") -> ConfigDict:
    """The config of one run; see the module's docstring for `arg`."""
    choice = parse_arguments(
        arg,
        method=("towers", *TASKS["matching"].methods),
        text=("frozen", "fine_tuned"),
        seed=0,
    )
    return ConfigDict(
        captioned_settings(
            choice,
            source="karpathy",
            options={"on_problem": "skip"},
            num_validation=1000,
        )
    )

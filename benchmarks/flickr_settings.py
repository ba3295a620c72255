"""MIR-Flickr's quick config, as benchmarks of finished runs read it.

Results from before pictures were read at 224 pixels and mirrored, and codes off label
probabilities, are of other settings: `--before` takes those.
"""

import argparse
import pathlib
import runpy

from ml_collections import ConfigDict

CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "flickr.py"
BEFORE = {
    "data.image_size": 192,
    "data.mirrored": False,
    "model.head_features": 0,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--data` and `--before`."""
    parser.add_argument("--data", required=True, help="the folder of MIR-Flickr")
    parser.add_argument(
        "--before",
        action="store_true",
        help="192 pixels, as they are, codes of the joint vector",
    )


def quick_config(data: str, *, before: bool = False, arg: str = "") -> ConfigDict:
    """The config on a folder; `arg` as after the file's colon, beside variant=quick."""
    config = runpy.run_path(str(CONFIG))["get_config"](
        f"variant=quick,{arg}".strip(",")
    )
    config.data.dir = data
    if before:
        config.update_from_flattened_dict(BEFORE)
    return config

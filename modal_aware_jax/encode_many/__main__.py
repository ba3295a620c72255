"""Encode files of pairs with an exported model: one machine, or a cluster of Ray.

    python -m modal_aware_jax.encode_many --model=runs/x/export \\
        --input='posts/*.parquet,shards/*.tar' --output=codes

    ... --workers=4                          four processes of this machine, by Ray
    ... --workers=64 --gpus_a_worker=1 --address=auto \\
        --input='s3://posts/*.tar' --output=s3://posts-codes

Inputs are Parquet files with their images inside, WebDataset shards (.tar), tables of
this machine with their images beside them, and folders of images. In OUTPUT there is a
Parquet file of ids and packed codes for each input; see encode_many/parts.py.

Stopped at any time, the same command goes on with the inputs that are not finished;
inputs that were added or changed are encoded, the others are not touched. A changed
image is a change of its folder, and of a table in a folder above, but not of a Parquet
file that only names it. What cannot be read is left out and listed in OUTPUT/problems/.

Then, if asked: --lance=PLACE writes all codes as a LanceDB table, --index=FILE as an
index that --mode=search and HammingIndex.load open.
"""

import pathlib

from absl import flags

from modal_aware_jax import cli

flags.DEFINE_string("model", None, "An exported model: a folder or a file in it.")
flags.DEFINE_list("input", [], "Files, folders or patterns, in quotes.")
flags.DEFINE_string("output", None, "The folder for codes, also s3:// and the like.")
flags.DEFINE_integer("workers", 0, "Ray actors; 0: this process.", lower_bound=0)
flags.DEFINE_float("cpus_a_worker", 1.0, "Cores of each.", lower_bound=0.0)
flags.DEFINE_float("gpus_a_worker", 0.0, "GPUs of each.", lower_bound=0.0)
flags.DEFINE_string("address", "", "Of a running Ray; '' starts one.")
flags.DEFINE_integer("batch_size", 100, "Pairs at a time.", lower_bound=1)
flags.DEFINE_integer("images_a_piece", 1000, "Of a folder of images.", lower_bound=1)
flags.DEFINE_string("image_column", None, "Of tables; by the usual names without.")
flags.DEFINE_list("text_column", None, "Of tables; by the usual names without.")
flags.DEFINE_string("tag_separator", None, "Between tags; without it words are split.")
flags.DEFINE_integer("stored_size", 256, "As the collection's that was trained on.")
flags.DEFINE_string("lance", None, "Also a LanceDB table at this place.")
flags.DEFINE_string("index", None, "Also an index in this file.")


def run(args) -> None:
    """Encodes what is not done yet, and says what came of it."""
    from modal_aware_jax.encode_many.on_ray import Actors
    from modal_aware_jax.encode_many.one_input import Reading
    from modal_aware_jax.encode_many.run import encode_many

    for name in ("model", "output"):
        if not getattr(args, name):
            raise ValueError(f"Give --{name}; --help says what it is.")
    actors = Actors(args.workers, args.cpus_a_worker, args.gpus_a_worker, args.address)
    encode_many(
        args.input,
        pathlib.Path(args.model),
        args.output,
        actors=actors if args.workers else None,
        batch_size=args.batch_size,
        images_a_piece=args.images_a_piece,
        reading=Reading(
            args.image_column,
            tuple(args.text_column) if args.text_column else None,
            args.tag_separator,
            args.stored_size or None,
        ),
        lance=args.lance,
        index=args.index,
    )


if __name__ == "__main__":
    cli.start(run)

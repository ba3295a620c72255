"""All inputs to one output: what is done stays, what is not is encoded."""

import os
import pathlib
import sys
import time
from collections.abc import Iterable, Sequence

from modal_aware_jax.encode_many.collect import write_index, write_lance
from modal_aware_jax.encode_many.inputs import Input, find_inputs
from modal_aware_jax.encode_many.on_ray import Actors, encode_on_ray
from modal_aware_jax.encode_many.one_input import Reading
from modal_aware_jax.encode_many.parts import Output
from modal_aware_jax.encode_many.storage import opened
from modal_aware_jax.encode_many.worker import Done, Worker
from modal_aware_jax.modes.encode import need_codes_of
from modal_aware_jax.modes.model_files import load_model_file
from modal_aware_jax.training.progress import ProgressBar


def encode_many(
    places: Sequence[str],
    model: pathlib.Path,
    output: str,
    *,
    actors: Actors | None = None,
    batch_size: int = 100,
    images_a_piece: int = 1000,
    reading: Reading | None = None,
    lance: str | None = None,
    index: str | None = None,
) -> None:
    """Encodes all inputs that are not encoded yet.

    Args:
      places: of the inputs, as `find_inputs` takes them.
      model: an exported model with its `config.json`.
      output: the folder of the parts, see `parts.py`.
      actors: of Ray; None: this process.
      batch_size: pairs at a time.
      images_a_piece: how many images of a folder make one input.
      reading: how tables are read; None: by the usual names.
      lance: also a LanceDB table at this place.
      index: also an index in this file.

    Raises:
      ValueError: what was asked for cannot be done, such as an output in a folder of
        inputs; or, when all others are encoded, some inputs cannot be read.
    """
    model = model.expanduser().absolute()
    encoder = load_model_file(model)
    need_codes_of(encoder)
    reading = reading or Reading()
    if not encoder.vocabulary:
        raise ValueError(
            f"--model: {model} has no words: keep config.json beside the model, as "
            "--mode=export wrote it."
        )
    parts = Output(output)
    _check_apart(places, parts)
    sources = find_inputs(places, images_a_piece=images_a_piece)
    parts.begin(
        {
            "model": encoder.digest,
            "num_bits": encoder.num_bits,
            "batch_size": batch_size,
            "reading": reading._asdict(),
        }
    )
    todo = [source for source in sources if not parts.is_done(source)]
    if len(todo) < len(sources):
        done = len(sources) - len(todo)
        print(f"{done:,} of {len(sources):,} inputs were encoded before.")
    options = dict(batch_size=batch_size, reading=reading)
    failed = {}
    if todo and actors:
        ended = encode_on_ray(todo, model, output, actors=actors, **options)
        failed = _follow(ended, todo, output)
    elif todo:
        failed = _follow(map(Worker(encoder, output, **options), todo), todo, output)
    whole = [source for source in sources if source.address not in failed]
    if lance and whole:
        print(f"Wrote {write_lance(parts.tables(whole), lance)}")
    if index and whole:
        print(f"Wrote {write_index(parts.tables(whole), encoder.num_bits, index)}")
    if failed:
        address, error = next(iter(failed.items()))
        raise ValueError(
            f"{len(failed)} of {len(sources)} inputs could not be read; the others are "
            f"in {output}. The first: {address}: {error} Mend it or leave it out, and "
            "give the same command again."
        )


def _check_apart(places, parts):
    """Refuses an output in a folder of inputs: its parts would be inputs, too."""
    for place in filter(None, (place.strip() for place in places)):
        files, path = opened(place)
        path, out = os.path.normpath(path), os.path.normpath(parts.path)
        if type(files) is type(parts.files) and f"{out}/".startswith(f"{path}/"):
            raise ValueError(
                f"--output={parts.address} is in the folder --input={place}, so its "
                "parts would be taken for inputs. Give another folder."
            )


def _follow(ended: Iterable[Done], todo: Sequence[Input], output: str):
    """Shows how it goes -> the inputs that could not be read, with why."""
    start, failed = time.monotonic(), {}
    items = skipped = wordless = 0
    with ProgressBar(len(todo), label="encode") as bar:
        for number, result in enumerate(ended, 1):
            items += result.items
            skipped += result.skipped
            wordless += result.wordless
            if result.error:
                failed[result.address] = result.error
                print(f"{result.address}: {result.error}", file=sys.stderr)
            bar.update(number, f"{items:,} pairs")
    seconds = time.monotonic() - start
    print(
        f"{items:,} pairs of {len(todo) - len(failed):,} inputs encoded in "
        f"{seconds:,.0f} s ({items / seconds:,.0f}/s) to {output}; {wordless:,} of "
        "them without a word that the model knows."
    )
    if skipped:
        print(f"{skipped:,} were left out: {output}/problems/ says why.")
    return failed

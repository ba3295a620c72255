"""Whether the input keeps the device busy: decoding, reading workers, copies.

    python benchmarks/input.py                                   # about five minutes
    python benchmarks/input.py --size=64 --batch=16 --width=8 --pairs=96 --steps=4

`decode`: images per second of one core, by PIL (what the pipeline does) and by
simplejpeg where it is installed, each with the random crop and resize; sides take
turns. `workers`: images per second that Grain reads with 0, 1, 2, ... processes, then
with the training step (ResNet-18, recommended blocks) behind it: the share of the time
the host waited in `next`, and the share the device was without work, which is what the
step takes longer than on a batch that lies on the device. `copies`: the same step on
batches that are ready in host memory, so that only the copies differ.

The pictures are drawn at 256 pixels and stored as JPEG; --flickr=FOLDER takes
MIR-Flickr's. Writes OUT.json and OUT.md.
"""

import argparse
import functools
import io
import itertools
import json
import os
import pathlib
import statistics
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
import train_step
from alternate import commit, num_cores, processor, table
from PIL import Image

from modal_aware_jax.data import flickr25k, pipeline, shapes
from modal_aware_jax.losses.triplet import triplet_ranking, triplet_ranking_chunked
from modal_aware_jax.training import adam_l2, init_state, make_update, split_model
from modal_aware_jax.training.monitor import LAG

HERE = pathlib.Path(__file__).parent
SECTIONS = ("decode", "workers", "copies")
CROP = {"scale": (0.3, 1.0), "ratio": (3 / 4, 4 / 3)}  # as in `train_batches`


def load(options):
    if options.flickr:
        return flickr25k.load(options.flickr, on_problem="skip")
    return shapes.load(num_pairs=options.pairs, image_size=256)


# ---- decode ----


def decoders() -> dict:
    """Functions from JPEG bytes to a PIL image or an array, by name."""
    known = {"PIL": pipeline.decode}
    try:
        import simplejpeg
    except ImportError:
        return known
    known["simplejpeg"] = functools.partial(simplejpeg.decode_jpeg, colorspace="RGB")
    known["simplejpeg, quick"] = functools.partial(
        simplejpeg.decode_jpeg, colorspace="RGB", fastdct=True, fastupsample=True
    )
    return known


def crop_and_resize(image, size, rng) -> np.ndarray:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    box = pipeline.random_box(*image.size, rng, **CROP)
    return pipeline.resize(image, size, box)


def measure_decode(options, pairs):
    """Images per second of one core: decoded only, and augmented."""
    encoded = [pairs.images[i] for i in range(min(len(pairs), options.pairs))]
    seconds = {}
    for number in range(options.rounds):
        for name, decode in decoders().items():
            for augment in (False, True):
                rng = np.random.default_rng(number)
                start = time.process_time()
                for image in encoded:
                    decoded = decode(image)
                    if augment:
                        crop_and_resize(decoded, options.size, rng)
                took = (time.process_time() - start) / len(encoded)
                seconds.setdefault((name, augment), []).append(took)
    reference = [np.asarray(pipeline.decode(image)) for image in encoded[:50]]
    rows = []
    for name, decode in decoders().items():
        apart = [
            np.abs(np.asarray(decode(image)).astype(int) - true)
            for image, true in zip(encoded, reference, strict=False)
        ]
        plain, full = (1 / statistics.median(seconds[name, a]) for a in (False, True))
        rows.append(
            {
                "decoder": name,
                "decoded/s": plain,
                "augmented/s": full,
                "against PIL": statistics.median(
                    ours / theirs
                    for ours, theirs in zip(
                        seconds["PIL", True], seconds[name, True], strict=True
                    )
                ),
                "pixels differ by": float(np.mean([a.mean() for a in apart])),
                "at most": int(max(a.max() for a in apart)),
            }
        )
    size = statistics.mean(len(image) for image in encoded) / 1e3
    width, height = Image.open(io.BytesIO(encoded[0])).size
    print(f"{len(encoded)} JPEG files of {size:.0f} kB, the first {width}x{height}")
    return rows


# ---- training ----


class Step:
    """The training step on uint8 batches; `LAG` steps run ahead, as in `fit`."""

    def __init__(self, options, pairs):
        spec = {"form": "recommended", "dtype": options.dtype, "bits": 64}
        spec |= {"width": options.width, "wide": options.wide, "narrow": 512}
        spec |= {"words": pairs.num_text_features}
        ranking = triplet_ranking
        if options.batch > train_step.WHOLE_BATCH:
            ranking = triplet_ranking_chunked

        def loss(model, batch, key):
            del key
            images = (batch["image"].astype(jnp.float32) - 118.0) / 58.0
            relaxed = model(images, batch["text"], train=True)
            return ranking(jnp.tanh(relaxed.astype(jnp.float32)), batch["labels"])

        graphdef, params, stats = split_model(train_step.network(spec))
        tx = adam_l2(1e-4)
        self.state = init_state(params, stats, tx)
        self.update = make_update(graphdef, loss, tx)
        self.key = jax.random.key(0)

    def run(self, batches, count) -> tuple[float, float]:
        """Seconds a step, and the seconds of it spent in `next`."""
        waited, losses = 0.0, []
        start = time.perf_counter()
        for _ in range(count):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            self.state, metrics = self.update(self.state, batch, self.key)
            losses.append(metrics["loss"])
            if len(losses) > LAG:
                losses.pop(0).block_until_ready()
        jax.block_until_ready(self.state)
        return (time.perf_counter() - start) / count, waited / count


def read(options, pairs, workers):
    batches = pipeline.train_batches(
        pairs,
        np.arange(len(pairs)),
        batch_size=options.batch,
        image_size=options.size,
        seed=0,
        workers=workers,
    )
    return iter(batches)


def resident(options, pairs, step):
    """Endless: one batch that lies on the device; the step is compiled for it."""
    batch = next(read(options, pairs, 0))
    on_device = itertools.repeat(jax.device_put(batch))
    step.run(on_device, 2)
    return batch, on_device


def measure_workers(options, pairs):
    step = Step(options, pairs)
    _, on_device = resident(options, pairs, step)
    rows = []
    for workers in options.workers:
        iterator = read(options, pairs, workers)
        start = time.perf_counter()
        next(iterator)
        first = time.perf_counter() - start
        for _ in range(pipeline.BATCHES_AHEAD + workers):  # what was read ahead
            next(iterator)
        start = time.perf_counter()
        for _ in range(options.steps):
            next(iterator)
        alone = options.batch * options.steps / (time.perf_counter() - start)
        turns = []
        for _ in range(options.rounds):
            step.run(iterator, 1)
            took, waited = step.run(iterator, options.steps)
            turns.append((took, waited, step.run(on_device, options.steps)[0]))
        rows.append(
            {
                "workers": workers,
                "first batch s": first,
                "read images/s": alone,
                "trained images/s": options.batch
                / statistics.median(t[0] for t in turns),
                "on the device images/s": options.batch
                / statistics.median(t[2] for t in turns),
                "waited in next": statistics.median(t[1] / t[0] for t in turns),
                "device without work": statistics.median(
                    max(0.0, 1 - t[2] / t[0]) for t in turns
                ),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
        if hasattr(iterator, "close"):
            iterator.close()
    return rows


def measure_copies(options, pairs):
    """The step on host batches against the same on the device, in turns."""
    step = Step(options, pairs)
    batch, on_device = resident(options, pairs, step)

    def from_host():
        while True:  # a new array each, else the copy might be kept
            yield {name: np.array(value) for name, value in batch.items()}

    turns = []
    for _ in range(options.rounds + 2):
        ready = iter(list(itertools.islice(from_host(), options.steps)))
        turns.append(
            (step.run(ready, options.steps)[0], step.run(on_device, options.steps)[0])
        )
    host, device = (statistics.median(column) for column in zip(*turns, strict=True))
    start = time.perf_counter()
    for _ in range(options.steps):
        jax.block_until_ready(jax.device_put({k: v + 0 for k, v in batch.items()}))
    copy = (time.perf_counter() - start) / options.steps
    return [
        {
            "batch MB": sum(value.nbytes for value in batch.values()) / 1e6,
            "copy alone ms": 1e3 * copy,
            "step, host ms": 1e3 * host,
            "step, device ms": 1e3 * device,
            "host / device": statistics.median(a / b for a, b in turns),
        }
    ]


def describe(result) -> str:
    said = result["conditions"]
    lines = ["# Input", "", ", ".join(f"{k} {v}" for k, v in said.items()) + ".", ""]
    titles = {
        "decode": "Decoding and augmenting, images per second of one core",
        "workers": "Reading processes, without and with the training step",
        "copies": "Batches from the host against one on the device",
    }
    for section, title in titles.items():
        if section in result:
            lines += [f"## {title}", "", table(result[section])]
    return "\n".join(lines) + "\nMade by `benchmarks/input.py`.\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--flickr", default="", help="a folder with MIR-Flickr 25k")
    parser.add_argument("--pairs", type=int, default=512, help="pictures drawn")
    parser.add_argument("--size", type=int, default=224, help="of the crops")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=64, help="of ResNet-18")
    parser.add_argument("--wide", type=int, default=1024)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--workers", default="0,1,2")
    parser.add_argument("--steps", type=int, default=5, help="of a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default=str(HERE / "results" / "input"))
    options = parser.parse_args()
    options.workers = [int(n) for n in options.workers.split(",")]
    pairs = load(options)
    device = jax.devices()[0]
    result = {
        "conditions": {
            "commit": commit(),
            "device": processor() if device.platform == "cpu" else device.device_kind,
            "cores": num_cores(),
            "load": round(os.getloadavg()[0], 1),
            "jax": jax.__version__,
            "grain": grain.__version__ if hasattr(grain, "__version__") else "",
            "data": pairs.name,
            "crop": options.size,
            "batch": options.batch,
            "ResNet-18 width": options.width,
            "dtype": options.dtype,
        }
    }
    out = pathlib.Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    for section in options.sections.split(","):
        result[section] = globals()[f"measure_{section}"](options, pairs)
        out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        out.with_suffix(".md").write_text(describe(result))
    print(describe(result))


if __name__ == "__main__":
    main()

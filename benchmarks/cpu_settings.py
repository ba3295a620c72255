"""What two settings of the environment bring a training step on a CPU under Linux.

    python benchmarks/cpu_settings.py

`GLIBC_TUNABLES=glibc.malloc.hugetlb=1`: XLA takes the memory of a step's intermediate
values anew at every call, and the kernel hands it out in pages of 4 kB, each with a
fault of its own. With this, glibc (2.35 or later) asks for pages of 2 MB.

`XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=-individual_convolution`: jaxlib 0.10
hands convolutions to YNNPACK, which here leaves a second core almost unused. Without
it, they go to Eigen as before.

Two steps run in processes that take turns, one for each choice of settings: the
recommended network on random maps, as in `configs/flickr.py:variant=quick`, which has
no convolution to train, and ResNet-18 at 224 pixels, as in `train_step.py`. Writes
`results/cpu_settings.json` and `.md`.
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import tempfile

import train_step
from alternate import (
    Child,
    commit,
    compare,
    num_cores,
    processor,
    serve,
    take_turns,
    time_steps,
)

PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
EIGEN = {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"}
SETTINGS = {
    "none": {},
    "huge pages": PAGES,
    "Eigen": EIGEN,
    "both": {**PAGES, **EIGEN},
}
STEPS = {"quick": 8, "ResNet-18": 1}  # of a turn
HERE = pathlib.Path(__file__).parent
RESNET = {"size": 224, "batch": 16, "width": 64, "form": "recommended"}
RESNET |= {"words": 1386, "wide": 8192, "narrow": 512, "bits": 64, "dtype": "float32"}


def serve_resnet():
    """Times steps of ResNet-18 for as long as it is asked to."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "data.npz"
        train_step.save_batch(RESNET, path)
        trainer = train_step.Trainer({**RESNET, "data": str(path)})
    serve(lambda request: time_steps(trainer.step, trainer.wait, request["steps"]))


def serve_quick():
    """Times steps on frozen maps for as long as it is asked to."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from modal_aware_jax.backbones.mobilenet import MobileNetV2
    from modal_aware_jax.build import BLOCKS
    from modal_aware_jax.losses.triplet import triplet_ranking
    from modal_aware_jax.models import MultimodalHashing

    rngs = nnx.Rngs(0)
    model = MultimodalHashing(
        MobileNetV2(num_lower_blocks=18, freeze_norm=True, rngs=rngs),
        1386,
        64,
        text_widths=(1024, 512),
        block=BLOCKS["modal_aware"],
        rngs=rngs,
    )
    frozen = nnx.All(nnx.Param, nnx.PathContains("backbone"))
    graphdef, rest, params = nnx.split(model, nnx.Any(frozen, nnx.Not(nnx.Param)), ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    tx = optax.adam(1e-3)
    keys = jax.random.split(jax.random.key(0), 3)
    maps = jax.random.normal(keys[0], (100, 6, 6, 320))
    text = jax.random.bernoulli(keys[1], 4.5 / 1386, (100, 1386)) * 1.0
    labels = jax.random.bernoulli(keys[2], 0.15, (100, 24)) * 1

    @jax.jit
    def update(params, opt_state):
        def loss(params):
            model = nnx.merge(graphdef, params, rest)
            joint = model.joint_from_maps(maps, text, train=True)
            return triplet_ranking(jnp.tanh(model.head(joint)), labels)

        value, gradients = jax.value_and_grad(loss)(params)
        changes, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, changes), opt_state, value

    state = [params, tx.init(params)]

    def step():
        *state[:], value = update(*state)
        return value

    serve(lambda request: time_steps(step, float, request["steps"]))


def measure(args, network):
    """Median seconds and ratios to no setting, by the wall's and the cores' clock."""
    command = [sys.executable, __file__, f"--serve={network}"]
    bare = {name: "" for name in (*PAGES, *EIGEN)}  # whatever this process has
    with contextlib.ExitStack() as stack:
        children = {
            name: stack.enter_context(Child(command, environment={**bare, **values}))
            for name, values in SETTINGS.items()
        }
        answers = take_turns(
            children, rounds=args.rounds, steps=STEPS[network], budget=args.budget
        )
    clocks = {clock: compare(answers, "none", clock) for clock in ("wall", "cores")}
    return {**clocks, "rounds": len(answers["both"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--budget", type=float, default=300, help="seconds a network")
    parser.add_argument(
        "--out", default=HERE / "results" / "cpu_settings", type=pathlib.Path
    )
    parser.add_argument("--serve", choices=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve_quick() if args.serve == "quick" else serve_resnet()
    made = {"commit": commit(), "processor": processor(), "cores": num_cores()}
    made["load"] = os.getloadavg()[0]
    result = {network: measure(args, network) for network in STEPS}
    args.out.with_suffix(".json").write_text(
        json.dumps({"made": made, **result}, indent=1) + "\n"
    )
    text = table(made, result)
    args.out.with_suffix(".md").write_text(text)
    print(text)


def table(made, result):
    lines = [
        "| step | clock | " + " | ".join(f"{name}, ms" for name in SETTINGS) + " |"
    ]
    lines += ["|---" * (2 + len(SETTINGS)) + "|"]
    for network, clocks in result.items():
        for clock in ("wall", "cores"):
            found = clocks[clock]
            cells = [f"{1e3 * found['seconds']['none']:.0f}"]
            cells += [
                f"{1e3 * found['seconds'][name]:.0f} ({found['ratio'][name]:.2f}x)"
                for name in list(SETTINGS)[1:]
            ]
            lines.append(f"| {network} | {clock} | " + " | ".join(cells) + " |")
    lines.append(
        "\nMedians of alternating rounds; in brackets: times as fast as with neither, "
        f"median over the rounds; {made['processor']}, {made['cores']} cores, load "
        f"{made['load']:.1f} at the start, commit {made['commit']}. `cores` is the "
        "time of all cores together. Made by `benchmarks/cpu_settings.py`."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

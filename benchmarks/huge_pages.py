"""What huge pages bring a training step on a CPU under Linux.

    python benchmarks/huge_pages.py

XLA takes the memory of a step's intermediate values anew at every call, and the kernel
hands it out in pages of 4 kB, each with a fault of its own. With

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1

in the environment, glibc (2.35 or later) asks for pages of 2 MB. The same step, of the
recommended network on random maps as in `configs/flickr.py:variant=quick`, runs in two
processes that take turns. Writes `results/huge_pages.json` and `.md`.
"""

import argparse
import json
import pathlib
import sys

from alternate import Child, commit, compare, processor, serve, take_turns, time_steps

TUNABLES = "GLIBC_TUNABLES"
SETTINGS = {"4 kB pages": "", "huge pages": "glibc.malloc.hugetlb=1"}
HERE = pathlib.Path(__file__).parent


def child():
    """Times steps for as long as it is asked to."""
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

    jax.block_until_ready(step())
    serve(lambda request: time_steps(step, float, request["steps"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--budget", type=float, default=300, help="seconds")
    parser.add_argument("--out", default=HERE / "results/huge_pages", type=pathlib.Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child()
    command = [sys.executable, __file__, "--child"]
    plain, huge = (
        Child(command, environment={TUNABLES: value}) for value in SETTINGS.values()
    )
    with plain, huge:
        answers = take_turns(
            dict(zip(SETTINGS, (plain, huge), strict=True)),
            rounds=args.rounds,
            steps=args.steps,
            budget=args.budget,
        )
    result = {
        clock: compare(answers, "4 kB pages", clock) for clock in ("wall", "cores")
    }
    rounds = len(answers["huge pages"])
    made = {"commit": commit(), "processor": processor(), "rounds": rounds}
    args.out.with_suffix(".json").write_text(
        json.dumps({"made": made, **result}, indent=1) + "\n"
    )
    lines = ["| clock | 4 kB pages, ms | huge pages, ms | times as fast |"]
    lines += ["|---|---|---|---|"]
    for clock, found in result.items():
        plain, huge = (1e3 * found["seconds"][name] for name in SETTINGS)
        ratio = found["ratio"]["huge pages"]
        lines.append(f"| {clock} | {plain:.0f} | {huge:.0f} | {ratio:.2f} |")
    lines.append(
        f"\nOne training step, {args.steps} a turn, medians of {rounds} alternating "
        f"rounds; {made['processor']}, commit {made['commit']}. `cores` is the time of "
        "all cores together. Made by `benchmarks/huge_pages.py`."
    )
    text = "\n".join(lines) + "\n"
    args.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

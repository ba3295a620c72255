"""What a modal-aware block beside 8,192 text features costs, in three forms.

    python benchmarks/wide_block.py

Parameters, a training step of the block alone (value, gradients and Adam; alternating,
medians and ratios) and XLA's own account of its memory, for the paper's literal form,
the same functions through a low-rank kernel, and that with squeezed attention. C = 256
at 14 x 14 positions as in ResNet-18 at 224 pixels, batch 100. Writes
`results/wide_block_DEVICE.json` and `.md`.
"""

import argparse
import functools
import json
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from modal_aware_jax.blocks.channel_attention import SqueezedChannelAttention
from modal_aware_jax.blocks.kernel_network import KernelNetwork
from modal_aware_jax.blocks.modal_aware import ModalAwareBlock
from modal_aware_jax.compare import provenance


def forms(channels):
    low_rank = functools.partial(KernelNetwork, rank=channels + 1)
    return {
        "literal": ModalAwareBlock,
        "low-rank kernel": functools.partial(ModalAwareBlock, kernel_network=low_rank),
        "low-rank kernel, squeezed attention": functools.partial(
            ModalAwareBlock,
            kernel_network=low_rank,
            channel_attention=SqueezedChannelAttention,
        ),
    }


def training_step(block, channels, text_features, image, text):
    """A compiled step of one form, its state, and its number of weights."""
    graphdef, state = nnx.split(block(channels, text_features, rngs=nnx.Rngs(0)))
    params = nnx.to_pure_dict(state)
    tx = optax.adam(1e-4)

    def step(params, opt_state):
        def loss(params):
            maps, words = nnx.merge(graphdef, params)(image, text)
            return jnp.mean(maps**2) + jnp.mean(words**2)

        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state = tx.init(params)
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, opt_state).compile()
    return compiled, (params, opt_state), sum(x.size for x in jax.tree.leaves(params))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--side", type=int, default=14)
    parser.add_argument("--text", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    shape = (args.batch, args.side, args.side, args.channels)
    image = jax.random.normal(jax.random.key(0), shape)
    text = jax.nn.relu(jax.random.normal(jax.random.key(1), (args.batch, args.text)))
    rows, running = {}, {}
    for name, block in forms(args.channels).items():
        compiled, state, weights = training_step(
            block, args.channels, args.text, image, text
        )
        memory = compiled.memory_analysis()
        rows[name] = {
            "weights": weights,
            "state_mb": memory.argument_size_in_bytes / 1e6,
            "temporary_mb": memory.temp_size_in_bytes / 1e6,
            "ms": [],
        }
        running[name] = compiled, jax.block_until_ready(compiled(*state))
    for _ in range(args.rounds):
        for name, (compiled, state) in running.items():
            start = time.perf_counter()
            state = jax.block_until_ready(compiled(*state))
            rows[name]["ms"].append(1e3 * (time.perf_counter() - start))
            running[name] = compiled, state
    base = statistics.median(rows["literal"]["ms"])
    lines = [
        "| form | weights | step, ms | of literal | state, MB | temporary, MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        row["median_ms"] = statistics.median(row["ms"])
        row["ratio"] = row["median_ms"] / base
        lines.append(
            "| {} | {:,} | {median_ms:.0f} | {ratio:.2f} | {state_mb:.0f} | "
            "{temporary_mb:.0f} |".format(name, row["weights"], **row)
        )
    table = "\n".join(lines)
    print(table)
    where = pathlib.Path(__file__).parent / "results"
    where.mkdir(exist_ok=True)
    stem = f"wide_block_{jax.default_backend()}"
    record = {"args": vars(args), "rows": rows, "provenance": provenance()}
    (where / f"{stem}.json").write_text(json.dumps(record, indent=1))
    made = record["provenance"]
    (where / f"{stem}.md").write_text(
        f"# The block beside {args.text:,} text features\n\nMade by "
        f"`benchmarks/wide_block.py` at commit {made['commit']}, jax {made['jax']}, "
        f"{made['machine']}; medians of {args.rounds} alternating rounds.\n\n{table}\n"
    )


if __name__ == "__main__":
    main()

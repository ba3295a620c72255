"""A run's encoder as files that others can use: a program, and weights with facts."""

import json
import os
import pathlib
import shutil
from collections.abc import Sequence

import numpy as np
from flax import nnx

import modal_aware_jax
from modal_aware_jax.build import Experiment
from modal_aware_jax.data.pipeline import PRESENCE
from modal_aware_jax.hashing.exported import PLATFORMS, export_encoder
from modal_aware_jax.modes.evaluate import load_run
from modal_aware_jax.modes.model_files import FACTS, PROGRAM, WEIGHTS, flat_variables
from modal_aware_jax.modes.program_text import TOKENIZER, program_text


def export_run(
    experiment: Experiment,
    workdir: pathlib.Path,
    *,
    step="latest",
    output: pathlib.Path | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> pathlib.Path:
    """Writes a checkpoint's encoder to a folder, as `modes.model_files` lists them.

    The files appear only when all of them are complete.

    Args:
      experiment: built from the config the run was trained with; `cached_maps` off.
      workdir: the run's directory.
      step: 'latest', 'best' or a step.
      output: the folder; `export` in the workdir by default.
      platforms: what the program runs on.

    Returns:
      The folder.
    """
    from safetensors.numpy import save_file

    pairs, model = experiment.collection, experiment.model
    reads = program_text(experiment)
    record = load_run(experiment, workdir, step)
    graphdef, state = nnx.split(model)

    def relaxed(images, text, *masks):
        batch = {"image": images, "text": reads.read(text)}
        batch |= dict(zip(PRESENCE, masks, strict=False))
        outputs = experiment.output(nnx.merge(graphdef, state), batch)
        return outputs[:, : experiment.num_bits or pairs.num_labels]

    output = output or workdir / f"export{experiment.suffix}"
    output.mkdir(parents=True, exist_ok=True)
    partial = output / f".{os.getpid()}.partial"
    partial.mkdir()
    try:
        program = export_encoder(
            relaxed,
            image_size=experiment.image_size,
            text_features=reads.features,
            num_masks=2 if getattr(model, "has_stand_ins", False) else 0,
            platforms=platforms,
        )
        (partial / PROGRAM).write_bytes(program)
        save_file(flat_variables(model), partial / WEIGHTS, {"format": "numpy"})
        facts = _facts(experiment, record, workdir, reads)
        (partial / FACTS).write_text(json.dumps(facts, indent=1), "utf-8")
        if reads.tokenizer is not None:
            reads.tokenizer.save(partial / TOKENIZER)
        for path in partial.iterdir():
            path.replace(output / path.name)
    finally:
        shutil.rmtree(partial)
    return output


def _facts(experiment, record, workdir, reads):
    """What `config.json` says: all that is not a weight."""
    pairs = experiment.collection
    pieces = {}
    if reads.tokenizer is not None:
        pieces = {"num_word_pieces": reads.tokenizer.longest}
    return {
        "library_name": "modal_aware_jax",
        "version": modal_aware_jax.__version__,
        "task": experiment.task.name,
        "method": experiment.name,
        # Of a classifier, its logits.
        "num_bits": experiment.num_bits or pairs.num_labels,
        "image_size": experiment.image_size,
        "num_text_features": reads.features,
        "num_labels": pairs.num_labels,
        "label_names": list(pairs.label_names),
        "step": record["step"],
        "metrics": _metrics(record, workdir),
        "config": experiment.config,
        "vocabulary": list(pairs.vocabulary),
        **pieces,
    }


def _metrics(record, workdir):
    """Validation scores of the step itself, and the scores of the run's report."""
    history = [
        row for row in record.get("history", ()) if row["step"] == record["step"]
    ]
    metrics = {k: v for row in history for k, v in row.items() if "validation" in k}
    report = workdir / "report" / "metrics.json"
    if report.is_file():
        for results in json.loads(report.read_text("utf-8")).values():
            numbers = {k: v for k, v in results.items() if np.isscalar(v)}
            by_n = {k: v for k, v in results.items() if k == "precision_at"}
            metrics["report"] = {**numbers, **by_n}
    return metrics

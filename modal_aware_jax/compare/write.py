"""The report of a comparison: tables, curves and one page."""

import json
import pathlib

from modal_aware_jax.build import settled, task_of
from modal_aware_jax.compare.cells import Cell, Finished, placeless
from modal_aware_jax.compare.origin import provenance
from modal_aware_jax.compare.records import write_records
from modal_aware_jax.compare.summary import ABLATION, in_order, of_method, summarise
from modal_aware_jax.compare.tables import grid_markdown, latex, long_markdown
from modal_aware_jax.report.tables import plain, write_csv
from modal_aware_jax.tasks.task import Comparison, Task


def write_comparison(
    directory: pathlib.Path,
    finished: dict[Cell, Finished],
    config,
    *,
    first=(),
    left_out=(),
) -> str:
    """Writes all that a comparison shows, from the cells that are finished.

    comparison.csv, .json, .md and .tex; ablation.md and .tex where the full method and
    one without a half are there; the task's figures; index.html; cells.npz, the cells
    themselves.

    Args:
      directory: made where it does not exist.
      finished: at least one.
      config: of any of the cells.
      first: methods in the order they are to stand; the very first is ours.
      left_out: messages on cells that are not in the report.

    Returns:
      The Markdown table of all rows.
    """
    if not finished:
        raise ValueError("There is no finished cell to report.")
    directory.mkdir(parents=True, exist_ok=True)
    task = task_of(config)
    comparison = task.comparison
    methods = in_order(finished, first, task.methods)
    rows = summarise(finished, methods, task, data=config.data)
    write_csv(directory / "comparison.csv", rows)
    write_records(directory / "cells.npz", finished, config)
    record = {"rows": rows, "provenance": _made(finished, config, left_out)}
    written = json.dumps(plain(record), indent=1, default=str)
    (directory / "comparison.json").write_text(written + "\n")
    table = long_markdown(rows, task.methods[methods[0]].title, comparison)
    notes = _notes(rows, comparison, left_out)
    title = comparison.headline.title
    caption = f"{title} on {config.data.source}. " + " ".join(notes)
    (directory / "comparison.tex").write_text(
        latex(rows, comparison, caption=caption.strip(), label="tab:comparison")
    )
    _write_ablation(directory, finished, task, config.data)
    results, curves, more = {}, [], []
    for bits in sorted({cell.bits for cell in finished}):
        own = {
            task.methods[method].title: [one.result for one in cells.values()]
            for method in methods
            if (cells := of_method(finished, method, bits))
        }
        curves += comparison.draw(directory, own, bits)
        more += [comparison.more(own)] if comparison.more else []
        at = f", {bits} bits" if comparison.by_bits else ""
        results |= {f"{name}{at}": comparison.mean(r) for name, r in own.items()}
    text = "\n".join([*grids(rows, comparison), table, *filter(None, more), *notes])
    (directory / "comparison.md").write_text(text)
    title = f"Comparison on {config.data.source}"
    comparison.write(directory, results, curves=curves, title=title)
    return table


def _write_ablation(directory, finished, task: Task, data):
    there = {cell.method for cell in finished}
    methods = [method for method in ABLATION if method in there]
    if methods[:1] != ["modal_aware"] or not {"no_kernel", "no_attention"} & there:
        return
    rows = summarise(finished, methods, task, data=data)
    for row in rows:
        if row["method"] == "concat":
            row["title"] = "w/o both (Concat)"
    table = long_markdown(rows, task.methods[methods[0]].title, task.comparison)
    text = "\n".join([*grids(rows, task.comparison), table])
    (directory / "ablation.md").write_text(text)
    caption = f"Ablation on {data.source}, {task.comparison.headline.title}."
    (directory / "ablation.tex").write_text(
        latex(rows, task.comparison, caption=caption, label="tab:ablation")
    )


def grids(rows: list[dict], comparison: Comparison) -> list[str]:
    """Scores by code length as Markdown; each has its line where there are several."""
    means = [
        mean
        for mean in comparison.grids
        if any(row[mean.name] is not None for row in rows)
    ]
    tables = [grid_markdown(rows, mean.name, mean.title) for mean in means]
    if len(means) == 1:
        return tables
    pairs = zip(means, tables, strict=True)
    return [text for mean, table in pairs for text in (f"{mean.about}\n", table)]


def _notes(rows, comparison: Comparison, left_out):
    """What a reader of the table has to know."""
    notes = []
    if any(row[f"{comparison.headline.name}_sd"] is not None for row in rows):
        notes.append("± is the standard deviation over training seeds.")
    if any(row["published"] is not None for row in rows):
        notes.append(comparison.published_note)
    return [*notes, *(f"Left out: {message}" for message in left_out)]


def _made(finished, config, left_out):
    values = placeless(settled(config))
    for key in ("method", "num_bits"):  # these differ from cell to cell
        values["model"].pop(key, None)
    del values["seed"], values["loss"]["name"], values["loss"]["options"]
    cells = {
        cell.folder: {"seconds": one.seconds, **(one.made or {})}
        for cell, one in sorted(finished.items())
    }
    return {
        "report": provenance(),
        "cells": cells,
        "config": values,
        "left_out": list(left_out),
    }

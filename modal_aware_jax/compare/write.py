"""The report of a comparison: tables, curves and one page."""

import csv
import itertools
import json
import pathlib

from modal_aware_jax.build import METHODS, settled
from modal_aware_jax.compare.cells import Cell, Finished
from modal_aware_jax.compare.origin import provenance
from modal_aware_jax.compare.published import NOTE
from modal_aware_jax.compare.records import write_records
from modal_aware_jax.compare.summary import (
    ABLATION,
    in_order,
    mean_result,
    of_method,
    of_part,
    summarise,
)
from modal_aware_jax.compare.tables import grid_markdown, latex, long_markdown
from modal_aware_jax.report.curves import draw_precision_at, draw_precision_recall
from modal_aware_jax.report.health import health_markdown
from modal_aware_jax.report.page import write_page
from modal_aware_jax.report.tables import plain


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
    one without a half are there; precision_recall_BITS.png and precision_at_BITS.png;
    index.html; cells.npz, the cells themselves.

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
    methods = in_order(finished, first)
    data = {"source": config.data.source, "text": config.data.get("text", "bag")}
    rows = summarise(finished, methods, **data)
    _write_csv(directory / "comparison.csv", rows)
    write_records(directory / "cells.npz", finished, config)
    record = {"rows": rows, "provenance": _made(finished, config, left_out)}
    written = json.dumps(plain(record), indent=1, default=str)
    (directory / "comparison.json").write_text(written + "\n")
    table = long_markdown(rows, METHODS[methods[0]].title)
    notes = _notes(rows, left_out)
    (directory / "comparison.md").write_text("\n".join([*grids(rows), table, *notes]))
    caption = f"MAP on {config.data.source}. " + " ".join(notes)
    (directory / "comparison.tex").write_text(
        latex(rows, caption=caption.strip(), label="tab:comparison")
    )
    _write_ablation(directory, finished, data)
    curves = _draw(directory, finished, methods)
    results = {
        f"{METHODS[method].title}, {bits} bits": mean_result(cells)
        for bits in sorted({cell.bits for cell in finished})
        for method in methods
        if (cells := of_method(finished, method, bits))
    }
    (directory / "health.md").write_text(health_markdown(results))
    title = f"Comparison on {config.data.source}"
    write_page(directory / "index.html", results, curves=curves, title=title)
    return table


def _write_ablation(directory, finished, data):
    there = {cell.method for cell in finished}
    methods = [method for method in ABLATION if method in there]
    if methods[:1] != ["modal_aware"] or not {"no_kernel", "no_attention"} & there:
        return
    rows = summarise(finished, methods, **data)
    for row in rows:
        if row["method"] == "concat":
            row["title"] = "w/o both (Concat)"
    table = long_markdown(rows, METHODS[methods[0]].title)
    (directory / "ablation.md").write_text("\n".join([*grids(rows), table]))
    caption = f"Ablation on {data['source']}, MAP."
    (directory / "ablation.tex").write_text(
        latex(rows, caption=caption, label="tab:ablation")
    )


def grids(rows: list[dict]) -> list[str]:
    """MAP by code length as Markdown: of the whole database, and of unseen pairs."""
    if all(row["map_unseen"] is None for row in rows):
        return [grid_markdown(rows)]
    return [
        "MAP of the whole database, training pairs included (the papers' protocol):\n",
        grid_markdown(rows),
        "MAP of the pairs that were not trained on:\n",
        grid_markdown(rows, "map_unseen"),
    ]


def _notes(rows, left_out):
    """What a reader of the table has to know."""
    notes = []
    if any(row["map_sd"] is not None for row in rows):
        notes.append("± is the standard deviation over training seeds.")
    if any(row["published"] is not None for row in rows):
        notes.append(NOTE)
    return [*notes, *(f"Left out: {message}" for message in left_out)]


def _write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _draw(directory, finished, methods):
    """The figures of each code length -> (description, path) pairs for the page.

    Over the whole database, and over unseen pairs where cells were scored so.
    """
    curves = []
    lengths = sorted({cell.bits for cell in finished})
    for bits, part in itertools.product(lengths, ("", "unseen")):
        own = {m: of_method(finished, m, bits) for m in methods}
        if part:
            own = {method: of_part(cells, part) for method, cells in own.items()}
        results = {
            METHODS[method].title: mean_result(cells)
            for method, cells in own.items()
            if cells
        }
        if not results:
            continue
        for name, draw, what in (
            ("precision_recall", draw_precision_recall, "Precision over recall"),
            ("precision_at", draw_precision_at, "Precision among the N nearest"),
        ):
            path = directory / f"{'_'.join(filter(None, (name, part)))}_{bits}.png"
            draw(results, path)
            where = f"{part} pairs, mean" if part else "mean"
            curves.append((f"{what} at {bits} bits, {where} over the seeds", path))
    return curves


def _made(finished, config, left_out):
    values = settled(config)
    for key in ("method", "num_bits"):  # these differ from cell to cell
        del values["model"][key]
    del values["seed"], values["loss"]["name"], values["loss"]["options"]
    if values["data"].get("dir"):  # where it lay on this machine tells nobody anything
        values["data"]["dir"] = pathlib.Path(values["data"]["dir"]).name
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

"""What a classifier's report shows: scores, classes, two figures, the surest posts."""

import html
import pathlib

import numpy as np

from modal_aware_jax.classification import ReliabilityBins
from modal_aware_jax.report.confusion import confusion_markdown, draw_confusion
from modal_aware_jax.report.page import (
    document,
    html_table,
    render_curves,
    render_item,
)
from modal_aware_jax.report.reliability import draw_reliability
from modal_aware_jax.report.tables import aligned, cells, markdown_table, write_metrics

NOTE = (
    "Accuracy is the share of posts whose prediction is right; of several labels all "
    "must be right. Macro-F1 is the mean of the classes' F1. The calibration error is "
    "how far confidences are from the share that is right, the mean over 15 bins."
)


def summary(results: dict) -> list[dict]:
    """One flat row a method: {column: text or number}, the same columns in each.

    Args:
      results: by name, of `tasks.classification.scores`.
    """
    rows = []
    for name, result in results.items():
        row = {"method": name, "accuracy": float(result["accuracy"])}
        if "accuracy_low" in result:
            low, high = result["accuracy_low"], result["accuracy_high"]
            row["95 % interval"] = f"{low:.4f} to {high:.4f}"
        row["macro-F1"] = float(result["macro_f1"])
        if "label_accuracy" in result:
            row["label accuracy"] = float(result["label_accuracy"])
        row["calibration error"] = float(result["calibration_error"])
        rows.append(row | {"posts": int(result["num_items"])})
    return rows


def class_table(result: dict) -> list[list[str]]:
    """Header and a row a class: precision, recall, F1 and how many posts have it."""
    columns = [result[key] for key in ("precision", "recall", "f1")]
    shares = [[f"{x:.4f}" for x in row] for row in np.transpose(columns)]
    counts = [str(int(count)) for count in result["support"]]
    rows = zip(result["class_names"], shares, counts, strict=True)
    head = ["class", "precision", "recall", "F1", "posts"]
    return [head, *([name, *row, count] for name, row, count in rows)]


def format_predictions(results: dict) -> str:
    """An aligned table for the terminal."""
    return aligned(cells(summary(results)))


def bins_of(result: dict) -> ReliabilityBins:
    """The bins of a result, for the diagram."""
    count = np.asarray(result["bin_count"])
    edges = np.linspace(0, 1, len(count) + 1)
    return ReliabilityBins(
        edges, count, result["bin_confidence"], result["bin_accuracy"]
    )


def draw_predictions(directory, results: dict) -> list[tuple[str, pathlib.Path]]:
    """Draws reliability.png, and confusion.png of the first -> (description, path)."""
    directory = pathlib.Path(directory)
    path = directory / "reliability.png"
    draw_reliability({name: bins_of(r) for name, r in results.items()}, path)
    curves = [("Reliability: accuracy over confidence", path)]
    name, first = next(iter(results.items()))
    if "confusion" in first:
        path = directory / "confusion.png"
        draw_confusion(first["confusion"], first["class_names"], path, title=name)
        curves.append((f"Confusion of {name}, a row a true class", path))
    return curves


def write_predictions(
    directory, results: dict, *, title: str, examples=(), curves=None
) -> None:
    """Writes metrics.json, .csv, .md, two figures and index.html.

    Args:
      directory: made where it does not exist.
      results: by name, of `tasks.classification.scores`.
      title: heading of the page.
      examples: (heading, [(image, caption, true names, predicted names, confidence)]).
      curves: figures that are there already, as (description, path).
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    rows = summary(results)
    write_metrics(directory, results, rows)
    parts = [markdown_table(cells(rows)), NOTE + "\n"]
    for name, result in results.items():
        parts += [f"## {name}\n", markdown_table(class_table(result))]
        if "confusion" in result:
            matrix = confusion_markdown(result["confusion"], result["class_names"])
            parts.append(matrix)
    (directory / "metrics.md").write_text("\n".join(parts), encoding="utf-8")
    curves = draw_predictions(directory, results) if curves is None else curves
    page = render_predictions(results, curves=curves, examples=examples, title=title)
    (directory / "index.html").write_text(page, encoding="utf-8")


def render_predictions(results: dict, *, curves, examples, title: str) -> str:
    """The page as HTML; see `write_predictions`."""
    header, *body = cells(summary(results))
    parts = [
        html_table(header, body),
        f'<p class="note">{html.escape(NOTE)}</p>',
        *render_curves(curves),
    ]
    for method, result in results.items():
        header, *body = class_table(result)
        parts.append(f"<h2>Classes: {html.escape(method)}</h2>")
        parts.append(html_table(header, body))
    for heading, items in examples:
        parts.append(f'<h2>{html.escape(heading)}</h2><ol class="results">')
        parts += [f"<li>{_post(*item)}</li>" for item in items]
        parts.append("</ol>")
    return document(title, parts)


def _post(image, caption, truth, said, confidence):
    """A post with what was said of it; the true names stand below, shared ones bold."""
    right = truth == said
    names = html.escape(", ".join(said)) or "no label"
    mark = "✓" if right else "✗"
    head = f'<span class="mark">{mark} {names}</span> ({confidence:.3f})'
    kind = "relevant" if right else "other"
    return render_item(image, caption, truth, head, kind, shared=set(said))

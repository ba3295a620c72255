"""Evaluations by name as JSON, CSV, Markdown and plain text.

`results` is {name: what `retrieval.evaluate.evaluate` returns} everywhere.
"""

import csv
import json
import math
import pathlib

import numpy as np

from modal_aware_jax.report.health import health_markdown, health_warnings
from modal_aware_jax.retrieval.evaluate import PARTS


def summary(results: dict) -> list[dict]:
    """One flat row a method: {column: text or number}, the same columns in each.

    >>> result = {"num_bits": 2, "map_expected": 0.8, "map_index": 0.9,
    ...           "precision_at": {1: 1.0}, "num_queries": 1, "num_database": 3,
    ...           "queries_without_relevant": 0}
    >>> summary({"ours": result})[0]["P@1"]
    1.0
    """
    ns = sorted({n for result in results.values() for n in result["precision_at"]})
    return [
        {
            "method": name,
            "bits": int(result["num_bits"]),
            "MAP": float(result["map_expected"]),
            "MAP (index)": float(result["map_index"]),
            **{f"P@{n}": _at(result["precision_at"], n) for n in ns},
            "queries": int(result["num_queries"]),
            "database": int(result["num_database"]),
            "without relevant": int(result["queries_without_relevant"]),
        }
        for name, result in results.items()
    ]


def with_parts(results: dict) -> dict:
    """Evaluations by name, each followed by those of its parts of the database.

    >>> part = {"map_expected": 0.7}
    >>> list(with_parts({"ours": {"map_expected": 0.8, "unseen": part}}))
    ['ours', 'ours, unseen pairs']
    """
    rows = {}
    for name, result in results.items():
        rows[name] = result
        for part in PARTS:
            if part.name in result:
                rows[f"{name}, {part.title}"] = result[part.name]
    return rows


def _at(values, n):
    return float(values[n]) if n in values else math.nan


def cells(rows: list[dict]) -> list[list[str]]:
    """Header and rows as text: scores with four digits, a dash where there is none."""

    def text(value):
        if isinstance(value, float):
            return "–" if math.isnan(value) else f"{value:.4f}"
        return str(value)

    return [list(rows[0]), *([text(v) for v in row.values()] for row in rows)]


def format_results(results: dict) -> str:
    """An aligned table for the terminal."""
    table = aligned(cells(summary(with_parts(results))))
    return "\n".join([table, *health_warnings(results)])


def aligned(table: list[list[str]]) -> str:
    """A header and rows of text with their columns aligned, for the terminal."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for row in table:
        first, *rest = zip(row, widths, strict=True)
        texts = [first[0].ljust(first[1]), *(text.rjust(w) for text, w in rest)]
        lines.append("  ".join(texts))
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def markdown(results: dict) -> str:
    return markdown_table(cells(summary(with_parts(results))))


def markdown_table(table: list[list[str]]) -> str:
    """A header and rows of text as Markdown."""
    header, *body = table
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    escaped = [[text.replace("|", "\\|") for text in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def plain(value):
    """Arrays to lists, NaN and infinities to None: what strict JSON can hold."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_csv(path, rows: list[dict]) -> None:
    """Writes rows of the same columns, under a line of their names."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_metrics(directory: pathlib.Path, results: dict, rows: list[dict]) -> None:
    """Writes `metrics.json`, all of the results, and `metrics.csv`, the rows."""
    text = json.dumps(plain(results), indent=1, allow_nan=False)
    (directory / "metrics.json").write_text(text + "\n", encoding="utf-8")
    write_csv(directory / "metrics.csv", rows)


def write_tables(directory, results: dict) -> None:
    """Writes `metrics.json` (everything), `metrics.csv` and `metrics.md` (a summary).

    Args:
        directory: exists.
        results: evaluations by name.
    """
    directory = pathlib.Path(directory)
    write_metrics(directory, results, summary(with_parts(results)))
    text = "\n".join(filter(None, (markdown(results), health_markdown(results))))
    (directory / "metrics.md").write_text(text, encoding="utf-8")

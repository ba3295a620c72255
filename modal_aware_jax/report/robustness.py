"""Robustness as a table, two claims and one figure."""

import itertools
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from modal_aware_jax.report.styles import line_style
from modal_aware_jax.report.tables import write_csv

LEVEL_NAMES = ("mild", "medium", "strong")
# What the papers say of their full model: average drop in percent of the clean MAP.
CLAIMS = (("both", 5.0), ("one", 4.0))


def drops(rows: Iterable[dict], score: str = "map") -> list[dict]:
    """The fall in MAP of each method under each condition, mean over its seeds.

    Args:
      rows: dicts of `method`, `seed`, `image` and `text` (names of perturbations, ''
        for none), `level` (1 to 3; 0 for clean), `map` over the whole database and,
        where it was measured, `map_unseen` over what was not trained on.
      score: which of the two falls.

    Returns:
      dicts of `method`, `image`, `text`, `level`, `clean`, `map`, `drop` (difference)
      and `percent` (of the clean MAP), in the order of the rows.

    >>> clean = dict(method="ours", seed=0, image="", text="", level=0, map=0.8)
    >>> noisy = dict(clean, image="noise", level=1, map=0.6)
    >>> [round(row["percent"], 6) for row in drops([clean, noisy])]
    [25.0]
    """
    rows = list(rows)
    clean = {
        (row["method"], row["seed"]): row[score] for row in rows if row["level"] == 0
    }
    grouped = {}
    for row in rows:
        if row["level"]:
            key = row["method"], row["image"], row["text"], row["level"]
            grouped.setdefault(key, []).append(row)
    result = []
    for (method, image, text, level), some in grouped.items():
        before = np.array([clean[method, row["seed"]] for row in some])
        after = np.array([row[score] for row in some])
        result.append(
            {
                "method": method,
                "image": image,
                "text": text,
                "level": level,
                "clean": float(before.mean()),
                "map": float(after.mean()),
                "drop": float((before - after).mean()),
                "percent": float(((before - after) / before).mean() * 100),
            }
        )
    return result


def kind_of(row: dict) -> str:
    """'both' where image and text are perturbed, else 'one'."""
    return "both" if row["image"] and row["text"] else "one"


def name_of(row: dict) -> str:
    """The condition without its level: 'noise', 'drop', 'noise + drop'."""
    return " + ".join(filter(None, (row["image"], row["text"])))


def mean_percent(table: Sequence[dict], **wanted) -> float:
    """The mean of `percent` over the rows with these values; `kind` and `name` too."""
    values = [
        row["percent"]
        for row in table
        if all(
            {"kind": kind_of, "name": name_of}.get(key, lambda r, k=key: r[k])(row)
            == value
            for key, value in wanted.items()
        )
    ]
    return float(np.mean(values)) if values else float("nan")


def claims(table: Sequence[dict], method: str) -> list[dict]:
    """The papers' two claims, at each level and on average over all conditions.

    Returns:
      dicts of `kind`, `level` ('all' or 1 to 3), `percent`, `limit` and `holds`.
    """
    result = []
    levels = sorted({row["level"] for row in table})
    for (kind, limit), level in itertools.product(CLAIMS, ["all", *levels]):
        at = {} if level == "all" else {"level": level}
        percent = mean_percent(table, method=method, kind=kind, **at)
        if not np.isnan(percent):
            row = {"kind": kind, "level": level, "percent": percent, "limit": limit}
            result.append({**row, "holds": percent < limit})
    return result


def markdown(
    table: Sequence[dict], unseen=(), *, method: str, doses: dict, note: str
) -> str:
    """Doses, drops by method, and the claims, as Markdown.

    Args:
      table: of `drops`.
      unseen: of `drops` over unseen pairs; () where they were not measured.
      method: the full model, which the claims are about.
      doses: {perturbation: (unit, (mild, medium, strong))}.
      note: what was perturbed, on how many queries, by which seed.
    """
    lines = [note, "", "| perturbation | unit | mild | medium | strong |"]
    lines += ["|---|---|---:|---:|---:|"]
    for name, (unit, values) in doses.items():
        lines.append(f"| {name} | {unit} | {' | '.join(f'{v:g}' for v in values)} |")
    places = (("whole database", table), ("unseen pairs", unseen))
    for place, some in places:
        if some:
            lines += ["", f"Fall in MAP over the {place}, in percent of the clean MAP,"]
            lines += ["mean over the levels:", "", *_drop_table(some)]
    for place, some in places:
        if some:
            lines += ["", f"The papers' claims, for {method}, over the {place}:", ""]
            lines += _claim_table(some, method)
    return "\n".join(lines) + "\n"


def _drop_table(table):
    names = list(dict.fromkeys(name_of(row) for row in table))
    names.sort(key=lambda name: " + " in name)  # one modality first
    lines = [
        f"| method | clean MAP | {' | '.join(names)} | one, mean | both, mean |",
        f"|---|{'---:|' * (len(names) + 3)}",
    ]
    for name in dict.fromkeys(row["method"] for row in table):
        clean = next(row["clean"] for row in table if row["method"] == name)
        cells = [mean_percent(table, method=name, name=n) for n in names]
        cells += [mean_percent(table, method=name, kind=k) for k in ("one", "both")]
        shown = " | ".join("–" if np.isnan(v) else f"{v:.2f}" for v in cells)
        lines.append(f"| {name} | {clean:.4f} | {shown} |")
    return lines


def _claim_table(table, method):
    lines = [
        "| perturbed | level | claimed | measured | holds |",
        "|---|---|---:|---:|---|",
    ]
    words = {"both": "image and text", "one": "one of them"}
    for row in claims(table, method):
        level = row["level"]
        level = "mean of all" if level == "all" else LEVEL_NAMES[level - 1]
        lines.append(
            f"| {words[row['kind']]} | {level} | < {row['limit']:g} % | "
            f"{row['percent']:.2f} % | {'yes' if row['holds'] else 'no'} |"
        )
    return lines


def draw(table: Sequence[dict], path: pathlib.Path, *, doses: dict) -> None:
    """One panel a perturbation and one for both at once: MAP by level, all methods.

    Args:
      table: of `drops`.
      path: of the PNG.
      doses: as for `markdown`.
    """
    from matplotlib.figure import Figure

    singles = [n for n in doses if any(name_of(row) == n for row in table)]
    panels = singles + ["both"] * any(kind_of(row) == "both" for row in table)
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    methods = list(dict.fromkeys(row["method"] for row in table))
    legend_rows = -(-len(methods) // 4)
    size = (2.9 * columns + 0.4, 2.7 * rows + 0.3 + 0.25 * legend_rows)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for panel, axes in zip(panels, grid.flat, strict=False):
        for number, method in enumerate(methods):
            own = [row for row in table if row["method"] == method]
            some = [
                row
                for row in own
                if (
                    kind_of(row) == "both" if panel == "both" else name_of(row) == panel
                )
            ]
            levels = sorted({row["level"] for row in some})
            means = [
                np.mean([r["map"] for r in some if r["level"] == level])
                for level in levels
            ]
            axes.plot(
                [0, *levels], [own[0]["clean"], *means], **line_style(number, method)
            )
        ticks = ["clean", *LEVEL_NAMES]
        if panel != "both":
            ticks = ["clean", *(f"{dose:g}" for dose in doses[panel][1])]
        axes.set_xticks(range(len(ticks)), ticks)
        title = "image and text, mean" if panel == "both" else panel
        axes.set_title(title, fontsize="medium")
        unit = "" if panel == "both" else doses[panel][0]
        axes.set_xlabel(unit, fontsize="x-small")
        axes.grid(alpha=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel("MAP")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=4, fontsize="small"
    )
    figure.savefig(path, format="png")


def write_robustness(
    directory: pathlib.Path, rows: Iterable[dict], *, method: str, doses: dict, note
) -> str:
    """Writes robustness.csv, .md and .png -> the Markdown."""
    rows = list(rows)
    table, unseen = drops(rows), []
    if all("map_unseen" in row for row in rows):
        unseen = drops(rows, "map_unseen")
    places = (("whole", table), ("unseen", unseen))
    of_place = [{"database": place, **row} for place, some in places for row in some]
    write_csv(directory / "robustness.csv", of_place)
    text = markdown(table, unseen, method=method, doses=doses, note=note)
    (directory / "robustness.md").write_text(text, encoding="utf-8")
    draw(table, directory / "robustness.png", doses=doses)
    return text

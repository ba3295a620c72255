"""The rows of a comparison as Markdown and as LaTeX (booktabs)."""

from modal_aware_jax.tasks.task import Comparison, Lead, Mean


def score(row: dict, column: str) -> str:
    """A column's mean, with its standard deviation over seeds where there are several.

    >>> score({"map": 0.65, "map_sd": 0.01}, "map"), score({"map": 0.65}, "map")
    ('0.6500 ± 0.0100', '0.6500')
    >>> score({"map_unseen": None}, "map_unseen")
    ''
    """
    if row[column] is None:
        return ""
    deviation = row.get(f"{column}_sd")
    deviation = "" if deviation is None else f" ± {deviation:.4f}"
    return f"{row[column]:.4f}{deviation}"


def long_markdown(rows: list[dict], first: str, comparison: Comparison) -> str:
    """A line a method and code length, with everything.

    A score has a column where a row has it, and so has the lead that follows it.
    """
    columns = shown_columns(rows, comparison)
    head = ["method", *(["bits"] if comparison.by_bits else [])]
    for column in columns:
        if isinstance(column, Lead):
            head.append(f"{column.title}{first} minus it (95 % interval)")
        else:
            head += [column.title, *(["seeds"] if column is columns[0] else [])]
    head += ["published"] if comparison.published else []
    head += ["s a cell"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [row["title"], *([str(row["bits"])] if comparison.by_bits else [])]
        for column in columns:
            if isinstance(column, Lead):
                cells.append(lead_text(row, column.prefix))
            else:
                cells.append(score(row, column.name))
                cells += [str(row["seeds"])] if column is columns[0] else []
        if comparison.published:
            cells += ["" if row["published"] is None else f"{row['published']:.4f}"]
        cells += ["" if row["seconds"] is None else f"{row['seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def shown_columns(rows: list[dict], comparison: Comparison) -> list[Mean | Lead]:
    """The columns of tables that are read; a lead goes with the score before it."""
    shown, there = [], False
    for column in comparison.columns:
        if isinstance(column, Mean) and column.title:
            there = any(row[column.name] is not None for row in rows)
        if there and (isinstance(column, Lead) or column.title):
            shown.append(column)
    return shown


def lead_text(row: dict, prefix: str = "") -> str:
    """A lead with its interval, '' where there is none.

    >>> lead_text({"lead": 0.01, "lead_low": 0.0, "lead_high": 0.02})
    '+0.0100 (+0.0000 to +0.0200)'
    """
    if row[f"{prefix}lead"] is None:
        return ""
    middle, low, high = (row[f"{prefix}lead{end}"] for end in ("", "_low", "_high"))
    return f"{middle:+.4f} ({low:+.4f} to {high:+.4f})"


def grid(rows: list[dict], value) -> tuple[list[int], list[list]]:
    """A line a method, a column a code length: (lengths, [title, value, ...] a line).

    Args:
      value: of a row; the place of a row that is not there holds None.
    """
    lengths = sorted({row["bits"] for row in rows})
    titles = list(dict.fromkeys(row["title"] for row in rows))
    by_place = {(row["title"], row["bits"]): value(row) for row in rows}
    lines = [
        [title, *(by_place.get((title, bits)) for bits in lengths)] for title in titles
    ]
    return lengths, lines


def grid_markdown(rows: list[dict], column: str, title: str = "") -> str:
    """A column's mean of the methods by code length; the best of a length is bold.

    Args:
      rows: of `summarise`.
      column: the name of a `Mean`, such as 'map'.
      title: of the one column where there are no codes.
    """
    rows = [row for row in rows if row[column] is not None]
    best = best_of(rows, column)

    def shown(row):
        text = score(row, column)
        return f"**{text}**" if row in best else text

    lengths, lines = grid(rows, shown)
    head = ["method", *(f"{bits} bits" if bits else title for bits in lengths)]
    table = [head, ["---"] * len(head), *lines]
    return "".join(
        f"| {' | '.join(cell or '–' for cell in line)} |\n" for line in table
    )


def best_of(rows: list[dict], column: str) -> list[dict]:
    """The rows with a column's highest mean of their code length, to four digits."""
    highest = {}
    for row in rows:
        top = max(highest.get(row["bits"], 0.0), round(row[column], 4))
        highest[row["bits"]] = top
    return [row for row in rows if round(row[column], 4) == highest[row["bits"]]]


def latex(rows: list[dict], comparison: Comparison, *, caption: str, label: str) -> str:
    """A booktabs table: the task's scores by code length, and published numbers.

    It needs `\\usepackage{booktabs}`. The best measured score of a column is bold;
    groups of columns without a number are left out.
    """

    def measured(column):
        best = best_of([row for row in rows if row[column] is not None], column)

        def shown(row):
            if row[column] is None:
                return None
            digits = f"{row[column]:.4f}"
            text = rf"\textbf{{{digits}}}" if row in best else digits
            if row[f"{column}_sd"] is not None:
                text += rf" {{\scriptsize$\pm$ {row[f'{column}_sd']:.4f}}}"
            return text

        return shown

    def of_paper(row):
        return None if row["published"] is None else f"{row['published']:.4f}"

    lengths, lines = grid(rows, lambda row: None)
    body = [[escape(line[0])] for line in lines]
    width, groups, rules, heads = len(lengths), [], [], []
    for name, value in (
        *((mean.head, measured(mean.name)) for mean in comparison.grids),
        ("published", of_paper),
    ):
        columns = [line[1:] for line in grid(rows, value)[1]]
        if not any(map(any, columns)):
            continue
        start = 2 + len(heads)
        groups.append(rf"\multicolumn{{{width}}}{{c}}{{{name}}}")
        rules.append((start, start + width - 1))
        heads += [f"{bits} bits" if bits else "" for bits in lengths]
        body = [line + own for line, own in zip(body, columns, strict=True)]
    rows_of_text = [
        " & ".join(["", *groups]),
        " & ".join(["method", *heads]),
        *(" & ".join(cell or "--" for cell in line) for line in body),
    ]
    cmidrules = " ".join(rf"\cmidrule(lr){{{a}-{b}}}" for a, b in rules)
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape(caption)}}}",
            rf"  \label{{{label}}}",
            rf"  \begin{{tabular}}{{l{'r' * len(heads)}}}",
            r"    \toprule",
            rf"    {rows_of_text[0]} \\",
            f"    {cmidrules}",
            rf"    {rows_of_text[1]} \\",
            r"    \midrule",
            *(rf"    {line} \\" for line in rows_of_text[2:]),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    r"""A text as LaTeX prints it.

    >>> escape("50 % & a_b")
    '50 \\% \\& a\\_b'
    """
    special = {character: f"\\{character}" for character in "&%$#_{}"}
    special |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "±": r"$\pm$"}
    special |= {"^": r"\textasciicircum{}"}
    return "".join(special.get(character, character) for character in text)

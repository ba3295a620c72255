"""The rows of a comparison as Markdown and as LaTeX (booktabs)."""


def score(row: dict) -> str:
    """MAP, with its standard deviation over seeds where there are several.

    >>> score({"map": 0.65, "map_sd": 0.01}), score({"map": 0.65, "map_sd": None})
    ('0.6500 ± 0.0100', '0.6500')
    """
    deviation = "" if row["map_sd"] is None else f" ± {row['map_sd']:.4f}"
    return f"{row['map']:.4f}{deviation}"


def long_markdown(rows: list[dict], first: str) -> str:
    """A line a method and code length, with everything."""
    lines = [
        f"| method | bits | MAP | seeds | {first} minus it (95 % interval) "
        "| published | s a cell |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lead = ""
        if row["lead"] is not None:
            lead = "{lead:+.4f} ({lead_low:+.4f} to {lead_high:+.4f})".format(**row)
        published = "" if row["published"] is None else f"{row['published']:.4f}"
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        cells = (
            *(row["title"], str(row["bits"]), score(row), str(row["seeds"])),
            *(lead, published, seconds),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


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


def grid_markdown(rows: list[dict]) -> str:
    """MAP of the methods by code length; the best of a column is bold."""
    best = best_of(rows)
    lengths, lines = grid(
        rows, lambda row: f"**{score(row)}**" if row in best else score(row)
    )
    head = ["method", *(f"{bits} bits" for bits in lengths)]
    table = [head, ["---"] * len(head), *lines]
    return "".join(
        f"| {' | '.join(cell or '–' for cell in line)} |\n" for line in table
    )


def best_of(rows: list[dict]) -> list[dict]:
    """The rows with the highest MAP of their code length, to four digits."""
    highest = {}
    for row in rows:
        top = max(highest.get(row["bits"], 0.0), round(row["map"], 4))
        highest[row["bits"]] = top
    return [row for row in rows if round(row["map"], 4) == highest[row["bits"]]]


def latex(rows: list[dict], *, caption: str, label: str) -> str:
    """A booktabs table: MAP by code length, with published MAP beside it where known.

    It needs `\\usepackage{booktabs}`. The best measured MAP of a column is bold.
    """
    best = best_of(rows)

    def measured(row):
        digits = f"{row['map']:.4f}"
        text = rf"\textbf{{{digits}}}" if row in best else digits
        if row["map_sd"] is not None:
            text += rf" {{\scriptsize$\pm$ {row['map_sd']:.4f}}}"
        return text

    def of_paper(row):
        return None if row["published"] is None else f"{row['published']:.4f}"

    lengths, lines = grid(rows, measured)
    _, papers = grid(rows, of_paper)
    width, has_papers = len(lengths), any(any(line[1:]) for line in papers)
    groups, rules = [rf"\multicolumn{{{width}}}{{c}}{{measured}}"], [(2, width + 1)]
    heads = [f"{bits} bits" for bits in lengths]
    body = [[escape(line[0]), *line[1:]] for line in lines]
    if has_papers:
        groups.append(rf"\multicolumn{{{width}}}{{c}}{{published}}")
        rules.append((width + 2, 2 * width + 1))
        heads += heads
        body = [line + paper[1:] for line, paper in zip(body, papers, strict=True)]
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

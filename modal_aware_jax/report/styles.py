"""Lines that can be told apart: by colour-blind readers, and in print."""

# Okabe and Ito's colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
DASHES = ("-", "--", ":")


def line_style(number: int, name: str) -> dict:
    """matplotlib's options for the line of this number; 21 differ.

    >>> line_style(0, "ours")["color"], line_style(7, "theirs")["linestyle"]
    ('#0072B2', '--')
    """
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
        "markersize": 3.5,
        "markerfacecolor": "white" if number // len(COLOURS) % 2 else None,
        "label": legend_text(name),
    }


def legend_text(name: str) -> str:
    """A leading underscore would hide a name from the legend, "$" start a formula."""
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name

"""Lines that can be told apart: by colour-blind readers, and in print."""

from modal_aware_jax.data.problems import shorten

# Okabe and Ito's colours without their yellow, which is pale on white, and Tol's wine.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#E69F00", "#56B4E9", "#000000", "#882255"),
)
MARKERS = "osD^vPX<>phd*"  # of one colour each has its own: 8 and 13 share no divisor
DASHES = ("-", "--", ":", "-.")
LONGEST = 40  # letters of a label's name in a picture
MANY = 7  # lines; a legend of more covers them


def colour_and_marker(number: int) -> tuple[str, str]:
    """matplotlib's colour and marker of this number; 104 differ.

    >>> colour_and_marker(0), colour_and_marker(8)
    (('#0072B2', 'o'), ('#0072B2', '>'))
    """
    return COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]


def line_style(number: int, name: str) -> dict:
    """matplotlib's options for the line of this number.

    Of 32 no two have one colour and one dash, of 104 none one colour and one marker.

    >>> line_style(0, "ours")["color"], line_style(8, "theirs")["linestyle"]
    ('#0072B2', '--')
    """
    colour, marker = colour_and_marker(number)
    times = number // len(COLOURS)  # that the colour was taken before
    return {
        "color": colour,
        "marker": marker,
        "linestyle": DASHES[times % len(DASHES)],
        "markersize": 3.5,
        "markerfacecolor": "white" if times % 2 else None,
        "label": legend_text(name),
    }


def legend_beside(figure, count: int) -> None:
    """A legend of `count` lines at a figure's right; the figure grows to hold it."""
    figure.set_figheight(max(figure.get_figheight(), 0.3 + 0.19 * count))
    figure.legend(loc="outside right upper", fontsize="small", handlelength=3)


def label_text(name: str) -> str:
    """A label's name, of any length, as it is written in a picture."""
    return legend_text(shorten(name, LONGEST))


def legend_text(name: str) -> str:
    """A leading underscore would hide a name from the legend, "$" start a formula."""
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name

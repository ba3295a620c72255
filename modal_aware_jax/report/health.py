"""Code health of evaluations by name: a table, and a warning where codes collapsed."""

from modal_aware_jax.retrieval.code_health import health_warning

# Column, and what it shows of an evaluation with `health`.
COLUMNS = {
    "items": lambda r: _count(r, "items"),
    "distinct codes": lambda r: _count(r, "distinct"),
    "commonest code": lambda r: f"{100 * r['health']['commonest_share']:.2f} %",
    "constant bits": lambda r: _count(r, "constant_bits"),
    "entropy a bit": lambda r: f"{r['health']['bit_entropy']:.3f}",
    "mean |correlation|": lambda r: f"{r['health']['mean_correlation']:.3f}",
    "effective rank": lambda r: f"{r['health']['effective_rank']:.1f}",
    "MAP of codes": lambda r: f"{r['map_expected']:.4f}",
    "MAP unbinarised": lambda r: _score(r),
    "unseen: codes": lambda r: _score(r.get("unseen", {}), "map_expected"),
    "unseen: unbinarised": lambda r: _score(r.get("unseen", {})),
}
NOTE = (
    "How the codes of the database use their bits. The effective rank counts the "
    "directions that the bits vary in. The unbinarised vectors are what is trained, "
    "tanh of the relaxed bits, ranked by cosine: the difference is what the sign costs."
)


def health_table(results: dict) -> list[list[str]]:
    """Header and a row for each evaluation that has `health`; [] where none has.

    Args:
      results: evaluations by name.
    """
    rows = [
        [name, *(show(result) for show in COLUMNS.values())]
        for name, result in results.items()
        if "health" in result
    ]
    return [["codes", *COLUMNS], *rows] if rows else []


def health_markdown(results: dict) -> str:
    """The table as Markdown with its warnings; '' where there is nothing to show."""
    table = health_table(results)
    if not table:
        return ""
    header, *body = ([c.replace("|", "\\|") for c in line] for line in table)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    warnings = "".join(f"\n{line}\n" for line in health_warnings(results))
    return f"{text}\n{NOTE}\n{warnings}"


def health_warnings(results: dict) -> list[str]:
    """A line for each evaluation whose codes collapsed."""
    found = []
    for name, result in results.items():
        if "health" in result:
            warning = health_warning(result["health"], result["num_bits"])
            found += [f"{name}: {warning}"] if warning else []
    return found


def _count(result, name):
    return f"{round(result['health'][name], 1):,}"  # a mean over seeds has a fraction


def _score(result, name="map_unbinarised"):
    return f"{result[name]:.4f}" if name in result else "–"

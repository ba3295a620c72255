"""Are confidences right as often as they say? A reliability diagram as a PNG."""

from modal_aware_jax.classification.calibration import (
    ReliabilityBins,
    calibration_error,
)
from modal_aware_jax.report.styles import MANY, legend_beside, legend_text, line_style


def draw_reliability(results: dict[str, ReliabilityBins], path) -> None:
    """Accuracy over confidence, and below it how many predictions are how sure.

    On the dashed diagonal confidences are right; below it predictions are surer than
    right. Dots grow with the number of predictions of their bin; empty bins have none.

    Args:
      results: bins by name, of `classification.reliability_bins`.
      path: of the PNG.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    if not results:
        raise ValueError("draw_reliability expects at least one result, got none.")
    wide = 9.6 if len(results) > MANY else 5.6
    figure = Figure(figsize=(wide, 5.6), dpi=120, layout="constrained")
    curve, sure = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot([0, 1], [0, 1], "--", color="0.5", linewidth=1)
    for number, (name, bins) in enumerate(results.items()):
        some = bins.count > 0
        share = bins.count / bins.count.sum()
        error = f"{calibration_error(bins):.3f}".removeprefix("0")
        style = line_style(number, name)
        style["label"] = f"{legend_text(name)} (calibration error {error})"
        style.update(marker="", linewidth=1)
        curve.plot(bins.confidence[some], bins.accuracy[some], **style)
        curve.scatter(
            bins.confidence[some],
            bins.accuracy[some],
            s=8 + 160 * share[some],
            color=style["color"],
            alpha=0.7,
            linewidths=0,
        )
        sure.stairs(
            share, bins.edges, color=style["color"], linestyle=style["linestyle"]
        )
    curve.set(ylabel="accuracy", title="Reliability", ylim=(-0.02, 1.02))
    if len(results) > MANY:  # beside the curves, not over them
        legend_beside(figure, len(results))
    else:
        curve.legend(fontsize="small", loc="upper left", framealpha=0.8)
    sure.set(xlabel="confidence", ylabel="predictions", xlim=(0, 1), ylim=(0, None))
    sure.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in (curve, sure):
        axes.grid(alpha=0.3)
    figure.savefig(path, format="png")

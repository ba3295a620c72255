"""What a run shows of itself: tables, curves and a page of examples."""

from modal_aware_jax.report.contact_sheet import result_picture
from modal_aware_jax.report.tables import format_results
from modal_aware_jax.report.write import write_report

__all__ = [
    "format_results",
    "result_picture",
    "write_report",
]

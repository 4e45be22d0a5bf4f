"""Looking inside: what a model holds and costs, and what its loss is like."""

from purenets.inspect.cost import flops, flops_by_scope
from purenets.inspect.landscape import filter_normalized_direction, landscape, roughness
from purenets.inspect.summary import Summary, SummaryRow, summary

__all__ = [
    "Summary",
    "SummaryRow",
    "filter_normalized_direction",
    "flops",
    "flops_by_scope",
    "landscape",
    "roughness",
    "summary",
]

"""Exact constructions and bounds: networks that are written down, and what a size can do."""

from purenets.theory.bits import binary_fraction, bit_extraction
from purenets.theory.capacity import (
    Bound,
    count_parameters,
    count_pieces,
    hidden_width,
    partitions,
    relu_bound,
)
from purenets.theory.constructions import (
    bump,
    given_dense,
    piecewise_linear,
    staircase,
    sum_of_bumps,
    sum_of_steps,
)
from purenets.theory.memorise import memorising_network
from purenets.theory.receptive_field import (
    Cost,
    Field,
    Window,
    conv_cost,
    dense_cost,
    receptive_field,
    support,
)
from purenets.theory.theta import apply_theta, from_theta, to_theta

__all__ = [
    "Bound",
    "Cost",
    "Field",
    "Window",
    "apply_theta",
    "binary_fraction",
    "bit_extraction",
    "bump",
    "conv_cost",
    "count_parameters",
    "count_pieces",
    "dense_cost",
    "from_theta",
    "given_dense",
    "hidden_width",
    "memorising_network",
    "partitions",
    "piecewise_linear",
    "receptive_field",
    "relu_bound",
    "staircase",
    "sum_of_bumps",
    "sum_of_steps",
    "support",
    "to_theta",
]

"""The historical machines, as pure functions: from the McCulloch-Pitts neuron to the deep belief network."""

from purenets.classic import (
    belief,
    perceptron,
    q_learning,
    rbm,
    regression,
    spiking,
    svm,
    threshold,
    turing,
    unsupervised,
)

__all__ = [
    "belief",
    "perceptron",
    "q_learning",
    "rbm",
    "regression",
    "spiking",
    "svm",
    "threshold",
    "turing",
    "unsupervised",
]

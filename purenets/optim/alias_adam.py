"""Adam and the optimizers built like it; their states are those of optax's namesakes.

Common arguments: ``learning_rate`` is a number, which may be traced, or a schedule over the number of updates
made; ``b1`` and ``b2`` are the decays of the averages of the gradient and of its square; ``eps`` is added to
the root of the latter and ``eps_root`` under it; ``mu_dtype`` is the dtype of the first average;
``weight_decay`` is decoupled and multiplied by the learning rate; ``mask`` says which leaves it takes, see
:func:`purenets.optim.add_decayed_weights`; ``nesterov`` looks one gradient ahead.
"""

from __future__ import annotations

import warnings

from jax.typing import DTypeLike

from purenets.optim.adam_rules import scale_by_adam, scale_by_adamax, scale_by_amsgrad, scale_by_radam
from purenets.optim.adam_variants import scale_by_adan, scale_by_belief, scale_by_yogi
from purenets.optim.base import GradientTransformationExtraArgs, Mask, Scalar, ScalarOrSchedule, check_rate
from purenets.optim.combine import chain, scale_by_learning_rate
from purenets.optim.decay import add_decayed_weights
from purenets.optim.momentum import scale_by_optimistic_gradient

__all__ = [
    "adabelief",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adan",
    "amsgrad",
    "nadam",
    "nadamw",
    "optimistic_adam",
    "optimistic_adam_v2",
    "radam",
    "yogi",
]


def adam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """Adam (Kingma and Ba 2015, algorithm 1), see :func:`scale_by_adam`.

    >>> import jax.numpy as jnp
    >>> optimizer = adam(0.1)
    >>> updates, _ = optimizer.update(jnp.array([4.0, -2.0]), optimizer.init(jnp.zeros(2)))
    >>> print(updates.round(3))
    [-0.1  0.1]
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )


def nadam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
) -> GradientTransformationExtraArgs:
    """Adam with Nesterov's momentum (Dozat 2016, algorithm 2, with a constant ``b1``)."""
    return adam(learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)


def adamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """Adam with decoupled decay, ``-rate (u + weight_decay p)`` (Loshchilov and Hutter 2019, algorithm 2).

    The decay is multiplied by the whole learning rate, as in PyTorch, not only by its schedule.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    *,
    nesterov: bool = True,
) -> GradientTransformationExtraArgs:
    """:func:`nadam` with decoupled weight decay."""
    return adamw(learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask, nesterov=nesterov)


def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> GradientTransformationExtraArgs:
    """Adam over the largest second average so far (Reddi et al. 2018), see :func:`scale_by_amsgrad`."""
    return chain(
        scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu),
        scale_by_learning_rate(learning_rate),
    )


def adamax(
    learning_rate: ScalarOrSchedule, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8
) -> GradientTransformationExtraArgs:
    """Adam over a decayed maximum (Kingma and Ba 2015, algorithm 2), see :func:`scale_by_adamax`."""
    return chain(scale_by_adamax(b1, b2, eps), scale_by_learning_rate(learning_rate))


def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
) -> GradientTransformationExtraArgs:
    """:func:`adamax` with decoupled weight decay."""
    return chain(
        scale_by_adamax(b1, b2, eps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def radam(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """Adam with a rectified adaptive rate (Liu et al. 2020, algorithm 2), see :func:`scale_by_radam`."""
    return chain(
        scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )


def adabelief(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    *,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """Adam over the gradient's surprise (Zhuang et al. 2020, algorithm 2), see :func:`scale_by_belief`."""
    return chain(
        scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov), scale_by_learning_rate(learning_rate)
    )


def yogi(
    learning_rate: ScalarOrSchedule, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-3
) -> GradientTransformationExtraArgs:
    """Adam with an additive second average (Zaheer et al. 2018, algorithm 2), see :func:`scale_by_yogi`."""
    return chain(scale_by_yogi(b1, b2, eps), scale_by_learning_rate(learning_rate))


def adan(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformationExtraArgs:
    """Adam with Nesterov by differences (Xie et al. 2022, algorithm 1), see :func:`scale_by_adan`."""
    return chain(
        scale_by_adan(b1, b2, b3, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def optimistic_adam(
    learning_rate: Scalar,
    optimism: Scalar | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
) -> GradientTransformationExtraArgs:
    """Adam's direction, optimistic (Daskalakis et al. 2018, algorithm 1); takes no schedule.

    Deprecated, as in optax, for :func:`optimistic_adam_v2`, which takes one.

    Args:
        learning_rate: the rate, a number.
        optimism: the factor of the direction's change; the rate by default.
        b1: decay of the average of the gradient.
        b2: decay of the average of its square.
        eps: added to the root.
        eps_root: added under the root.
        mu_dtype: the dtype of the first average; that of the parameters by default.
        nesterov: whether to look one gradient ahead.

    Raises:
        ValueError: the learning rate is a schedule.
    """
    if callable(learning_rate):
        raise ValueError(
            "optimistic_adam takes a number as learning_rate; optimistic_adam_v2 takes schedules"
        )
    check_rate(learning_rate)
    message = "optimistic_adam is deprecated, use `optimistic_adam_v2` instead"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(learning_rate, learning_rate if optimism is None else optimism),
        scale_by_learning_rate(1.0),
    )


def optimistic_adam_v2(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    nesterov: bool = True,
) -> GradientTransformationExtraArgs:
    """Adam's direction, optimistic: ``(alpha + beta) d - beta d_before`` (Daskalakis et al. 2018, alg. 1)."""
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(alpha, beta),
        scale_by_learning_rate(learning_rate),
    )

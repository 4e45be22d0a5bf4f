"""The states of the transforms: optax's own named tuples, so that a state moves between the libraries.

``count`` is the number of updates made; ``mu`` and ``nu`` are averages of the gradient and of its square.
"""

from optax import (  # type: ignore[import-untyped]
    AddNoiseState,
    ApplyEvery,
    EmaState,
    EmptyState,
    FactoredState,
    ScaleByAdaDeltaState,
    ScaleByAdamState,
    ScaleByAdanState,
    ScaleByAmsgradState,
    ScaleByBacktrackingLinesearchState,
    ScaleByBeliefState,
    ScaleByLBFGSState,
    ScaleByLionState,
    ScaleByNovogradState,
    ScaleByRmsState,
    ScaleByRpropState,
    ScaleByRssState,
    ScaleByRStdDevState,
    ScaleByScheduleState,
    ScaleBySM3State,
    ScaleByZoomLinesearchState,
    TraceState,
    ZeroNansState,
    ZoomLinesearchInfo,
)

# optax exports these five from no public module.
from optax._src.transform import (  # type: ignore[import-untyped]
    ScaleByDistanceOverGradientsState,
    ScaleByOptimisticGradientState,
    ScaleByRmsWithCountState,
    ScaleByRStdDevWithCountState,
)
from optax.contrib import DifferentiallyPrivateAggregateState  # type: ignore[import-untyped]
from optax.transforms._adding import WeightDecaySchedule  # type: ignore[import-untyped]

__all__ = [
    "AddNoiseState",
    "ApplyEvery",
    "DifferentiallyPrivateAggregateState",
    "EmaState",
    "EmptyState",
    "FactoredState",
    "ScaleByAdaDeltaState",
    "ScaleByAdamState",
    "ScaleByAdanState",
    "ScaleByAmsgradState",
    "ScaleByBacktrackingLinesearchState",
    "ScaleByBeliefState",
    "ScaleByDistanceOverGradientsState",
    "ScaleByLBFGSState",
    "ScaleByLionState",
    "ScaleByNovogradState",
    "ScaleByOptimisticGradientState",
    "ScaleByRStdDevState",
    "ScaleByRStdDevWithCountState",
    "ScaleByRmsState",
    "ScaleByRmsWithCountState",
    "ScaleByRpropState",
    "ScaleByRssState",
    "ScaleBySM3State",
    "ScaleByScheduleState",
    "ScaleByZoomLinesearchState",
    "TraceState",
    "WeightDecaySchedule",
    "ZeroNansState",
    "ZoomLinesearchInfo",
]

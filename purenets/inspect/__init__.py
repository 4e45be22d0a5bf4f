"""Looking inside: what a model, its gradients and its loss are like."""

from purenets.inspect.landscape import filter_normalized_direction, landscape, roughness

__all__ = ["filter_normalized_direction", "landscape", "roughness"]

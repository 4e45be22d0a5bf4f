"""What the modules of a torch model give out, for :func:`~purenets.interop.port_check`."""

from __future__ import annotations

from typing import Any

import numpy as np

from purenets.interop.foreign import library
from purenets.interop.torch import numpy_of

__all__ = ["torch_outputs"]


def torch_outputs(module: Any, *inputs: Any, **side: Any) -> dict[str, np.ndarray]:
    """The output of every module of a torch model in evaluation, by its name; the model itself is ``""``.

    Of a tuple the first is taken, which of a recurrent layer are its outputs. Of a module that is called several times
    it is the last output; one that is not called, or gives no tensor, is left out.

    Args:
        module: a ``torch.nn.Module``; its modes and gradients are left as they are.
        inputs: tensors, or arrays, with axes as torch has them.
        side: arguments by name.

    Raises:
        ImportError: torch is not installed.
    """
    torch = library("torch", "torch")
    found: dict[str, np.ndarray] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            output = output[0] if isinstance(output, (tuple, list)) and output else output
            if isinstance(output, torch.Tensor):
                found[name] = np.array(numpy_of(output))

        return hook

    modes = {inner: inner.training for inner in module.modules()}
    hooks = [inner.register_forward_hook(keep(name)) for name, inner in module.named_modules()]
    try:
        module.eval()
        # With gradients, since without them torch runs some layers in one piece, past the hooks of those inside.
        with torch.enable_grad():
            module(
                *(x if isinstance(x, torch.Tensor) else torch.from_numpy(np.array(x)) for x in inputs), **side
            )
    finally:
        for hook in hooks:
            hook.remove()
        for inner, training in modes.items():
            inner.training = training
    return found

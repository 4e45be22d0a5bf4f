"""What the body of a composition gets as ``m``.

There is exactly one place that hands parts their params and state, derives their keys, threads their state
and says where an error happened: :class:`Wiring`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from purenets.errors import note_place
from purenets.layer import Key, Layer, Params, State, fold_name
from purenets.signature import MODES

__all__ = ["Wiring"]


class Wiring:
    """What the body of a :func:`compose` gets as ``m``: its parts, bound for the length of one call.

    ``m.name(...)`` runs a part with its own params, state and key; ``m["name"]`` is the same for names made
    in a loop. A part called twice shares its params, its state goes on from the first call to the second, and
    each call has its own key. ``m.name.params`` are the part's params: using a leaf twice ties it.
    ``m.train`` and ``m.stream`` are the modes of the call.
    """

    def __init__(
        self,
        parts: Mapping[str, Layer],
        params: Params,
        state: State,
        key: Key | None,
        train: bool,
        stream: bool,
    ) -> None:
        self.train = train
        self.stream = stream
        self._parts = parts
        self._params = params
        self._state = dict(state)
        self._key = key
        self._calls: dict[str, int] = {}
        self._trace = _current_trace()
        self._open = True

    def __getattr__(self, name: str) -> _Bound:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> _Bound:
        if name not in self._parts:
            raise AttributeError(f"no part is called {name!r}; there are: {', '.join(self._parts) or 'none'}")
        return _Bound(self, name)

    def _check_open(self, name: str) -> None:
        if not self._open:
            raise RuntimeError(f"m.{name} was used after the body returned: m lives only during the call")

    def _run(self, name: str, inputs: tuple[Any, ...], side: dict[str, Any]) -> Any:
        self._check_open(name)
        if given := [mode for mode in MODES if mode in side]:
            raise TypeError(f"m.{name} gets {given[0]!r} from the call of the model: leave it out")
        part = self._parts[name]
        state = self._state.get(name, {})
        self._refuse_foreign_trace(name, state)
        count = self._calls[name] = self._calls.get(name, -1) + 1
        key = None if self._key is None else jax.random.fold_in(fold_name(self._key, name), count)
        try:
            # What profilers and the costs by layer know an operation by.
            with jax.named_scope(name):
                output, new_state = part.apply(
                    self._params.get(name, {}),
                    state,
                    *inputs,
                    key=key,
                    train=self.train,
                    stream=self.stream,
                    **side,
                )
        except Exception as error:
            note_place(error, name, part.label, inputs)
            raise
        if new_state:
            self._refuse_foreign_trace(name, new_state)
            self._state[name] = new_state
        return output

    def _refuse_foreign_trace(self, name: str, state: State) -> None:
        """State written inside somebody's own vmap, scan or grad could not leave it again."""
        if state and _current_trace() != self._trace:
            raise ValueError(
                f"part {name!r} has state and is called inside a jax transform within the body: "
                "transform the layer (ensemble, repeat, remat), not the call"
            )


class _Bound:
    """One part of a :class:`Wiring`, ready to be called."""

    def __init__(self, wiring: Wiring, name: str) -> None:
        self._wiring = wiring
        self._name = name

    @property
    def params(self) -> Params:
        """The params of the part, for tying."""
        self._wiring._check_open(self._name)
        return self._wiring._params.get(self._name, {})

    def __call__(self, *inputs: Any, **side: Any) -> Any:
        """Run the part."""
        return self._wiring._run(self._name, inputs, side)


def _current_trace() -> Any:
    # Importing it brings Pallas with it, which an import of purenets need not wait for.
    from jax.extend.core import get_opaque_trace_state

    return get_opaque_trace_state(convention="flax")

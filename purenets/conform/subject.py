"""What is checked: an optimizer factory, with its signature read.

A *factory* is anything that makes an optimizer: a function of hyperparameters, an ``(init, update)`` pair that
is already made, or the text ``package.module:name``. The result is any object with ``init`` and ``update``, or
a tuple of the two; the kit asks for nothing else.

``init(params) -> state`` and ``update(grads, state, params, **extra) -> (updates, state)``.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from purenets.conform.report import one_line

__all__ = ["Subject", "Transform", "guess", "is_rate", "load", "name_of"]

SYNONYMS = (
    ("learning_rate", "lr", "step_size", "stepsize", "rate"),
    ("b1", "beta1", "beta_1"),
    ("b2", "beta2", "beta_2"),
    ("eps", "epsilon"),
    ("weight_decay", "wd"),
)
"""Names of one hyperparameter in different hands."""

PRODUCTS = re.compile(r"\b(dot_general|svd|eigh|geqrf|cholesky|triangular_solve)\[")
"""Primitives that mix the entries of a matrix, as a program is printed."""

DRAWS = re.compile(r"\b(random_bits|threefry2x32|rng_bit_generator)\b")
"""Primitives that make random numbers."""

RATES = ("learning_rate", "lr", "step_size", "stepsize", "max_learning_rate", "eta", "alpha")


class Transform(NamedTuple):
    """An optimizer as the kit uses it."""

    init: Callable[[Any], Any]
    update: Callable[..., Any]
    claims_extra: bool = False
    """Whether its type promises to take and ignore unknown keyword arguments."""
    numpy: bool = False
    """Whether it computes in NumPy, outside JAX."""


def load(text: str) -> Any:
    """What ``package.module:name`` names, for example ``optax:adam`` or ``optax.contrib:muon``.

    Raises:
        ValueError: the text has no colon, or nothing of that name is there.
    """
    module, colon, name = text.partition(":")
    if not colon or not module or not name:
        raise ValueError(f"write package.module:name, for example optax:adam, got {text!r}")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{text!r} names nothing that can be imported: {error}") from error
    return found


def name_of(factory: Any) -> str:
    """How to call a factory in a report."""
    if isinstance(factory, str):
        return factory
    plain = getattr(factory, "func", factory)
    name = getattr(plain, "__qualname__", None) or type(plain).__name__
    module = getattr(plain, "__module__", "") or ""
    if module.split(".")[0] == "optax":
        module = "optax.contrib" if ".contrib" in module else "optax"
    return f"{module}:{name}" if module and module not in ("builtins", "__main__") else name


def is_rate(name: str) -> bool:
    """Whether a hyperparameter of this name is the learning rate."""
    return name in RATES[:5]


def guess(name: str) -> float | None:
    """A plain value for a required hyperparameter, by its name; None where there is no telling.

    >>> guess("learning_rate"), guess("decay"), guess("weights")
    (0.1, 0.9, None)
    """
    if name in RATES:
        return 0.1
    if "weight_decay" in name:
        return 0.01
    if name.startswith("eps"):
        return 1e-8
    if name in ("b1", "b2", "b3", "rho", "gamma", "mu") or any(
        w in name for w in ("decay", "beta", "momentum")
    ):
        return 0.9
    if any(w in name for w in ("clip", "max", "threshold", "norm", "delta", "scale", "factor")):
        return 1.0
    return None


def _transform(made: Any, name: str) -> Transform:
    if isinstance(made, Transform):
        return made
    init, update = getattr(made, "init", None), getattr(made, "update", None)
    if init is None and isinstance(made, tuple) and len(made) == 2:
        init, update = made
    if not callable(init) or not callable(update):
        raise ValueError(
            f"{name} must make an optimizer, an object with functions init and update, got {type(made).__name__}"
        )
    claims = any(kind.__name__ == "GradientTransformationExtraArgs" for kind in type(made).__mro__)
    return Transform(init, update, claims, bool(getattr(made, "numpy", False)))


class Subject:
    """A factory, the hyperparameters it takes, and the values that are held while others vary.

    Args:
        factory: a factory, a made optimizer, or ``package.module:name``.
        settings: hyperparameters to hold throughout; required ones that are missing are guessed by name.
        like: call hyperparameters by the names of this subject (``lr`` for ``learning_rate``), and take those
            of it where the factory takes ``**keywords``.
        lenient: leave out settings that the factory does not take, which may be meant for another subject.

    Raises:
        ValueError: a setting that the factory does not take, or a required hyperparameter without a value.
    """

    def __init__(
        self,
        factory: Any,
        settings: Mapping[str, Any] | None = None,
        like: Subject | None = None,
        lenient: bool = False,
    ) -> None:
        self.name = name_of(factory)
        made = load(factory) if isinstance(factory, str) else factory
        is_pair = hasattr(made, "init") and hasattr(made, "update") and not isinstance(made, type)
        if isinstance(made, tuple) or is_pair:
            ready = made
            self.factory: Callable[..., Any] = lambda: ready
            if not isinstance(factory, str):
                self.name = type(made).__name__
        elif callable(made):
            self.factory = made
        else:
            raise ValueError(f"{self.name} is neither a factory nor an optimizer: {type(made).__name__}")
        self.own_names: dict[str, str] = {}
        self.parameters = self._read(like)
        self.guessed: set[str] = set()
        self._taken: dict[tuple[int, ...], bool] = {}
        wanted = {self._known(name): x for name, x in (settings or {}).items()}
        self.held = self._hold(
            {name: x for name, x in wanted.items() if not lenient or name in self.parameters}
        )

    def _read(self, like: Subject | None) -> dict[str, inspect.Parameter]:
        try:
            signature = inspect.signature(self.factory)
        except (TypeError, ValueError):  # builtins without a signature
            return {}
        named = {
            p.name: p
            for p in signature.parameters.values()
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        if like is None:
            return named
        for group in SYNONYMS:
            ours, theirs = (next((n for n in group if n in side), None) for side in (named, like.parameters))
            if ours is not None and theirs is not None and theirs not in named:
                self.own_names[theirs] = ours
        named = {self._common(name): p for name, p in named.items()}
        open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        return {**like.parameters, **named} if open_ended else named

    def _common(self, name: str) -> str:
        """The reference's name for a hyperparameter that the factory calls otherwise."""
        return next((common for common, own in self.own_names.items() if own == name), name)

    def _known(self, name: str) -> str:
        """The name under which a setting is among the parameters, if any synonym of it is."""
        group = next((group for group in SYNONYMS if name in group), (name,))
        return name if name in self.parameters else next((n for n in group if n in self.parameters), name)

    def _hold(self, settings: dict[str, Any]) -> dict[str, Any]:
        if unknown := set(settings) - set(self.parameters):
            raise ValueError(
                f"{self.name} takes no {sorted(unknown)}; it takes {list(self.parameters) or 'nothing'}"
            )
        for name, parameter in self.parameters.items():
            if name in settings or parameter.default is not parameter.empty:
                continue
            if (value := guess(name)) is None:
                raise ValueError(
                    f"{self.name} requires {name!r}, for which there is no obvious value: "
                    f"pass settings={{{name!r}: ...}} (--set {name}=...)"
                )
            settings[name] = value
            self.guessed.add(name)
        return settings

    @property
    def rate(self) -> str | None:
        """The name of the learning rate, if there is one."""
        return next((name for name in self.parameters if is_rate(name)), None)

    def default(self, name: str) -> Any:
        """The value of a hyperparameter while others vary."""
        return self.held[name] if name in self.held else self.parameters[name].default

    def build(self, settings: Mapping[str, Any] | None = None) -> Transform:
        """The optimizer for these settings over those held."""
        wanted = {**self.held, **(settings or {})}
        return _transform(
            self.factory(**{self.own_names.get(name, name): x for name, x in wanted.items()}), self.name
        )

    def refuses(self, settings: Mapping[str, Any]) -> str | None:
        """What the factory says against settings, if it does so in words of its own and does not break."""
        try:
            self.build(settings)
        except (ValueError, NotImplementedError, AssertionError) as error:
            return one_line(error, 140)
        except Exception:  # whoever builds it next is told
            return None
        return None

    def step(self, tx: Transform, grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        """One update, with the standard extra arguments where the optimizer cannot do without."""
        return tx.update(grads, state, params, **self.extras(grads, params))

    def extras(self, grads: Any, params: Any) -> dict[str, Any]:
        """The extra arguments that this optimizer cannot do without."""
        if not self.needs:
            return {}
        extras = standard_extras(grads, params)
        return {name: extras[name] for name in self.needs}

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """The extra arguments without which ``update`` fails and with which it works."""
        tx = self.build()
        if tx.numpy:
            return ()
        params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
        for names in ((), ("value", "grad", "value_fn"), ("value", "grad", "value_fn", "obj_fn")):
            try:
                extras = standard_extras(params, params)
                chosen = {name: extras[name] for name in names}
                jax.eval_shape(lambda p, chosen=chosen: tx.update(p, tx.init(p), p, **chosen), params)
            except Exception:  # the next names may do; if none do, the protocol questions will say so
                continue
            return names
        return ()

    @property
    def takes_scalars(self) -> bool:
        """Whether a parameter may be a scalar; where not, all other questions are asked without scalars."""
        return self.takes(())

    @cached_property
    def draws(self) -> bool:
        """Whether random numbers are drawn: what a leaf draws may depend on its place and its dtype."""
        tx = self.build()
        state = () if tx.numpy else jax.eval_shape(tx.init, {"w": jnp.ones((2, 3))})
        raw = lambda x: x.dtype == jnp.uint32 and x.shape == (2,)
        if any(raw(x) or jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in jax.tree.leaves(state)):
            return True
        return DRAWS.search(str(self.program({"w": jnp.ones((3, 2))}))) is not None

    def program(self, params: Any) -> ClosedJaxpr | None:
        """The first update of these parameters, by gradients equal to them; None if it cannot be traced."""
        try:
            tx = self.build()
            return None if tx.numpy else jax.make_jaxpr(lambda p: self.step(tx, p, tx.init(p), p))(params)
        except Exception:
            return None

    @cached_property
    def has_products(self) -> bool:
        """Whether an update multiplies or decomposes matrices."""
        return PRODUCTS.search(str(self.program({"w": jnp.ones((3, 2))}))) is not None

    def keeps(self, dtype: str, scalars: bool = False) -> set[str]:
        """The dtypes of the state's arrays, of its scalars too, that are floats, for parameters of this dtype."""
        with jax.enable_x64(dtype == "float64"):
            tx = self.build()
            if tx.numpy:
                return set()
            state = jax.eval_shape(tx.init, {"w": jax.ShapeDtypeStruct((2, 3), dtype)})
        leaves = [x for x in jax.tree.leaves(state) if scalars or x.shape]
        return {str(x.dtype) for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)}

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a parameter may have this shape."""
        if shape not in self._taken:
            self._taken[shape] = self._takes(shape)
        return self._taken[shape]

    def _takes(self, shape: tuple[int, ...]) -> bool:
        tx = self.build()
        if tx.numpy:
            return True
        try:
            jax.eval_shape(
                lambda p: self.step(tx, p, tx.init(p), p), {"w": jnp.ones((2, 3)), "s": jnp.ones(shape)}
            )
        except Exception:
            return False
        return True


def standard_extras(grads: Any, params: Any) -> dict[str, Any]:
    """The extra arguments that line searches and step-size rules ask for, of a bowl centred at one."""

    def value_fn(p: Any) -> Any:
        return sum((0.5 * jnp.sum((x - 1) ** 2) for x in jax.tree.leaves(p)), start=jnp.zeros(()))

    at = grads if params is None else params
    dtype = jnp.result_type(*(jax.tree.leaves(at) or [jnp.float32]))
    return {"value": value_fn(at).astype(dtype), "grad": grads, "value_fn": value_fn, "obj_fn": value_fn}

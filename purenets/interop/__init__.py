"""To and from other libraries: their models as layers, layers as their modules, weights of torch, and programs.

Each library is imported when its function is called, so none has to be installed. Optimizers need no conversion at
all: ours *are* optax transformations whose states have optax's types, so a run that was begun with one goes on with
the other, from the state as it is (``tests/interop/test_optax_handover.py``).
"""

from purenets.interop.convert import convert, inverse
from purenets.interop.equinox import from_equinox
from purenets.interop.gpt2 import to_gpt2
from purenets.interop.gru import gru_from_flax, gru_to_flax
from purenets.interop.haiku import from_haiku
from purenets.interop.linen import from_linen
from purenets.interop.linen_names import linen_names
from purenets.interop.lstm import lstm_from_flax, lstm_to_flax
from purenets.interop.nnx import from_nnx
from purenets.interop.port_check import LayerCheck, PortCheck, port_check
from purenets.interop.programs import export, load_program
from purenets.interop.to_linen import to_linen
from purenets.interop.torch import TorchReport, from_torch, to_torch
from purenets.interop.torch_names import ENCODER_LAYER_NAMES, LLAMA_NAMES, names_below, resnet_names
from purenets.interop.torch_outputs import torch_outputs

__all__ = [
    "ENCODER_LAYER_NAMES",
    "LLAMA_NAMES",
    "LayerCheck",
    "PortCheck",
    "TorchReport",
    "convert",
    "export",
    "from_equinox",
    "from_haiku",
    "from_linen",
    "from_nnx",
    "from_torch",
    "gru_from_flax",
    "gru_to_flax",
    "inverse",
    "linen_names",
    "load_program",
    "lstm_from_flax",
    "lstm_to_flax",
    "names_below",
    "port_check",
    "resnet_names",
    "to_gpt2",
    "to_linen",
    "to_torch",
    "torch_outputs",
]

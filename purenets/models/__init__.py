"""Compositions of layers, a page each."""

from purenets.models.convnets import alexnet, inception_block, lenet, plain_stack, vgg
from purenets.models.convnext import convnext, convnext_block
from purenets.models.deepen import deepen
from purenets.models.gpt import gpt, gpt2, llama, llama_2_7b, llama_3_8b
from purenets.models.gpt2_weights import from_gpt2, load_gpt2
from purenets.models.mlp import mlp
from purenets.models.resnet import (
    basic_block,
    bottleneck_block,
    conv_join,
    dropout_join,
    gated_join,
    plain_join,
    resnet,
    resnet_cifar,
    scaled_join,
    shortcut_by_padding,
    shortcut_by_projection,
    sum_join,
)
from purenets.models.speed_network import speed_network
from purenets.models.transformer import encoder, encoder_decoder, language_model
from purenets.models.transformer_block import feed_forward, swiglu, transformer_block
from purenets.models.vit import vit
from purenets.models.wide_resnet import wide_resnet

__all__ = [
    "alexnet",
    "basic_block",
    "bottleneck_block",
    "conv_join",
    "convnext",
    "convnext_block",
    "deepen",
    "dropout_join",
    "encoder",
    "encoder_decoder",
    "feed_forward",
    "from_gpt2",
    "gated_join",
    "gpt",
    "gpt2",
    "inception_block",
    "language_model",
    "lenet",
    "llama",
    "llama_2_7b",
    "llama_3_8b",
    "load_gpt2",
    "mlp",
    "plain_join",
    "plain_stack",
    "resnet",
    "resnet_cifar",
    "scaled_join",
    "shortcut_by_padding",
    "shortcut_by_projection",
    "speed_network",
    "sum_join",
    "swiglu",
    "transformer_block",
    "vgg",
    "vit",
    "wide_resnet",
]

"""Compositions of layers, a page each."""

from purenets.models.convnets import alexnet, inception_block, lenet, plain_stack, vgg
from purenets.models.convnext import convnext, convnext_block
from purenets.models.deepen import deepen
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
    "gated_join",
    "inception_block",
    "lenet",
    "mlp",
    "plain_join",
    "plain_stack",
    "resnet",
    "resnet_cifar",
    "scaled_join",
    "shortcut_by_padding",
    "shortcut_by_projection",
    "sum_join",
    "vgg",
    "vit",
    "wide_resnet",
]

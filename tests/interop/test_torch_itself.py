"""Weights of torch's own modules in and out, where torch is installed: the same outputs, and exact round trips."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets import models
from purenets.interop import (
    ENCODER_LAYER_NAMES,
    from_torch,
    names_below,
    port_check,
    resnet_names,
    to_torch,
    torch_outputs,
)

torch = pytest.importorskip("torch")
nn = torch.nn


def nhwc(x):
    return np.moveaxis(x, 1, -1)


def nchw(x):
    return np.moveaxis(x, -1, 1)


def plain(x):
    return x


def settled(module):
    """Norms with running statistics and affine maps that are not the identity, in evaluation."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.ndim == 1:
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith("num_batches_tracked"):
                tensor.fill_(7)
    return module.eval()


class Basic(nn.Module):
    """torchvision's basic block, by its names."""

    def __init__(self, n_in, n_out, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """torchvision's network of basic blocks, by its names."""

    def __init__(self, blocks, width, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        n_in = width
        for i, count in enumerate(blocks):
            n_out = width * 2**i
            first = Basic(n_in, n_out, 1 if i == 0 else 2)
            setattr(
                self, f"layer{i + 1}", nn.Sequential(first, *(Basic(n_out, n_out) for _ in range(count - 1)))
            )
            n_in = n_out
        self.stages = len(blocks)
        self.fc = nn.Linear(n_in, classes)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(x.mean((2, 3)))


def encoder_block(pre_norm, activation):
    return models.transformer_block(
        8,
        pn.attention(8, 2),
        models.feed_forward(8, 16, activation=activation),
        pre_norm=pre_norm,
        norm=partial(pn.layer_norm, eps=1e-5),
    )


def encoder_layer(norm_first, activation):
    return nn.TransformerEncoderLayer(
        8, 2, 16, batch_first=True, norm_first=norm_first, activation=activation
    )


NET = models.resnet((2, 3), 5, bottleneck=False, width=4, scan=True)

PAIRS = {
    "Linear": (lambda: nn.Linear(3, 5), pn.dense(3, 5), (2, 3), {}),
    "a square Linear": (lambda: nn.Linear(4, 4), pn.dense(4, 4), (2, 4), {}),
    "Conv1d": (
        lambda: nn.Conv1d(3, 4, 3, padding=1),
        pn.conv(3, 4, (3,), padding=1),
        (2, 3, 6),
        {"axes": (nhwc, nchw)},
    ),
    "Conv2d in groups": (
        lambda: nn.Conv2d(4, 6, (3, 5), 2, padding=1, groups=2),
        pn.conv(4, 6, (3, 5), stride=2, padding=1, groups=2),
        (2, 4, 7, 6),
        {"axes": (nhwc, nchw)},
    ),
    "ConvTranspose2d": (
        lambda: nn.ConvTranspose2d(3, 5, (3, 4), 2, padding=1),
        pn.conv_transpose(3, 5, (3, 4), stride=2, padding=[(1, 1), (2, 2)]),
        (2, 3, 4, 5),
        {"axes": (nhwc, nchw)},
    ),
    "BatchNorm2d in evaluation": (
        lambda: nn.BatchNorm2d(4),
        pn.batch_norm(4),
        (2, 4, 3, 3),
        {"axes": (nhwc, nchw)},
    ),
    "LSTM": (lambda: nn.LSTM(3, 4, batch_first=True), pn.rnn(pn.lstm_cell(3, 4)), (2, 5, 3), {}),
    "LSTM of two layers both ways": (
        lambda: nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True),
        pn.serial(
            pn.bidirectional(pn.lstm_cell(3, 4), pn.lstm_cell(3, 4)),
            pn.bidirectional(pn.lstm_cell(8, 4), pn.lstm_cell(8, 4)),
        ),
        (2, 5, 3),
        {},
    ),
    "GRU of two layers": (
        lambda: nn.GRU(3, 4, 2, batch_first=True),
        pn.stacked(pn.gru_cell(3, 4), pn.gru_cell(4, 4)),
        (2, 5, 3),
        {},
    ),
    "RNN": (lambda: nn.RNN(3, 4, batch_first=True), pn.rnn(pn.elman_cell(3, 4)), (2, 5, 3), {}),
    "TransformerEncoder": (
        lambda: nn.TransformerEncoder(encoder_layer(False, "relu"), 3, enable_nested_tensor=False),
        pn.serial(blocks=pn.repeat(encoder_block(False, jax.nn.relu), 3)),
        (2, 5, 8),
        {"rename": names_below(ENCODER_LAYER_NAMES, "layers.*", "blocks/*")},
    ),
    "TransformerEncoderLayer with norms first": (
        lambda: encoder_layer(True, "gelu"),
        encoder_block(True, partial(jax.nn.gelu, approximate=False)),
        (2, 5, 8),
        {"rename": ENCODER_LAYER_NAMES},
    ),
    "a network with a flatten": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5)
        ),
        pn.serial(
            pn.conv(3, 4, 3, padding="VALID"), pn.batch_norm(4), jax.nn.relu, pn.flatten(), pn.dense(24, 5)
        ),
        (2, 3, 5, 4),
        {
            "rename": {"{0,1,4}": "{conv_1,batch_norm_1,dense_1}"},
            "flattened": {"dense_1": (4, 3, 2)},
            "axes": (nhwc, plain),
        },
    ),
    "a ResNet with torchvision's names": (
        lambda: ResNet((2, 3), 4, 5),
        NET,
        (2, 3, 20, 24),
        {"rename": resnet_names(NET), "axes": (nhwc, plain)},
    ),
}
pairs = pytest.mark.parametrize("name", PAIRS)


def case(name):
    make, model, shape, settings = PAIRS[name]
    torch.manual_seed(0)
    x = torch.randn(*shape)
    settings = dict(settings)
    axes = settings.pop("axes", (plain, plain))
    return settled(make()), model, x, axes, settings


@pairs
def test_a_ported_module_computes_what_torch_computes(name):
    module, model, x, (into, out), settings = case(name)
    params, state, _ = from_torch(module.state_dict(), model, **settings)
    wanted = module(x)
    wanted = (wanted[0] if isinstance(wanted, tuple) else wanted).detach().numpy()
    got, _ = jax.jit(model.apply)(params, state, jnp.asarray(into(x.numpy())))
    np.testing.assert_allclose(out(np.asarray(got)), wanted, rtol=1e-5, atol=1e-5)


@pairs
def test_there_and_back_is_exact_and_loads_strictly(name):
    module, model, _, _, settings = case(name)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    params, state, _ = from_torch(before, model, **settings)
    back = to_torch(model, params, state, like=before, **settings)
    assert list(back) == list(before)
    fresh = PAIRS[name][0]()
    fresh.load_state_dict(back, strict=True)
    for key, tensor in fresh.state_dict().items():
        wanted = before[key]
        if "bias_hh" in key or "bias_ih" in key:
            other = (
                key.replace("bias_hh", "bias_ih") if "bias_hh" in key else key.replace("bias_ih", "bias_hh")
            )
            tensor, wanted = tensor + fresh.state_dict()[other], wanted + before[other]
        assert tensor.dtype == wanted.dtype
        assert torch.equal(tensor, wanted), key


def test_multihead_attention_with_queries_keys_and_values_in_one():
    module = settled(nn.MultiheadAttention(8, 2, batch_first=True))
    model = pn.attention(8, 2)
    params, state, _ = from_torch(module.state_dict(), model)
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    wanted, _ = module(x, x, x)
    got, _ = model.apply(params, state, jnp.asarray(x.numpy()))
    np.testing.assert_allclose(got, wanted.detach().numpy(), rtol=1e-5, atol=1e-5)
    back = to_torch(model, params, state, like=module.state_dict())
    assert all(torch.equal(tensor, back[key]) for key, tensor in module.state_dict().items())


def test_half_precision_tensors_come_and_go():
    module = nn.Linear(3, 4).to(torch.bfloat16)
    params, _, report = from_torch(module.state_dict(), pn.dense(3, 4))
    assert report.converted["weight"] == ("bfloat16[4, 3]", "float32[4, 3]")
    back = to_torch(pn.dense(3, 4), params, like=module.state_dict())
    assert back["weight"].dtype == torch.bfloat16
    assert torch.equal(back["weight"], module.weight)


def test_a_safetensors_file_of_a_torch_module_is_that_module(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    module = settled(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    save_file(module.state_dict(), tmp_path / "m.safetensors")
    model = pn.serial(pn.dense(3, 4), pn.batch_norm(4))
    names = {"0": "dense_1", "1": "batch_norm_1"}
    params, state, _ = from_torch(tmp_path / "m.safetensors", model, rename=names)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose(
        model.apply(params, state, jnp.asarray(x.numpy()))[0],
        module(x).detach().numpy(),
        rtol=1e-5,
        atol=1e-5,
    )


def test_hooks_capture_every_module_and_leave_the_model_as_it_was():
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.LSTM(4, 2, batch_first=True))
    module[1].eval()
    x = np.ones((2, 5, 3), np.float32)
    found = torch_outputs(module, x)
    assert {name: output.shape for name, output in found.items()} == {
        "0": (2, 5, 4),
        "1": (2, 5, 4),
        "2": (2, 5, 2),
        "": (2, 5, 2),
    }
    np.testing.assert_array_equal(found["1"], found["0"])
    assert [inner.training for inner in module] == [True, False, True]
    assert not any(inner._forward_hooks for inner in module.modules())
    np.testing.assert_array_equal(torch_outputs(module, torch.from_numpy(x))["0"], found["0"])


def test_an_encoder_is_followed_layer_by_layer_and_its_forgotten_epsilon_is_found():
    module = settled(nn.TransformerEncoder(encoder_layer(False, "relu"), 3, enable_nested_tensor=False))
    names = names_below(ENCODER_LAYER_NAMES, "layers.*", "blocks/*")
    names |= {"layers.*": "blocks/*"}
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    right = pn.serial(blocks=pn.repeat(encoder_block(False, jax.nn.relu), 3))
    params, state, _ = from_torch(module.state_dict(), right, rename=names)
    found = port_check(right, params, state, partial(torch_outputs, module), x, rename=names)
    assert found.first is None
    inside = ("attention", "attention_norm", "feed_forward/up", "feed_forward/down", "feed_forward_norm")
    assert [one.path for one in found.layers] == [
        *(path for i in range(3) for path in (*(f"blocks/{i}/{part}" for part in inside), f"blocks/{i}")),
        "",
    ]
    other = models.transformer_block(
        8,
        pn.attention(8, 2),
        models.feed_forward(8, 16, activation=jax.nn.relu),
        pre_norm=False,
        norm=partial(pn.layer_norm, eps=1e-3),
    )
    found = port_check(
        pn.serial(blocks=pn.repeat(other, 3)), params, state, partial(torch_outputs, module), x, rename=names
    )
    assert found.first.path == "blocks/0/attention_norm"
    assert found.causes == ("its epsilon is 1e-05 in the reference",)


def test_a_resnet_is_followed_module_by_module_and_a_square_convolution_turned_round_is_found():
    module, model, x, (into, _), settings = case("a ResNet with torchvision's names")
    names = settings["rename"]
    params, state, _ = from_torch(module.state_dict(), model, rename=names)
    reference = torch_outputs(module, x)
    found = port_check(model, params, state, reference, into(x.numpy()), rename=names)
    assert found.first is None
    assert len(found.layers) == 31
    body = params["stage_2"]["rest"]["joined"]["body"]
    body["conv_2"]["kernel"] = body["conv_2"]["kernel"].at[1].set(body["conv_2"]["kernel"][1].mT)
    found = port_check(model, params, state, reference, into(x.numpy()), rename=names)
    assert (found.first.path, found.first.name) == ("stage_2/rest/1/joined/body/conv_2", "layer2.2.conv2")
    assert found.causes == ("its kernel has input and output channels exchanged",)

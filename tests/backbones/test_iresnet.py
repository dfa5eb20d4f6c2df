from itertools import count

import pytest
import torch
from torch.nn import functional as F

from arcdist.backbones import create_backbone
from arcdist.backbones.iresnet import IResNet


def plain_iresnet(weights, x, training, stem_stride=1):
    """The network as arcface_torch describes it, straight from a state_dict; eps is 1e-5 everywhere."""

    def norm(x, key):
        mean, var = (weights[f"{key}.running_{name}"].clone() for name in ("mean", "var"))
        return F.batch_norm(x, mean, var, weights[f"{key}.weight"], weights[f"{key}.bias"], training, eps=1e-5)

    x = F.conv2d(x, weights["conv1.weight"], stride=stem_stride, padding=1)
    x = F.prelu(norm(x, "bn1"), weights["prelu.weight"])
    for layer in (1, 2, 3, 4):
        for block in count():
            key = f"layer{layer}.{block}"
            if f"{key}.conv1.weight" not in weights:
                break
            stride = 2 if block == 0 else 1
            y = F.conv2d(norm(x, f"{key}.bn1"), weights[f"{key}.conv1.weight"], padding=1)
            y = F.prelu(norm(y, f"{key}.bn2"), weights[f"{key}.prelu.weight"])
            y = norm(F.conv2d(y, weights[f"{key}.conv2.weight"], stride=stride, padding=1), f"{key}.bn3")
            if f"{key}.downsample.0.weight" in weights:
                x = norm(F.conv2d(x, weights[f"{key}.downsample.0.weight"], stride=stride), f"{key}.downsample.1")
            x = x + y
    x = norm(x, "bn2").contiguous().reshape(len(x), -1)
    return norm(F.linear(x, weights["fc.weight"], weights["fc.bias"]), "features")


@pytest.mark.parametrize(
    ("name", "entries", "parameters"),
    [
        ("r18", 187, 24_025_600),
        ("r34", 331, 34_139_328),
        ("r50", 475, 43_590_848),
        ("r100", 925, 65_156_160),
        ("r200", 1807, 118_833_920),
    ],
)
def test_entries_and_parameters_are_as_many_as_in_arcface_torch(name, entries, parameters):
    with torch.device("meta"):
        model = create_backbone(name)
    assert len(model.state_dict()) == entries
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("stem_stride", [1, 2])
def test_embeddings_and_gradients_are_those_of_the_plain_network(shaken, stem_stride, training):
    model = shaken(IResNet((1, 2, 3, 1), 7, widths=(4, 6, 8, 10), stem_stride=stem_stride)).train(training)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for key, parameter in model.named_parameters():
        weights[key].requires_grad_(parameter.requires_grad)
    images = torch.rand(3, 3, 112, 112, dtype=torch.float64) * 2 - 1
    direction = torch.randn(3, 7, dtype=torch.float64)

    expected = plain_iresnet(weights, images, training, stem_stride)
    (expected * direction).sum().backward()
    embedding = model(images)
    (embedding * direction).sum().backward()

    torch.testing.assert_close(embedding, expected)
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[key].grad, msg=lambda text, key=key: f"{key}: {text}")


def test_last_map_is_flattened_channels_first_in_channels_last_too():
    model = create_backbone("small_thin", embedding_dim=16).eval()
    images = torch.rand(2, 3, 112, 112) * 2 - 1
    expected = model(images)
    model.to(memory_format=torch.channels_last)  # ty: ignore
    embedding = model(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-5)


def test_gamma_of_the_embedding_norm_stays_one():
    model = IResNet((1, 1, 1, 1), 8, widths=(4, 4, 4, 4))
    assert [key for key, p in model.named_parameters() if not p.requires_grad] == ["features.weight"]
    assert torch.equal(model.features.weight, torch.ones(8))


def test_autocast_narrows_the_convolutions_and_not_the_last_layers():
    model = IResNet((1, 1, 1, 1), 8, widths=(4, 4, 4, 4)).eval()
    dtypes = {}
    for key in ("layer4.0.conv2", "fc"):
        model.get_submodule(key).register_forward_hook(lambda _, __, out, key=key: dtypes.update({key: out.dtype}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedding = model(torch.zeros(1, 3, 112, 112))
    assert dtypes == {"layer4.0.conv2": torch.bfloat16, "fc": torch.float32}
    assert embedding.dtype == torch.float32


def test_dropout_acts_on_the_last_map_in_training_only():
    model = IResNet((1, 1, 1, 1), 8, widths=(4, 4, 4, 4), dropout=0.9)
    images = torch.rand(4, 3, 112, 112)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))

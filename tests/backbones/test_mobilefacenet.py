import pytest
import torch
from torch.nn import functional as F

from arcdist.backbones import create_backbone


def plain_mobilefacenet(weights, x, training):
    """The network as arcface_torch describes it, straight from a state_dict: strides and groups by position."""

    def conv_norm(x, key, stride=1, padding=0):
        kernel = weights[f"{key}.0.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=padding, groups=x.shape[1] // kernel.shape[1])
        return norm(x, f"{key}.1")

    def norm(x, key):
        mean, var = (weights[f"{key}.running_{name}"].clone() for name in ("mean", "var"))
        return F.batch_norm(x, mean, var, weights[f"{key}.weight"], weights[f"{key}.bias"], training, eps=1e-5)

    def conv(x, key, stride=1, padding=0):
        return F.prelu(conv_norm(x, f"{key}.layers", stride, padding), weights[f"{key}.layers.2.weight"])

    def bottleneck(x, key, stride):
        x = conv(conv(x, f"{key}.layers.0"), f"{key}.layers.1", stride, padding=1)
        return conv_norm(x, f"{key}.layers.2.layers")

    def stage(x, key, blocks):
        for block in range(blocks):
            x = x + bottleneck(x, f"{key}.layers.{block}", stride=1)
        return x

    x = conv(x, "layers.0", stride=2, padding=1)
    x = conv(x, "layers.1", padding=1)
    x = stage(bottleneck(x, "layers.2", stride=2), "layers.3", 4)
    x = stage(bottleneck(x, "layers.4", stride=2), "layers.5", 6)
    x = stage(bottleneck(x, "layers.6", stride=2), "layers.7", 2)
    x = conv_norm(conv(x, "conv_sep"), "features.layers.0.layers")
    return norm(F.linear(x[:, :, 0, 0], weights["features.layers.2.weight"]), "features.layers.3")


@pytest.mark.parametrize(("name", "entries", "parameters"), [("mbf", 333, 2_059_520), ("mbf_large", 606, 6_314_880)])
def test_entries_and_parameters_are_as_many_as_in_arcface_torch(name, entries, parameters):
    with torch.device("meta"):
        model = create_backbone(name)
    assert len(model.state_dict()) == entries
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("training", [False, True])
def test_embeddings_and_gradients_are_those_of_the_plain_network(shaken, training):
    model = shaken(create_backbone("mbf", embedding_dim=16)).train(training)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for key, _ in model.named_parameters():
        weights[key].requires_grad_()
    images = torch.rand(2, 3, 112, 112, dtype=torch.float64) * 2 - 1
    direction = torch.randn(2, 16, dtype=torch.float64)

    expected = plain_mobilefacenet(weights, images, training)
    (expected * direction).sum().backward()
    embedding = model(images)
    (embedding * direction).sum().backward()

    torch.testing.assert_close(embedding, expected)
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, weights[key].grad, rtol=1e-6, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}"
        )

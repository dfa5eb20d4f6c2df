import pytest
import torch

from arcdist.backbones import BackboneConfig, backbone_names, create_backbone, register_backbone, takes_any_size
from arcdist.backbones import registry as registry_module
from arcdist.backbones.vit import VisionTransformer
from arcdist.errors import ConfigError

ARCFACE_TORCH = {
    *("r18", "r34", "r50", "r100", "r200", "mbf", "mbf_large"),
    *("vit_t", "vit_t_dp005_mask0", "vit_s", "vit_s_dp005_mask_0", "vit_b", "vit_b_dp005_mask_005"),
    *("vit_l_dp005_mask_005", "vit_h"),
}
CHEAP = ["r18", "mbf", "small", "tiny", "small_deep", "small_thin", "vit_t", "vit_t_dp005_mask0"]


def test_names_of_arcface_torch_are_known():
    assert set(backbone_names()) > ARCFACE_TORCH


@pytest.mark.parametrize("name", backbone_names())
def test_faces_become_embeddings_of_the_asked_length(name):
    with torch.device("meta"):
        model = create_backbone(name, embedding_dim=96)
        assert model(torch.empty(3, 3, 112, 112)).shape == (3, 96)


@pytest.mark.parametrize("name", CHEAP)
def test_every_parameter_that_is_trained_gets_a_gradient(name):
    model = create_backbone(name, embedding_dim=24)
    embedding = model(torch.rand(2, 3, 112, 112) * 2 - 1)
    (embedding * torch.randn(2, 24)).sum().backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key
    frozen = {key for key, p in model.named_parameters() if not p.requires_grad}
    assert frozen <= {"features.weight", "mask_token"}


@pytest.mark.parametrize("name", ["small", "mbf", "vit_t"])
def test_channels_last_gives_the_same_embeddings(name):
    model = create_backbone(name, embedding_dim=24).eval()
    images = torch.rand(2, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        expected = model(images)
        model.to(memory_format=torch.channels_last)  # ty: ignore
        embedding = model(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(embedding, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", backbone_names())
def test_a_backbone_takes_another_size_where_it_says_so(name):
    with torch.device("meta"):
        model = create_backbone(name, embedding_dim=4)
        if takes_any_size(name):
            assert model(torch.empty(2, 3, 80, 80)).shape == (2, 4)
        else:
            with pytest.raises(RuntimeError):
                model(torch.empty(2, 3, 80, 80))


def test_unknown_name_says_which_was_meant_and_which_are_known():
    with pytest.raises(ConfigError, match=r"backbone\.name: 'r51': .*did you mean 'r50'.*known: r18, .*vit_h"):
        create_backbone("r51")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BackboneConfig(name="resnet"), "backbone.name: 'resnet'"),
        (BackboneConfig(embedding_dim=0), "backbone.embedding_dim: 0: must be from 1 to 65536"),
        (BackboneConfig(embedding_dim=65537), "backbone.embedding_dim: 65537: must be from 1 to 65536"),
        (BackboneConfig(dropout=1.0), r"backbone.dropout: 1.0: must be in \[0, 1\)"),
        (BackboneConfig(mask_ratio=0.1), r"backbone.mask_ratio: r50 has no such option .*dropout"),
        (BackboneConfig(name="mbf", dropout=0.1), "backbone.dropout: mbf has no such option"),
    ],
)
def test_values_that_cannot_be_right_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        config.validate()


def test_config_builds_what_it_says():
    config = BackboneConfig(name="vit_t", embedding_dim=12, drop_path=0.0, mask_ratio=0.5, checkpoint_activations=True)
    with torch.device("meta"):
        model = config.build()
    assert isinstance(model, VisionTransformer)
    assert model.checkpoint_activations
    assert model.tokens_kept == 72
    assert [block.drop_path for block in model.blocks] == [0.0] * 12
    assert model.state_dict()["feature.3.weight"].shape == (12,)


def test_a_backbone_may_be_added_under_a_new_name(monkeypatch):
    monkeypatch.setattr(registry_module, "_BUILDERS", dict(registry_module._BUILDERS))

    @register_backbone("one_layer", bias=False)
    def one_layer(embedding_dim, bias=True):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 112 * 112, embedding_dim, bias=bias))

    assert "one_layer" in backbone_names()
    assert list(create_backbone("one_layer", 4).state_dict()) == ["1.weight"]
    assert list(create_backbone("one_layer", 4, bias=True).state_dict()) == ["1.weight", "1.bias"]

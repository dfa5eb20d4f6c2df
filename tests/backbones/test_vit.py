import pytest
import torch
from torch.nn import functional as F

from arcdist.backbones import create_backbone
from arcdist.backbones.vit import TransformerBlock, VisionTransformer
from arcdist.errors import ConfigError


def plain_vit(weights, x, training):
    """The network as arcface_torch describes it, straight from a state_dict; without masks and skipped blocks."""

    def linear(x, key):
        return x @ weights[f"{key}.weight"].T + weights.get(f"{key}.bias", 0.0)

    def layer_norm(x, key):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * weights[f"{key}.weight"] + weights[f"{key}.bias"]

    def batch_norm(x, key):
        mean, var = (weights[f"{key}.running_{name}"].clone() for name in ("mean", "var"))
        return F.batch_norm(x, mean, var, weights[f"{key}.weight"], weights[f"{key}.bias"], training, eps=2e-5)

    def attention(x, key):
        b, tokens, width = x.shape
        query, key_, value = linear(x, f"{key}.qkv").reshape(b, tokens, 3, 8, width // 8).permute(2, 0, 3, 1, 4)
        share = (query @ key_.mT / (width // 8) ** 0.5).softmax(-1)
        return linear((share @ value).transpose(1, 2).reshape(b, tokens, width), f"{key}.proj")

    x = F.conv2d(x, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=9)
    x = x.flatten(2).transpose(1, 2) + weights["pos_embed"]
    for block in range(sum(key.endswith(".attn.qkv.weight") for key in weights)):
        key = f"blocks.{block}"
        x = x + attention(layer_norm(x, f"{key}.norm1"), f"{key}.attn")
        y = linear(layer_norm(x, f"{key}.norm2"), f"{key}.mlp.fc1").clamp(0, 6)
        x = x + linear(y, f"{key}.mlp.fc2")
    x = layer_norm(x, "norm").reshape(len(x), -1)
    x = batch_norm(linear(x, "feature.0"), "feature.1")
    return batch_norm(linear(x, "feature.2"), "feature.3")


@pytest.mark.parametrize(
    ("name", "entries", "parameters"),
    [
        ("vit_t", 150, 19_137_792),
        ("vit_t_dp005_mask0", 150, 19_137_792),
        ("vit_s", 150, 76_023_296),
        ("vit_s_dp005_mask_0", 150, 76_023_296),
        ("vit_b", 282, 113_833_472),
        ("vit_b_dp005_mask_005", 282, 113_833_472),
        ("vit_l_dp005_mask_005", 282, 255_684_352),
        ("vit_h", 546, 756_393_984),
    ],
)
def test_entries_and_parameters_are_as_many_as_in_arcface_torch(name, entries, parameters):
    with torch.device("meta"):
        model = create_backbone(name)
    assert len(model.state_dict()) == entries
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("training", [False, True])
def test_embeddings_and_gradients_are_those_of_the_plain_network(shaken, training):
    model = shaken(VisionTransformer(width=32, depth=3, embedding_dim=7)).train(training)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for key, _ in model.named_parameters():
        weights[key].requires_grad_()
    images = torch.rand(3, 3, 112, 112, dtype=torch.float64) * 2 - 1
    direction = torch.randn(3, 7, dtype=torch.float64)

    expected = plain_vit(weights, images, training)
    (expected * direction).sum().backward()
    embedding = model(images)
    (embedding * direction).sum().backward()

    torch.testing.assert_close(embedding, expected)
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[key].grad, msg=lambda text, key=key: f"{key}: {text}")


def patches_with_influence(model):
    """Which of the 144 patches of each of four images the embeddings depend on."""
    images = torch.rand(4, 3, 112, 112, requires_grad=True)
    model(images).square().sum().backward()
    assert images.grad is not None
    return F.max_pool2d(images.grad.abs().amax(1), 9).flatten(1) > 0


def test_in_training_the_masked_share_of_patches_is_hidden_in_each_image_anew():
    seen = patches_with_influence(VisionTransformer(width=16, depth=1, embedding_dim=8, mask_ratio=0.1))
    assert seen.sum(1).tolist() == [129] * 4  # of 144, rounded down
    assert len({tuple(row.tolist()) for row in seen}) == 4


def test_a_mask_that_hides_every_patch_is_refused_and_what_is_advised_leaves_one():
    with pytest.raises(ConfigError, match=r"backbone\.mask_ratio: 0\.999: hides all 144 patches; 0\.993 leaves one"):
        VisionTransformer(width=16, depth=1, embedding_dim=8, mask_ratio=0.999)
    assert VisionTransformer(width=16, depth=1, embedding_dim=8, mask_ratio=0.993).tokens_kept == 1


def test_in_evaluation_every_patch_is_seen():
    model = VisionTransformer(width=16, depth=1, embedding_dim=8, mask_ratio=0.5).eval()
    assert patches_with_influence(model).all()


def test_mask_is_drawn_from_the_generator_of_torch():
    model = VisionTransformer(width=16, depth=2, embedding_dim=8, mask_ratio=0.2, drop_path=0.5)
    images = torch.rand(4, 3, 112, 112)
    embeddings = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        embeddings.append(model(images))
    assert torch.equal(embeddings[0], embeddings[1])
    assert not torch.equal(embeddings[0], embeddings[2])


def test_hidden_patches_are_replaced_by_the_mask_token_in_their_places():
    model = VisionTransformer(width=16, depth=1, embedding_dim=8, mask_ratio=0.25)
    tokens = []
    model.feature.register_forward_pre_hook(lambda _, args: tokens.append(args[0].unflatten(1, (144, 16))))
    model.norm.register_forward_hook(lambda _, __, out: tokens.append(out))
    images = torch.rand(2, 3, 112, 112)
    model(images)
    seen, all_tokens = tokens
    hidden = (all_tokens == model.mask_token).all(-1)
    assert hidden.sum(1).tolist() == [36, 36]
    for row in range(2):
        found = {tuple(token) for token in all_tokens[row, ~hidden[row]].tolist()}
        assert found == {tuple(token) for token in seen[row].tolist()}


def test_drop_path_grows_linearly_from_none_to_the_given_rate():
    model = VisionTransformer(width=16, depth=5, embedding_dim=8, drop_path=0.2)
    assert [block.drop_path for block in model.blocks] == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


def test_a_row_skips_a_branch_or_takes_it_scaled_by_the_kept_share():
    block = TransformerBlock(width=16, drop_path=0.25)
    for key in ("mlp.fc2.weight", "mlp.fc2.bias"):  # so that only the attention changes x
        block.state_dict()[key].zero_()
    x = torch.randn(4000, 2, 16)
    branch = block.attn(block.norm1(x))
    change = block(x) - x
    skipped = (change == 0).all(-1).all(-1)
    torch.testing.assert_close(change[~skipped], branch[~skipped] / 0.75, rtol=1e-4, atol=1e-5)
    assert skipped.double().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)
    block.eval()
    torch.testing.assert_close(block(x) - x, branch, rtol=1e-4, atol=1e-5)

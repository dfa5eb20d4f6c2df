import pytest
import torch

from arcdist.backbones import create_backbone
from arcdist.backbones.forward import flatten_map
from arcdist.backbones.iresnet import IResNet
from arcdist.backbones.mobilefacenet import MobileFaceNet
from arcdist.backbones.vit import VisionTransformer

BUILDERS = {
    "iresnet": lambda again: IResNet((1, 2, 1, 1), 8, (4, 6, 8, 8), dropout=0.3, checkpoint_activations=again),
    "mobilefacenet": lambda again: MobileFaceNet((1, 2, 1, 1), 1, 8, checkpoint_activations=again),
    "vit": lambda again: VisionTransformer(16, 3, 8, drop_path=0.5, mask_ratio=0.2, checkpoint_activations=again),
}


@pytest.mark.parametrize("family", BUILDERS)
def test_checkpointing_changes_neither_loss_nor_gradients_nor_statistics(family):
    results = []
    for again in (False, True):
        torch.manual_seed(7)
        model = BUILDERS[family](again)
        losses = []
        for _ in range(2):
            loss = model(torch.rand(4, 3, 112, 112)).square().mean(0).mul(torch.arange(8)).sum()
            loss.backward()
            losses.append(loss.item())
        results.append((losses, {key: p.grad for key, p in model.named_parameters()}, dict(model.named_buffers())))
    (losses, gradients, buffers), (losses_again, gradients_again, buffers_again) = results
    assert losses == losses_again
    torch.testing.assert_close(gradients_again, gradients, rtol=0, atol=0)
    torch.testing.assert_close(buffers_again, buffers, rtol=0, atol=0)
    assert all(count == 2 for key, count in buffers.items() if key.endswith("num_batches_tracked"))


@pytest.mark.parametrize("name", ["small_deep", "mbf", "vit_t"])
def test_checkpointing_keeps_little_for_the_backward_pass(name):
    def bytes_kept(again):
        kept = {}
        model = create_backbone(name, embedding_dim=16, checkpoint_activations=again)
        parameters = {p.data_ptr() for p in model.parameters()}

        def note(tensor):
            if tensor.data_ptr() not in parameters:
                kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            embedding = model(torch.rand(2, 3, 112, 112))
        assert embedding.requires_grad
        return sum(kept.values())

    assert bytes_kept(True) < bytes_kept(False) / 3  # not counting the blocks' inputs


def test_statistics_move_again_after_a_recomputation():
    model = BUILDERS["iresnet"](True)
    model(torch.rand(2, 3, 112, 112)).sum().backward()
    before = {key: buffer.clone() for key, buffer in model.named_buffers()}
    model(torch.rand(2, 3, 112, 112))
    assert not any(torch.equal(buffer, before[key]) for key, buffer in model.named_buffers())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_flattened_map_gets_its_gradient_as_it_lies_in_memory(layout):
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=layout).requires_grad_()
    weights = torch.randn(2, 60)
    flat = flatten_map(x)
    assert torch.equal(flat, torch.flatten(x, 1))
    (gradient,) = torch.autograd.grad((flat * weights).sum(), x)
    assert torch.equal(gradient, weights.view(2, 3, 4, 5))
    assert gradient.is_contiguous(memory_format=layout)

import os

import pytest
import safetensors.torch
import torch

from arcdist.backbones import create_backbone
from arcdist.backbones.weights import load_backbone_weights, read_weights
from arcdist.errors import DataError


@pytest.fixture
def trained():
    return create_backbone("small_thin", embedding_dim=16)


def loaded_from(path):
    model = create_backbone("small_thin", embedding_dim=16)
    load_backbone_weights(path, model)
    return model.state_dict()


def save_torch(state, path):
    torch.save(state, path)


def save_torch_before_zip(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("filename", "save"),
    [
        ("backbone.pt", save_torch),
        ("backbone.pth", save_torch_before_zip),
        ("backbone.safetensors", safetensors.torch.save_file),
    ],
)
def test_state_dict_is_read_from_each_kind_of_file(trained, tmp_path, filename, save):
    save(trained.state_dict(), tmp_path / filename)
    torch.testing.assert_close(loaded_from(tmp_path / filename), trained.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "net."])
def test_prefixes_of_wrappers_are_taken_off(trained, tmp_path, prefix):
    torch.save({prefix + key: tensor for key, tensor in trained.state_dict().items()}, tmp_path / "w.pt")
    assert list(read_weights(tmp_path / "w.pt")) == list(trained.state_dict())


def test_backbone_is_found_in_a_training_checkpoint_of_arcface_torch(trained, tmp_path):
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    checkpoint = {
        "epoch": 3,
        "global_step": 1000,
        "state_dict_backbone": trained.state_dict(),
        "state_dict_softmax_fc": {"weight": torch.zeros(5, 16)},
        "state_optimizer": optimizer.state_dict(),
    }
    torch.save(checkpoint, tmp_path / "checkpoint_gpu_0.pt")
    torch.testing.assert_close(loaded_from(tmp_path / "checkpoint_gpu_0.pt"), trained.state_dict(), rtol=0, atol=0)


def test_half_precision_weights_become_float32(trained, tmp_path):
    torch.save(trained.half().state_dict(), tmp_path / "w.pt")
    state = loaded_from(tmp_path / "w.pt")
    assert state["fc.weight"].dtype == torch.float32
    assert torch.equal(state["fc.weight"], trained.state_dict()["fc.weight"].float())


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickle_with_code_is_refused_and_not_run(tmp_path):
    torch.save({"conv1.weight": RunsCode(str(tmp_path / "ran"))}, tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"w\.pt: refused"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("filename", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(range(256)) * 9])
def test_other_files_are_refused(tmp_path, filename, content):
    (tmp_path / filename).write_bytes(content)
    with pytest.raises(DataError, match=filename):
        read_weights(tmp_path / filename)


@pytest.mark.parametrize("save", [save_torch, save_torch_before_zip])
def test_cut_files_are_refused(trained, tmp_path, save):
    path = tmp_path / "w.pt"
    save(trained.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="damaged"):
        read_weights(path)


@pytest.mark.parametrize("filename", ["absent.pt", "absent.safetensors"])
def test_absent_file_is_named(tmp_path, filename):
    with pytest.raises(DataError, match=rf"{filename}: No such file"):
        read_weights(tmp_path / filename)


def test_file_of_other_things_is_refused_with_the_entry(tmp_path):
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"entry 'epoch' is of type int, not a tensor; .*state_dict_backbone"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "looks_like"),
    [
        *[(name, name) for name in ("r18", "r34", "r100", "r200", "mbf", "mbf_large", "vit_t", "vit_s", "vit_b")],
        ("vit_l_dp005_mask_005", "vit_l_dp005_mask_005"),
        ("vit_h", "vit_h"),
        ("small", "small"),
        ("tiny", "tiny"),
        ("small_thin", "an iResNet with a stem of 16 channels"),
    ],
)
def test_weights_of_another_backbone_are_refused_with_its_name(tmp_path, name, looks_like):
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in create_backbone(name, 64).state_dict().items()}
        model = create_backbone("r50")
    torch.save({key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}, tmp_path / "w.pt")
    with pytest.raises(DataError, match=f"they look like {looks_like}.* with embedding_dim=64"):
        load_backbone_weights(tmp_path / "w.pt", model)


@pytest.mark.parametrize(
    "keys",
    [
        ("conv1.weight", "layer1.0.conv1.weight", "fc.weight"),
        ("conv1.weight", "conv2.weight", "layer3.0.conv1.weight", "fc.weight"),
        ("layers.0.layers.0.weight", "features.layers.2.weight"),
        ("pos_embed", "feature.2.weight"),
    ],
)
def test_scalars_in_the_place_of_weights_are_refused(trained, tmp_path, keys):
    torch.save(dict.fromkeys(keys, torch.ones(())), tmp_path / "w.pt")
    with pytest.raises(DataError, match="they resemble no backbone"):
        load_backbone_weights(tmp_path / "w.pt", trained)


def test_fault_lists_the_first_keys_of_each_kind(trained, tmp_path):
    state = trained.state_dict()
    del state["bn1.weight"]
    state["fc.bias"] = torch.zeros(17)
    state |= {f"extra{i}": torch.zeros(1) for i in range(4)}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(DataError) as caught:
        loaded_from(tmp_path / "w.pt")
    assert "1 missing: bn1.weight; " in str(caught.value)
    assert "4 unknown here: extra0, extra1, extra2, …; " in str(caught.value)
    assert "1 of another shape: fc.bias [17] instead of [16]; " in str(caught.value)


def test_model_is_untouched_by_weights_that_do_not_fit(trained, tmp_path):
    state = {key: tensor.clone() for key, tensor in trained.state_dict().items()}
    other = create_backbone("small_thin", embedding_dim=17).state_dict()
    torch.save(other, tmp_path / "w.pt")
    with pytest.raises(DataError):
        load_backbone_weights(tmp_path / "w.pt", trained)
    torch.testing.assert_close(trained.state_dict(), state, rtol=0, atol=0)


def test_layout_of_face_evolve_is_recognised(trained, tmp_path):
    torch.save({"input_layer.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"face\.evoLVe"):
        load_backbone_weights(tmp_path / "w.pt", trained)

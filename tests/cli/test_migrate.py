"""arcface_torch's files of configuration as commands that train what they say; and nothing of a file is run."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from arcdist.cli.arcface_config import BASE
from arcdist.cli.arcface_keys import _TAKEN, IDLE
from arcdist.cli.compose import compose_config
from arcdist.cli.main import main
from arcdist.cli.migrate import migrated
from arcdist.margins import AdaFaceConfig
from arcdist.train.config import differences

HEADER = """from easydict import EasyDict as edict

# make training faster
# our RAM is 256G
# mount -t tmpfs -o size=140G  tmpfs /train_tmp

config = edict()
"""
SETS = '["lfw", "cfp_fp", "agedb_30"]'
ARCFACE, COSFACE = "(1.0, 0.5, 0.0)", "(1.0, 0.0, 0.4)"
MS1MV2 = {"rec": '"/train_tmp/faces_emore"', "num_classes": 85742, "num_image": 5822653, "num_epoch": 20}
MS1MV3 = {"rec": '"/train_tmp/ms1m-retinaface-t1"', "num_classes": 93431, "num_image": 5179510, "num_epoch": 20}
GLINT = {"rec": '"/train_tmp/glint360k"', "num_classes": 360232, "num_image": 17091657, "num_epoch": 20}
WF4M = {"rec": '"/train_tmp/WebFace4M"', "num_classes": 205990, "num_image": 4235242, "num_epoch": 20}
WF12M = {"rec": '"/train_tmp/WebFace12M"', "num_classes": 617970, "num_image": 12720066, "num_epoch": 20}
WF42M = {"rec": '"/train_tmp/WebFace42M"', "num_classes": 2059906, "num_image": 42474557, "num_epoch": 20}
TENTH = "config.num_epoch // 10"
PFC = {"momentum": 0.9, "sample_rate": 0.2}
VIT = {
    "sample_rate": 0.3,
    "weight_decay": 0.1,
    "optimizer": '"adamw"',
    "lr": 0.001,
    "num_epoch": 40,
    "warmup_epoch": TENTH,
}

# by the recipe that trains the same: network, margin_list, GPUs, data, and what is particular to the file
THEIRS: dict[str, tuple[str, str, int, dict[str, Any], dict[str, Any]]] = {
    "ms1mv2_mbf": ("mbf", ARCFACE, 8, MS1MV2, {"num_epoch": 40, "weight_decay": "1e-4"}),
    "ms1mv2_r50_arcface_torch": ("r50", ARCFACE, 8, MS1MV2, {}),
    "ms1mv2_r100_arcface_torch": ("r100", ARCFACE, 8, MS1MV2, {}),
    "ms1mv3_mbf": ("mbf", ARCFACE, 8, MS1MV3, {"num_epoch": 40, "weight_decay": "1e-4"}),
    "ms1mv3_r50": ("r50", ARCFACE, 8, MS1MV3, {}),
    "ms1mv3_r100": ("r100", ARCFACE, 8, MS1MV3, {}),
    "ms1mv3_r50_onegpu": ("r50", ARCFACE, 1, MS1MV3, {"lr": 0.02}),
    "glint360k_mbf": ("mbf", COSFACE, 8, GLINT, {"weight_decay": "1e-4"}),
    "glint360k_r50": ("r50", COSFACE, 8, GLINT, {"weight_decay": "1e-4"}),
    "glint360k_r100": ("r100", COSFACE, 8, GLINT, {"weight_decay": "1e-4"}),
    "webface4m_mbf": ("mbf", COSFACE, 8, WF4M, {"weight_decay": "1e-4"}),
    "webface4m_r50": ("r50", COSFACE, 8, WF4M, {}),
    "webface4m_r100": ("r100", COSFACE, 8, WF4M, {}),
    "webface12m_mbf": ("mbf", COSFACE, 8, WF12M, {"weight_decay": "1e-4"}),
    "webface12m_r50": ("r50", COSFACE, 8, WF12M, {}),
    "webface12m_r100": ("r100", COSFACE, 8, WF12M, {}),
    "webface12m_pfc02_r100": ("r100", COSFACE, 8, WF12M, PFC),
    "webface42m_pfc02_r100": ("r100", COSFACE, 8, WF42M, PFC),
    "webface42m_pfc02_r100_16gpus": (
        "r100",
        COSFACE,
        16,
        WF42M,
        PFC | {"batch_size": 256, "lr": 0.3, "warmup_epoch": 1},
    ),
    "webface42m_pfc02_r50": ("r50", COSFACE, 8, WF42M, PFC | {"batch_size": 512, "lr": 0.4, "warmup_epoch": 2}),
    "webface42m_pfc03_vit_t": ("vit_t_dp005_mask0", COSFACE, 8, WF42M, VIT | {"batch_size": 512}),
    "webface42m_pfc03_vit_s": ("vit_s_dp005_mask_0", COSFACE, 64, WF42M, VIT | {"batch_size": 384}),
    "webface42m_pfc03_vit_b": ("vit_b_dp005_mask_005", COSFACE, 64, WF42M, VIT | {"batch_size": 384}),
    "webface42m_pfc03_vit_l": ("vit_l_dp005_mask_005", COSFACE, 64, WF42M, VIT | {"batch_size": 384}),
}
# what a file says and a recipe leaves to whoever runs it
OWN = {
    *("data.path", "data.loader.kind", "data.loader.workers", "evaluate.sets", "train.precision", "train.log_every"),
    *("seed", "name", "folder"),
}


def _file(path: Path, **settings: Any) -> Path:
    path.write_text(HEADER + "".join(f"config.{key} = {value}\n" for key, value in settings.items()))
    return path


def _theirs(folder: Path, name: str) -> Path:
    network, margin, _, data, own = THEIRS[name]
    common = {"margin_list": margin, "network": f'"{network}"', "resume": False, "output": None, "embedding_size": 512}
    common |= {"sample_rate": 1.0, "fp16": True, "momentum": 0.9, "weight_decay": "5e-4", "batch_size": 128, "lr": 0.1}
    common |= {"verbose": 2000, "dali": False, **data, "warmup_epoch": 0, "val_targets": SETS}
    return _file(folder / f"{name}.py", **common | own)


def _migrate(capsys: pytest.CaptureFixture[str], path: Path, gpus: int = 8) -> tuple[list[str], str]:
    """Return the overrides of the printed command, and all that was printed."""
    assert main(["migrate", str(path), f"gpus={gpus}"]) == 0
    said = capsys.readouterr().out
    words = shlex.split(said.replace("\\\n", ""), comments=True)
    return words[words.index("train") + 1 :], said


def _refused(capsys: pytest.CaptureFixture[str], path: Path) -> str:
    assert main(["migrate", str(path)]) != 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    return captured.err


@pytest.mark.parametrize("name", THEIRS)
def test_a_file_of_theirs_trains_what_its_recipe_does(name: str, tmp_path: Path) -> None:
    overrides, keys = migrated(_theirs(tmp_path, name), THEIRS[name][2])
    ours, theirs = compose_config([f"recipe={name}"]), compose_config(overrides)
    theirs.validate()
    assert set(differences(ours.as_dict(), theirs.as_dict())) <= OWN
    folder = THEIRS[name][3]["rec"].strip('"')
    assert theirs.data.path == f"{folder}/train.rec"
    assert theirs.evaluate.sets == [f"{folder}/{one}.bin" for one in ("lfw", "cfp_fp", "agedb_30")]
    assert (theirs.train.precision, theirs.data.loader.kind, theirs.data.loader.workers) == ("fp16", "torch", 2)
    assert (theirs.train.log_every, theirs.seed, theirs.name) == (10, 2048, name)
    assert all(key.overrides or key.remark for key in keys if key.setting.line)


def test_the_printed_command_composes_and_its_report_is_a_comment(tmp_path: Path, capsys) -> None:
    path = _theirs(tmp_path, "ms1mv3_r50_onegpu")
    path.write_text(path.read_text().replace("/train_tmp/", "/train tmp/it's 100%, {a: b}/"))
    overrides, said = _migrate(capsys, path, gpus=1)
    assert said.startswith("arcdist train \\\n")
    train = [sys.executable, "-m", "arcdist", "train", *overrides, "--cfg", "job"]
    job = subprocess.run(train, capture_output=True, text=True, timeout=120, check=True)
    composed = yaml.safe_load(job.stdout)
    assert composed["data"]["path"] == "/train tmp/it's 100%, {a: b}/ms1m-retinaface-t1/train.rec"
    assert composed["train"]["global_batch_size"] == 128
    assert composed["optim"]["lr"] == 0.02


NEEDED = MS1MV3 | {"warmup_epoch": 0, "val_targets": "[]"}


TOGETHER = {  # what does not touch one another, in one file
    **{"fp16": False, "gradient_acc": 4, "interclass_filtering_threshold": 0.4, "sample_rate": 0, "num_workers": 0},
    **{"seed": 0, "verbose": 500, "frequent": 7, "warmup_epoch": -1, "dali": True, "dali_aug": True, "output": '"o/x"'},
}
EXPECTED = {
    **{"train.precision": "fp32", "train.global_batch_size": 4096, "train.micro_batch_size": 128, "seed": 0},
    **{"margin.interclass_filter": 0.4, "head.sample_rate": 1e-9, "data.loader.workers": 1, "train.log_every": 7},
    **{"evaluate.every": 500, "optim.schedule.warmup_epochs": 0.0, "data.loader.kind": "dali", "resume": "auto"},
    **{"data.augment.blur": 0.2, "folder": "o/x", "margin.gradient": "straight_through", "margin.scale": 64.0},
}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (TOGETHER, EXPECTED),
        ({"margin_list": "(1.0, 0.3, 0.2)"}, {"margin.m1": 1.0, "margin.m2": 0.0, "margin.m3": 0.2}),
        ({"margin_list": "(1.35, 0.0, 0.0)"}, {"margin.m1": 1.35, "margin.m2": 0.0, "margin.m3": 0.0}),
        ({"dali": False, "dali_aug": True}, {"data.loader.kind": "torch", "data.augment.blur": 0.0}),
        ({"output": '"o/x"', "resume": True}, {"folder": "runs/c", "resume": "o/x"}),
        ({"output": None, "resume": True}, {"resume": "work_dirs/c"}),
        ({"optimizer": '"adamw"', "lr": "1e-3"}, {"optim.name": "adamw", "optim.lr": 0.001, "optim.decay_all": True}),
    ],
)
def test_a_value_lands_where_it_should(settings, expected, tmp_path: Path) -> None:
    overrides, _ = migrated(_file(tmp_path / "c.py", **NEEDED | settings), 8)
    assert expected.items() <= _flat(compose_config(overrides).as_dict()).items()


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in tree.items():
        values |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return values


@pytest.mark.parametrize(
    "drops",
    [
        "config.decay_epoch = [10, 16, 21]\n",
        "\ndef lr_step_func(epoch):\n"
        "    return ((epoch + 1) / (4 + 1)) ** 2 if epoch < config.warmup_epoch else 0.1 ** len(\n"
        "        [m for m in [11, 17, 22] if m - 1 <= epoch])\nconfig.lr_func = lr_step_func\n",
    ],
)
def test_a_file_of_before_2022_drops_its_learning_rate_in_steps_and_scales_it_for_its_batch(
    drops: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _file(tmp_path / "old.py", loss='"cosface"', network='"r18"', **NEEDED | {"warmup_epoch": -1})
    path.write_text(path.read_text() + drops)
    config = compose_config(_migrate(capsys, path)[0])
    assert (config.optim.schedule.name, config.optim.schedule.milestones) == ("step", [10, 16, 21])
    assert config.optim.lr == pytest.approx(0.1 * 128 * 8 / 512)
    assert (config.margin.m2, config.margin.m3, config.margin.gradient) == (0.0, 0.4, "exact")  # ty: ignore[unresolved-attribute]


def test_adaface_is_taken_with_its_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {"margin_list": ARCFACE, "loss": '"adaface"', "adaface_m": 0.3, "adaface_h": 0.25, "adaface_t_alpha": 0.05}
    config = compose_config(_migrate(capsys, _file(tmp_path / "c.py", **NEEDED | own))[0])
    assert isinstance(config.margin, AdaFaceConfig)
    assert (config.margin.m, config.margin.h, config.margin.momentum) == (0.3, 0.25, 0.95)
    assert (config.train.clip_norm, config.optim.decay_all, config.optim.schedule.power) == (5.0, True, 2.0)


def test_a_tracker_is_taken_along_without_its_key(tmp_path: Path) -> None:
    own = {"using_wandb": True, "wandb_project": '"faces 1"', "wandb_entity": '"us"', "wandb_key": '"s3cret"'}
    overrides, keys = migrated(_file(tmp_path / "c.py", **NEEDED | own), 8)
    config = compose_config(overrides)
    assert (config.log.trackers, config.log.project) == (["wandb"], "faces 1")
    assert not any(key.overrides for key in keys if key.key in ("wandb_entity", "wandb_key"))
    unused, _ = migrated(_file(tmp_path / "c.py", **NEEDED | own | {"using_wandb": False}), 8)
    assert not [one for one in unused if one.startswith("log.")]


def test_every_key_of_their_base_is_spoken_of_and_an_unknown_one_is_reported_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(BASE) <= {*_TAKEN, *IDLE}
    keys = BASE | {"margin_list": ARCFACE, "network": '"r50"', "output": None, "optimizer": '"sgd"'} | NEEDED
    path = _file(tmp_path / "c.py", **keys | {"wandb_key": '"s3cret"', "dpap_prob": 0.2})
    assert main(["migrate", str(path), "--json", str(tmp_path / "out.json")]) == 0
    said = capsys.readouterr().out
    told = json.loads((tmp_path / "out.json").read_text())
    assert {key["key"] for key in told["keys"]} == {*keys, "wandb_key", "dpap_prob"}
    assert [key["key"] for key in told["keys"] if key["state"] == "unknown"] == ["dpap_prob"]
    assert "not known: look after it:\n#   dpap_prob = 0.2" in said
    assert told["keys"][-1]["line"] == len(path.read_text().splitlines())
    assert compose_config(told["overrides"]).data.num_classes == 93431
    assert "s3cret" not in said + (tmp_path / "out.json").read_text()


def test_nothing_of_a_file_is_run_and_what_only_running_it_would_tell_is_named_by_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = tmp_path / "canary"
    path = _file(tmp_path / "c.py", lr=f'__import__("os").mkdir({str(canary)!r})', **NEEDED)
    path.write_text(path.read_text() + f"\nimport os\nos.mkdir({str(canary)!r})\nif True:\n    config.seed = 1\n")
    said = _refused(capsys, path)
    assert not canary.exists()
    first = len(HEADER.splitlines()) + 1
    assert f"line {first}: __import__('os').mkdir" in said
    assert all(f"line {line}: " in said for line in (first + 9, first + 10))
    assert "nothing is executed; write the value in its place" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "sets no config.KEY = VALUE, so it is no configuration of arcface_torch"),
        ("config = edict()\n", "sets no config.KEY = VALUE"),
        ("config.lr = = 3\n", "line 1: is no Python"),
        ("config.lr = 10 ** 10 ** 10\n", "line 1: 10 ** 10: not a literal"),
        ("config.lr = 'a' * 10000000000\n", "line 1: 'a': not a literal"),
        ("config.lr = 99999999999999999999\n", "line 1: 99999999999999999999: not a literal"),
        ("config.lr = 1 / 0\n", "line 1: 1 / 0: not a literal"),
        ("config.lr = " + "-" * 5000 + "1\n", "nested too deep"),
        ("config.lr = \0\n", "is no Python"),
        ("config.lr = 0.1\n", "config.rec, config.num_classes, config.num_image, config.num_epoch: not set"),
    ],
)
def test_a_file_that_is_no_configuration_of_theirs_is_refused(text: str, message: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "c.py").write_text(text)
    assert message in _refused(capsys, tmp_path / "c.py")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("network", '"r2060"', "config.network = 'r2060' (line 14): is no backbone here; known: "),
        ("margin_list", "(1.0, 0.5)", "must be three numbers"),
        ("lr", '"0.1"', "config.lr = '0.1' (line 14): must be a number"),
        ("batch_size", 0, "must be a whole number above 0"),
        ("fp16", '"yes"', "must be True or False"),
        ("optimizer", '"lion"', "must be sgd or adamw"),
        ("output", '"${oc.env:HOME}"', "must be text, and without ${"),
        ("output", '"a\\nb"', "must be text"),
        ("sample_rate", 2, "head.sample_rate: 2.0: must be in (0, 1]"),
    ],
)
def test_a_value_that_cannot_be_is_named(key: str, value: Any, message: str, tmp_path: Path, capsys) -> None:
    assert message in _refused(capsys, _file(tmp_path / "c.py", **NEEDED | {key: value}))


def test_their_test_of_speed_names_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "arcdist bench head" in _refused(capsys, _file(tmp_path / "c.py", **NEEDED | {"rec": '"synthetic"'}))


def test_a_folder_of_images_is_taken_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "faces/somebody").mkdir(parents=True)
    path = _file(tmp_path / "c.py", **NEEDED | {"rec": repr(str(tmp_path / "faces/"))})
    assert compose_config(_migrate(capsys, path)[0]).data.path == str(tmp_path / "faces")

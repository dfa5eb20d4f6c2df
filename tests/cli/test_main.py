"""The front door: what is asked for, and what is refused, as a user sees it."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from arcdist.cli.compose import compose_config
from arcdist.cli.keys import keys_of
from arcdist.cli.main import VERBS, main
from arcdist.data.synthetic import SyntheticConfig, encode, write_record
from arcdist.margins import AdaFaceConfig, CombinedConfig
from arcdist.train.config import TrainConfig

ROOT = Path(__file__).parent.parent.parent
TINY = ["backbone.embedding_dim=16", "train.global_batch_size=8", "train.steps=2", "evaluate.sets=[]"]


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Return what was printed by a command that had to fail with ``code``."""
    try:
        answer = main(arguments)
    except SystemExit as left:
        answer = left.code
    assert answer == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1
    return said


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_names_every_key_with_its_meaning(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"] if verb else ["--help"]) == 0
    assert "usage: arcdist" in capsys.readouterr().out


def test_every_key_of_a_run_has_a_meaning() -> None:
    silent = [key.name for key in keys_of(TrainConfig) if not key.help]
    assert not silent, f"no help for {silent}"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("head.sampel_rate=0.5", "head.sampel_rate: no such key; did you mean 'head.sample_rate'? (known in head:"),
        ("optm.lr=1", "optm.lr: no such key; did you mean 'optim.lr'?"),
        ("bakcbone=r50", "bakcbone: no such group; did you mean 'backbone'?"),
        ("epochs=3", "epochs: no such key; did you mean 'train.epochs'?"),
        ("backbone=r51", "backbone=r51: no such choice; did you mean 'r50'? (known: mbf"),
        ("backbone.name=r51", "backbone.name: 'r51': no such backbone; did you mean"),
        ("recipe=ms1mv9", "recipe=ms1mv9: no such choice; did you mean 'ms1mv3_r50'? (known: "),
        ("train.epochs=many", "train.epochs=many: Value 'many'"),
        ("optim.lr=-1", "optim.lr: -1.0: must be above 0"),
        ("margin.m2=28.6", "margin.m2: 28.6: must be in [0, π)"),
        ("margin.m=0.4", "margin.m: no such key; did you mean 'margin.m3'? (known in margin: gradient,"),
        ("margin.name=adaface", "margin.name: 'adaface': must be 'combined'; choose another by margin=NAME"),
        ("margin=adaace", "margin=adaace: no such choice; did you mean 'adaface'? (known: a_softmax, adacos"),
        ("train.precision=int8", "train.precision: 'int8': must be one of auto, fp32, bf16, fp16"),
        ("evaluate.sets=[a.bin", "evaluate.sets=[a.bin"),
        ("+new.key=1", "new.key: no such key"),
        ("++train.setps=9", "train.setps: no such key; did you mean 'train.steps'?"),
        ("train.steps", "'train.steps': is not key=value"),
        ("optim=null", "optim"),
        ("folder=", "name and folder: must not be empty"),
        ("train.epochs=nan", "train.epochs: nan"),
        ("train.image_sizes=[100000]", "train.image_sizes"),
    ],
)
def test_a_wrong_key_or_value_is_said_in_one_line_before_anything_starts(argument, message, capsys) -> None:
    assert message in _refused(capsys, "train", argument)


def test_a_backbone_of_one_size_is_not_trained_at_another(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["train.image_sizes=[64,112]", "train.image_sizes_until=[0.5,1]"]
    assert "r18 takes images of 112 pixels only" in _refused(capsys, "train", "backbone=r18", *sizes)


def test_epochs_that_the_steps_of_a_recipe_would_pass_over_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = _refused(capsys, "train", "recipe=casia_r50", "train.epochs=4", "data.path=train.rec")
    assert "train.epochs: 4: would change nothing, since the recipe's train.steps=32000 counts instead" in said
    assert "train.steps=32000" in _refused(capsys, "train", "-m", "recipe=casia_r50", "++train.epochs=3,4")
    four = compose_config(["recipe=casia_r50", "train.epochs=4", "train.steps=0"])
    assert four.train.total_steps(images=512_000) == 4 * 1000
    assert compose_config(["recipe=ms1mv3_r50", "train.epochs=4"]).train.steps == 0


def test_of_a_sweep_every_value_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert "margin.m2: 99.0" in _refused(capsys, "train", "-m", "margin.m2=0.3,99")


def test_an_unknown_verb_and_a_missing_argument_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "'trian' is no verb; did you mean 'train'?" in capsys.readouterr().err
    assert "no model is named" in _refused(capsys, "evaluate")
    assert "no file is named" in _refused(capsys, "inspect")
    assert "output: is not given" in _refused(capsys, "pack", "images")


def test_a_key_of_a_part_may_be_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    judge = ["inspect", "a.rec", "--with", "model.pt"]
    assert "runtime.device: 'abacus': must be" in _refused(capsys, *judge, "--runtime.device", "abacus")
    assert "did you mean 'runtime.device'" in _refused(capsys, *judge, "--runtime.devise", "cpu")


def test_a_name_with_an_unfinished_reference_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "images: ${a: no viable alternative" in _refused(capsys, "pack", "${a", "out.rec")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of three identities' images, one of them no image."""
    config = SyntheticConfig()
    for identity in range(3):
        person = tmp_path / "images" / f"person_{identity}"
        person.mkdir(parents=True)
        for image in range(2):
            (person / f"person_{identity}_{image + 1:04d}.jpg").write_bytes(encode(config, identity, image))
    (tmp_path / "images" / "person_2" / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_is_packed_inspected_and_left_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rec = folder / "out.rec"
    assert main(["pack", str(folder / "images"), str(rec), "--json", str(folder / "pack.json")]) == 0
    report = json.loads((folder / "pack.json").read_text())
    assert (report["identities"], report["images"], len(report["skipped"])) == (3, 6, 1)
    arguments = ["inspect", str(rec), "--verify", "--json", str(folder / "i.json"), "--sheet", str(folder / "s.png")]
    assert main(arguments) == 0
    found = json.loads((folder / "i.json").read_text())
    assert (found["images"], found["classes"], found["faults"]) == (6, 3, [])
    assert (folder / "s.png").read_bytes().startswith(b"\x89PNG")
    assert "6 images of 3 identities" in capsys.readouterr().out


def test_pairs_make_a_set_and_leave_their_people_out_of_training(folder: Path) -> None:
    pairs = folder / "pairs.txt"
    pairs.write_text("1\t1\nperson_0\t1\t2\nperson_0\t1\tperson_1\t2\n")
    assert main(["pack", str(folder / "images"), str(folder / "o.bin"), f"pairs={pairs}"]) == 0
    assert main(["inspect", str(folder / "o.bin"), "--json", str(folder / "i.json")]) == 0
    found = json.loads((folder / "i.json").read_text())
    assert (found["pairs"], found["genuine"]) == (2, 1)
    out = str(folder / "rest.rec")
    assert main(["pack", str(folder / "images"), out, f"exclude={pairs}", "--json", str(folder / "p.json")]) == 0
    assert json.loads((folder / "p.json").read_text())["identities"] == 1


def test_a_short_run_is_evaluated_from_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic = ["data.synthetic.identities=4", "data.synthetic.images_per_identity=4", "data.held_out_pairs=20"]
    paths = [f"data.path={tmp_path}/train.rec", f"data.held_out={tmp_path}/held.bin", f"folder={tmp_path}/run"]
    assert main(["train", *TINY, *synthetic, *paths]) == 0
    assert json.loads((tmp_path / "run/summary.json").read_text())["steps"] == 2
    answer = tmp_path / "answer.json"
    arguments = ["evaluate", f"{tmp_path}/run", f"sets=[{tmp_path}/held.bin]", "--json", str(answer)]
    assert main([*arguments, f"pictures={tmp_path}/pictures", "hardest=3"]) == 0
    assert json.loads(answer.read_text())["sets"]["held"]["pairs"] == 20
    pictures = {"angles", "roc", "det", "held_hardest_genuine", "held_hardest_impostor"}
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == pictures
    assert "held" in capsys.readouterr().out


def test_embeddings_of_a_real_network_give_the_known_numbers(data_root: Path, tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    assert main(["evaluate", str(data_root / "sface_dev_embeddings.npz"), "--json", str(answer)]) == 0
    result = json.loads(answer.read_text())["sets"]["sface_dev_embeddings"]
    assert round(result["accuracy"], 6) == 0.998667
    assert round(result["std"], 6) == 0.002667
    assert round(result["eer"], 6) == 0.001333


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "none.rec"], "none.rec"),
        (["evaluate", "none.pt", "sets=[none.bin]"], "none.bin"),
        (["pack", "none", "out.rec"], "none: is no folder"),
        (["train", "data=recordio", "data.path=none.rec", "folder=run"], "none.rec"),
    ],
)
def test_a_missing_file_is_said_in_one_line(arguments, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in _refused(capsys, *arguments, code=1)


def test_the_resolved_configuration_is_printed_and_nothing_is_run(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--cfg", "job", "recipe=demo"]) == 0
    assert re.search(r"^name: demo$", capsys.readouterr().out, re.MULTILINE)
    assert not list(tmp_path.iterdir())


def test_a_recipe_gives_way_to_the_command_line() -> None:
    config = compose_config(["recipe=demo", "margin.m2=0.1", "backbone=r18"])
    assert isinstance(config.margin, CombinedConfig)
    assert (config.margin.m2, config.backbone.name, config.margin.scale) == (0.1, "r18", 24.0)


def test_a_margin_brings_its_own_keys_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert compose_config(["margin=adaface", "margin.h=0.5"]).margin == AdaFaceConfig(h=0.5)
    for key in ("margin.m2=0.1", "+margin.m2=0.1"):
        said = _refused(capsys, "train", "margin=adaface", key)
        assert "margin.m2: no such key; did you mean 'margin.m'? (known in margin: h, interclass_filter" in said
    said = _refused(capsys, "train", "margin=adaface", "recipe=small_real_reference")
    assert "margin.m2: set by recipe/small_real_reference, but the chosen margin has no such key" in said


@pytest.mark.torchrun
def test_a_sweep_gives_each_job_a_folder(tmp_path: Path) -> None:
    write_record(SyntheticConfig(identities=4, images_per_identity=4), tmp_path / "train.rec", workers=1)
    command = [sys.executable, "-m", "arcdist", "train", "-m", "data=recordio", f"data.path={tmp_path}/train.rec"]
    subprocess.run([*command, *TINY, f"folder={tmp_path}/run", "margin.m2=0.1,0.2"], check=True, cwd=tmp_path)
    assert len(list(tmp_path.glob("run/*margin.m2=0.[12]*/summary.json"))) == 2


def _torchrun(ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    return subprocess.run(
        [*torchrun, str(ROOT / "launch/train.py"), *arguments], env=environment, capture_output=True, text=True
    )


@pytest.mark.torchrun
def test_torchrun_trains_on_two_ranks(tmp_path: Path) -> None:
    write_record(SyntheticConfig(identities=4, images_per_identity=4), tmp_path / "train.rec", workers=1)
    done = _torchrun(2, "data=recordio", f"data.path={tmp_path}/train.rec", f"folder={tmp_path}/run", *TINY)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/summary.json").read_text())["world_size"] == 2


@pytest.mark.torchrun
def test_a_bad_image_of_one_ranks_share_stops_both_with_one_message(tmp_path: Path) -> None:
    write_record(SyntheticConfig(identities=4, images_per_identity=4), tmp_path / "train.rec", workers=1)
    content = bytearray((tmp_path / "train.rec").read_bytes())
    start = content.index(b"\xff\xd8\xff", len(content) // 2)
    content[start : start + 3] = b"\0\0\0"
    (tmp_path / "train.rec").write_bytes(content)
    done = _torchrun(2, "data=recordio", f"data.path={tmp_path}/train.rec", f"folder={tmp_path}/run", *TINY)
    assert done.returncode != 0
    ours = [line for line in done.stderr.splitlines() if line.startswith("arcdist train:")]
    faults = [line for line in ours if "DataError" in line]
    assert len(faults) == 1, done.stderr
    assert re.search(r"train\.rec record \d+", faults[0])


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        environment = {**os.environ, **address, "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
        command = [sys.executable, "-m", "arcdist", "train", "runtime.timeout_s=5", f"folder={tmp_path}/run"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "is another run using this port?" in done.stderr


@pytest.mark.parametrize("flag", [["--config-dir"], ["-cd"], ["--config-dir="]])
def test_recipes_of_a_folder_of_ones_own_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: list[str]
) -> None:
    folder = tmp_path / "my recipes"
    (folder / "recipe").mkdir(parents=True)
    (folder / "recipe/mine.yaml").write_text("# @package _global_\nname: ours\n")
    given = [f"{flag[0]}{folder}"] if flag[0].endswith("=") else [*flag, str(folder)]
    assert main(["train", *given, "recipe=mine", "--cfg", "job"]) == 0
    assert "\nname: ours\n" in capsys.readouterr().out
    assert main(["train", *given[:-1], f"{given[-1]}/none", "recipe=mine"]) == 2
    assert "needs a folder, of recipe/NAME.yaml" in capsys.readouterr().err
    assert main(["train", "--config-dir"]) == 2

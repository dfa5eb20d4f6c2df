"""SECURITY.md, promise by promise: what is not shown by the tests of a room."""

import ast
import re
from pathlib import Path

import pytest
from small_runs import small_config, small_trainer

from arcdist.cli.compose import check_overrides, compose_config
from arcdist.cli.main import main
from arcdist.errors import ConfigError
from arcdist.train.config import TrainConfig

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "arcdist").rglob("*.py"), *(ROOT / "launch").rglob("*.py")])
RUNS_WHAT_IT_READS = re.compile(
    r"eval|exec|compile|__import__|(pickle|marshal|shelve|dill|cloudpickle|joblib)\.\w+|pickle\.Unpickler"
    r"|yaml\.(load|load_all|unsafe_load\w*|full_load\w*)|(hydra\.utils\.)?(instantiate|get_class|get_method|get_object)"
    r"|os\.(system|popen|exec\w*|spawn\w*)|torch\.hub\.\w+|runpy\.\w+|importlib\.import_module"
)
ALLOWED = {  # a call that is safe, and why
    ("arcdist/data/evalsets.py", "pickle.dumps"): "writes",
    ("arcdist/bench/fuzz_damage.py", "pickle.dumps"): "writes",
    ("arcdist/checkpoint/metadata.py", "pickle.UnpicklingError"): "an exception",
    ("arcdist/cli/main.py", "importlib.import_module"): "of a verb, which is in VERBS",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_runs_what_it_reads_is_called(path: Path) -> None:
    where = str(path.relative_to(ROOT))
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        bad = RUNS_WHAT_IT_READS.fullmatch(called) and (where, called) not in ALLOWED
        assert not bad, f"{where}:{node.lineno}: {called} runs what it is given"
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called == "torch.load":
            assert given.get("weights_only") == "True", f"{where}:{node.lineno}: torch.load needs weights_only=True"
        assert given.get("allow_pickle", "False") == "False", f"{where}:{node.lineno}: {called} would unpickle"
        assert given.get("shell", "False") == "False", f"{where}:{node.lineno}: {called} by a shell"


def _recipe(folder: Path, content: str) -> list[str]:
    """Return the overrides that choose a stranger's recipe."""
    (folder / "recipe").mkdir()
    (folder / "recipe" / "theirs.yaml").write_text(f"# @package _global_\n{content}\n")
    return [f"hydra.searchpath=[file://{folder}]", "recipe=theirs"]


def test_a_recipe_from_elsewhere_is_composed(tmp_path: Path) -> None:
    assert compose_config(_recipe(tmp_path, "name: theirs")).name == "theirs"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: !!python/object/apply:os.mkdir [{ran}]", "could not determine a constructor"),
        ("backbone: {{_target_: os.mkdir, path: {ran}}}", "_target_"),
        ("hydra: {{callbacks: {{a: {{_target_: os.mkdir, path: {ran}}}}}}}", "hydra.callbacks"),
        ("hydra: {{launcher: {{_target_: os.mkdir}}}}", "hydra.launcher._target_: 'os.mkdir'"),
        ("hydra: {{sweeper: {{_target_: os.mkdir}}}}", "hydra.sweeper._target_: 'os.mkdir'"),
        (
            "hydra: {{job_logging: {{handlers: {{a: {{'()': os.mkdir, path: {ran}}}}}}}}}",
            "hydra.job_logging.handlers.a.()",
        ),
        (
            "hydra: {{hydra_logging: {{handlers: {{a: {{class: os.mkdir, path: {ran}}}}}}}}}",
            "handlers.a.class: 'os.mkdir'",
        ),
        ("backbone: {{name: os.mkdir}}", "backbone.name: 'os.mkdir': no such backbone"),
    ],
)
def test_a_configuration_cannot_name_code(tmp_path: Path, content: str, message: str) -> None:
    ran = tmp_path / "ran"
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_overrides(_recipe(tmp_path, content.format(ran=ran)))
    assert not ran.exists()


def test_another_primary_configuration_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("hydra: {callbacks: {a: {_target_: os.mkdir}}}\n")
    assert main(["train", f"--config-dir={tmp_path}", "--config-name=evil"]) == 2
    assert "a run is composed over arcdist's own train.yaml" in capsys.readouterr().err


def _do(config: TrainConfig) -> None:
    small_trainer(config).run()


def test_no_secret_of_the_environment_is_in_anything_that_a_run_leaves(
    tmp_path: Path, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "canary-7f3a")
    _do(small_config(tmp_path / "run", faces / "train.rec"))
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {"config.yaml", "summary.json", "COMPLETE.json", ".metadata"} <= {path.name for path in files}
    for path in files:
        assert b"canary-7f3a" not in path.read_bytes(), path


def test_every_test_that_a_page_names_exists() -> None:
    for page in ("SECURITY.md", "docs/reliability.md"):
        for path, names in re.findall(r"(tests/[\w/]+\.py): ((?:`test_\w+`(?:, )?)+)", (ROOT / page).read_text()):
            source = (ROOT / path).read_text()
            for name in re.findall(r"`(test_\w+)`", names):
                assert f"def {name}(" in source, f"{page}: {path} has no {name}"

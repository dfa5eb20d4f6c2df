"""The rules of the house (CONTRIBUTING.md), read from the source itself; a failure says what to do."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    {"errors"},
    {"ops", "margins", "runtime"},
    {"data", "backbones", "heads", "optim", "checkpoint"},
    {"evaluate", "prepare", "export"},
    {"train"},
    {"bench", "reproduce"},
    {"doctor"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
DOORS = {  # a heavy friend, and the only places that may import it
    "torch.distributed": ("arcdist/runtime/", "arcdist/checkpoint/"),
    "nvidia": ("arcdist/data/dali_loader.py",),
    "triton": ("arcdist/ops/",),
    "matplotlib": ("arcdist/evaluate/plots",),
    "onnx": ("arcdist/export/", "arcdist/backbones/onnx_net.py"),
    "onnxruntime": ("arcdist/export/", "arcdist/backbones/onnx_net.py"),
    "faiss": ("arcdist/evaluate/faiss_index.py",),
    "hydra": ("arcdist/cli/",),
    "wandb": ("arcdist/train/trackers/weights_and_biases.py",),
    "mlflow": ("arcdist/train/trackers/mlflow_run.py",),
}
FILES = sorted((ROOT / "arcdist").rglob("*.py"))
MOST_LINES = 400
VAGUE = {"utils", "util", "common", "helpers", "helper", "misc", "tools", "base"}

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield every import of a file, also those inside of functions: its line and the module's full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import absolutely: from arcdist.room.file import …"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _room(path: Path) -> str:
    return path.relative_to(ROOT / "arcdist").parts[0].removesuffix(".py")


@every_file
def test_imports_go_down_the_floors_only(path: Path) -> None:
    room = _room(path)
    if room == "__init__":
        assert not [name for _, name in _imports(path)], "arcdist/__init__.py imports nothing: `import arcdist` is free"
        return
    assert room in FLOOR_OF, f"{room} is a new room: give it a floor in tests/test_house.py and CONTRIBUTING.md"
    for line, name in _imports(path):
        parts = name.split(".")
        if parts[0] != "arcdist" or len(parts) == 1 or parts[1] in (room, "__version__"):
            continue
        other = parts[1]
        assert FLOOR_OF[other] < FLOOR_OF[room], (
            f"{path.relative_to(ROOT)}:{line}: {room} (floor {FLOOR_OF[room]}) may not import {other} "
            f"(floor {FLOOR_OF[other]}); move what both need to a lower floor"
        )


@every_file
def test_heavy_friends_come_in_by_one_door(path: Path) -> None:
    where = str(path.relative_to(ROOT))
    for line, name in _imports(path):
        for friend, doors in DOORS.items():
            if name == friend or name.startswith(f"{friend}."):
                assert where.startswith(doors), f"{where}:{line}: {friend} is imported in {', '.join(doors)} only"


@every_file
def test_a_file_holds_one_concept_and_says_which(path: Path) -> None:
    where, text = path.relative_to(ROOT), path.read_text()
    assert len(text.splitlines()) <= MOST_LINES, f"{where} has over {MOST_LINES} lines, so two concepts: part them"
    assert path.stem not in VAGUE, f"{where}: a name that says nothing; name the file after what it holds"
    assert ast.get_docstring(ast.parse(text)), f"{where}: the first line says what the file holds"


@every_file
def test_every_public_thing_has_a_docstring(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has no docstring"


@every_file
def test_no_code_is_loaded_from_data(path: Path) -> None:
    """A pickle runs what it names; so does eval, and a dotted path from a file."""
    where = path.relative_to(ROOT)
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in ("eval", "exec", "pickle.load", "pickle.loads"), f"{where}:{node.lineno}: {called}"
        if called == "torch.load":
            safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
            assert safe, f"{where}:{node.lineno}: torch.load needs weights_only=True"


@every_file
def test_no_duration_is_taken_from_a_clock_that_may_jump(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        jumps = isinstance(node, ast.Call) and ast.unparse(node.func) == "time.time"
        assert not jumps, f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: take time.monotonic()"


def test_the_tests_mirror_the_rooms() -> None:
    rooms = {_room(path) for path in FILES} - {"__init__", "__main__", "errors"}
    tested = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert rooms <= tested, f"no tests for {sorted(rooms - tested)}: add tests/ROOM/"


def test_only_the_support_of_tests_says_what_their_server_imports() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path.name != "support.py" and path != Path(__file__):
            assert "set_forkserver_preload" not in path.read_text(), f"{path}: use CONTEXT of tests/support.py"


def test_nothing_committed_is_of_one_machine() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in (".png", ".jpg") or not path.is_file() or path == Path(__file__):
            continue
        found = re.search(r"/(home|root|Users)/\w|files\.pythonhosted\.org|download\.pytorch\.org", path.read_text())
        assert not found, f"{name}: names a place of one machine or a registry's host: {found and found[0]!r}"

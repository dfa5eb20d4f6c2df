"""Configurations of strangers for ``arcdist bench fuzz``: arguments of a command line, and recipes in a folder."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from arcdist.bench.fuzz_damage import damaged
from arcdist.cli.compose import check_overrides, config_folder, groups
from arcdist.cli.keys import keys_of
from arcdist.train.config import TrainConfig

_VALUES = (
    *(
        "",
        "0",
        "-1",
        "1e400",
        "nan",
        "inf",
        "null",
        "true",
        "''",
        "'x",
        "x y",
        "é",
        "\0",
        "\n",
        "0x10",
        "9" * 30,
        "-" * 99,
    ),
    *("[", "[]", "[[]]", "[null]", "[a,b]", "[1e9,-1]", "{}", "{a:1}", "{a:{b:[c]}}", "a,b", "1,2,3", "*", "?", "~"),
    *(
        "../../x",
        "/",
        "/etc/passwd",
        "/dev/zero",
        "file:///",
        "pkg://os",
        "${seed}",
        "${name}",
        "${nope}",
        "${",
        "${a:b}",
    ),
    *(
        "${oc.env:PATH}",
        "${oc.env:NOPE}",
        "${oc.decode:'{'}",
        "${hydra:run.dir}",
        "choice(a,b)",
        "range(1,4)",
        "glob(*)",
    ),
    *(
        "range(1,1e12)",
        "interval(0,1)",
        "sort(3,1)",
        "shuffle(a,b)",
        "tag(t,choice(a))",
        "int(x)",
        "str([1])",
        "extend_list(1)",
    ),
)
_LINES = (
    *("hydra: {{callbacks: {{a: {{_target_: os.mkdir, name: {0}}}}}}}", "hydra: {{launcher: {{_target_: os.mkdir}}}}"),
    *(
        "x: !!python/object/apply:os.mkdir [{0}]",
        "name: !!python/name:os.mkdir",
        "backbone: {{_target_: os.mkdir, path: {0}}}",
    ),
    *(
        "hydra: {{job_logging: {{handlers: {{a: {{'()': os.mkdir, path: {0}}}}}}}}}",
        "defaults: [theirs]",
        "defaults: {{}}",
    ),
    *(
        "a: &a [*a]",
        "a: &a [1]",
        "b: [*a, *a]",
        "<<: {{seed: 1}}",
        "? [a]",
        "- a",
        "train: 5",
        "optim: null",
        "\0",
        "\t: x",
    ),
)


class Configurations:
    """Overrides of a run, and recipes that a folder in ``hydra.searchpath`` holds."""

    shares: ClassVar[dict[str, int]] = {"overrides": 4, "recipe": 2}

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "recipe").mkdir()
        self._recipes = [path.read_bytes() for path in sorted((config_folder() / "recipe").glob("*.yaml"))]
        self._defaults = {key.name: key.default for key in keys_of(TrainConfig)}
        self._keys = [*self._defaults, *groups(), "hydra", "hydra.run.dir", "hydra.searchpath"]
        self._overrides: list[str] = []

    def damage(self, kind: str, rng: np.random.Generator, canary: Path) -> str:
        """Draw a configuration, and return what it is."""
        if kind == "overrides":
            self._overrides = [self._override(rng) for _ in range(rng.integers(1, 4))]
            return " ".join(map(repr, self._overrides))
        whole, how = self._recipes[rng.integers(len(self._recipes))], "whole"
        if rng.random() < 0.7:
            whole, how = damaged(whole, rng)
        lines = [_LINES[rng.integers(len(_LINES))].format(canary) for _ in range(rng.integers(0, 3))]
        (self.folder / "recipe/theirs.yaml").write_bytes(whole + "\n".join(["", *lines, ""]).encode())
        self._overrides = [f"hydra.searchpath=[file://{self.folder}]", "recipe=theirs"]
        return f"{how}, with {lines}"

    def read(self, kind: str) -> str:
        """Check it as ``arcdist train`` does before it does anything else; ConfigError where it is refused."""
        check_overrides(self._overrides)
        return "accepted"

    def _override(self, rng: np.random.Generator) -> str:
        key = self._keys[rng.integers(len(self._keys))]
        if rng.random() < 0.2:
            key = damaged(key.encode(), rng)[0].decode(errors="replace")
        sign = ("", "", "", "+", "++", "~")[rng.integers(6)]
        value = self._defaults.get(key) if rng.random() < 0.3 else None
        return f"{sign}{key}={_VALUES[rng.integers(len(_VALUES))] if value is None else value}"

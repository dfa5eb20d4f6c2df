"""The settings of a file of arcface_torch, each looked at for its type when it is asked for."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arcdist.cli.arcface_config import Setting
from arcdist.errors import ConfigError


def is_text(value: Any) -> bool:
    """Return whether a value is text that means itself: `${…}` would be looked up, and a line's end ends a comment."""
    return isinstance(value, str) and value.isprintable() and bool(value) and "${" not in value


class Settings:
    """What a file and base.py set; ConfigError, with the line, where a value is not what its key needs."""

    def __init__(self, path: Path, settings: Mapping[str, Setting], gpus: int) -> None:
        self.name, self.gpus, self._settings = path.stem, gpus, settings

    def has(self, key: str) -> bool:
        """Return whether the file itself sets a key."""
        return key in self._settings and self._settings[key].line > 0

    def number(self, key: str) -> float:
        """Return a finite number."""
        value = self._settings[key].value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(key, "must be a number")
        return value

    def whole(self, key: str) -> int:
        """Return a whole number above 0."""
        value = self.number(key)
        if value != int(value) or value < 1:
            raise self.wrong(key, "must be a whole number above 0")
        return int(value)

    def text(self, key: str) -> str:
        """Return text."""
        value = self._settings[key].value
        if not is_text(value):
            raise self.wrong(key, "must be text, and without ${")
        return value

    def flag(self, key: str) -> bool:
        """Return whether something is on."""
        value = self._settings[key].value
        if value not in (True, False):
            raise self.wrong(key, "must be True or False")
        return bool(value)

    def value(self, key: str) -> Any:
        """Return a value of any type."""
        return self._settings[key].value

    def wrong(self, key: str, what: str) -> ConfigError:
        """Return the error for a value."""
        setting = self._settings[key]
        where = f" (line {setting.line})" if setting.line else ""
        return ConfigError(f"config.{key} = {setting.value!r}{where}: {what}")

    @property
    def is_old(self) -> bool:
        """Return whether this is a file of before 2022, for train.py: its learning rate fell in steps."""
        return self.has("decay_epoch") or self.has("lr_func") or (self.has("loss") and not self.has("margin_list"))

    @property
    def is_adaface(self) -> bool:
        """Return whether its loss is AdaFace, of the versions of 2026."""
        return self.has("loss") and self.value("loss") == "adaface"

    @property
    def rows(self) -> int:
        """Return the rows of an optimizer step."""
        return self.whole("batch_size") * self.gpus * self.whole("gradient_acc")

"""Parts of a backbone that a run leaves as they are."""

import difflib
from collections.abc import Sequence

from torch import nn

from arcdist.errors import ConfigError


def freeze(backbone: nn.Module, names: Sequence[str]) -> None:
    """Take parts of a backbone out of training: their weights get no gradient, their BatchNorms learn no statistics.

    Args:
        backbone: changed in place.
        names: of modules, as in the keys of its ``state_dict`` ("conv1", "layer1", "layer2.0").

    Errors: ConfigError for a part that there is not, and where nothing would be left to train.
    """
    for name in names:
        part_of(backbone, name, "backbone.frozen").requires_grad_(False).eval()
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        raise ConfigError(f"backbone.frozen: {', '.join(names)}: nothing of the backbone is left to train")


def part_of(backbone: nn.Module, name: str, key: str) -> nn.Module:
    """Return a module of a backbone by its name.

    Args:
        key: of the configuration, for the message.

    Errors: ConfigError where there is none of that name.
    """
    modules = dict(backbone.named_modules())
    if not name or name not in modules:
        known = [child for child, _ in backbone.named_children()]
        meant = difflib.get_close_matches(name, modules, n=1)
        hint = f"; did you mean {meant[0]!r}?" if meant else ""
        raise ConfigError(f"{key}: {name!r}: no part of this backbone{hint} (its parts: {', '.join(known)})")
    return modules[name]

"""Backbones by name, and the configuration that picks one."""

import difflib
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from arcdist.backbones.parts import freeze
from arcdist.errors import ConfigError

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

_MAX_EMBEDDING_DIM = 65536
_BUILDERS: dict[str, Callable[..., nn.Module]] = {}
_ANY_SIZE: set[str] = set()


def register_backbone(name: str, any_size: bool = False, **options: Any) -> Callable[[Builder], Builder]:
    """Return a decorator for a class or function ``builder(embedding_dim=…, **options)``.

    From then on ``create_backbone(name)`` calls it, with these options where the caller gives no others.

    Args:
        name: what it is called in a configuration.
        any_size: whether it takes images of other sizes than 112 × 112, too.
        options: keyword arguments of the builder.
    """

    def register(builder: Builder) -> Builder:
        _BUILDERS[name] = functools.partial(builder, **options)
        (_ANY_SIZE.add if any_size else _ANY_SIZE.discard)(name)
        return builder

    return register


def backbone_names() -> list[str]:
    """Return every registered name, family by family."""
    return list(_BUILDERS)


def takes_any_size(name: str) -> bool:
    """Return whether a backbone takes images of any size; the others take 112 × 112 alone.

    Errors: ConfigError for an unknown name.
    """
    _builder(name, {})
    return name in _ANY_SIZE


def create_backbone(name: str, embedding_dim: int = 512, **options: Any) -> nn.Module:
    """Return the backbone of that name with fresh weights: ``[b, 3, 112, 112] → [b, embedding_dim]``.

    Args:
        name: one of ``backbone_names()``.
        embedding_dim: ``D``.
        options: keyword arguments of the backbone's class, such as ``checkpoint_activations=True``.

    Errors: ConfigError for an unknown name, or an option that this backbone does not have.
    """
    return _builder(name, options)(embedding_dim=embedding_dim, **options)


@dataclass
class BackboneConfig:
    """Which backbone, and what may vary without changing its weights' shapes (but for ``embedding_dim``)."""

    name: str = field(default="r50", metadata={"help": "r18 … r200, mbf, vit_t … vit_h, small …"})
    embedding_dim: int = field(default=512, metadata={"help": "length of an embedding"})
    checkpoint_activations: bool = field(
        default=False, metadata={"help": "keep only block inputs and compute the rest again in the backward pass"}
    )
    dropout: float | None = field(
        default=None, metadata={"help": "iResNet: share of the last feature map that is dropped, 0 if not given"}
    )
    drop_path: float | None = field(
        default=None, metadata={"help": "ViT: how often the last block is skipped; earlier ones less, linearly"}
    )
    mask_ratio: float | None = field(
        default=None, metadata={"help": "ViT: share of the patches that are hidden in training"}
    )

    frozen: list[str] = field(
        default_factory=list, metadata={"help": "parts that are not trained, by their names: [conv1,layer1]"}
    )

    def validate(self) -> None:
        """Raise ConfigError for a value that cannot be right."""
        if not 1 <= self.embedding_dim <= _MAX_EMBEDDING_DIM:
            raise ConfigError(f"backbone.embedding_dim: {self.embedding_dim}: must be from 1 to {_MAX_EMBEDDING_DIM}")
        for key in ("dropout", "drop_path", "mask_ratio"):
            share = getattr(self, key)
            if share is not None and not 0.0 <= share < 1.0:
                raise ConfigError(f"backbone.{key}: {share}: must be in [0, 1)")
        _builder(self.name, self._options())

    def build(self) -> nn.Module:
        """Return the backbone with fresh weights, what is frozen taken out of training.

        Errors: ConfigError for a part that it does not have.
        """
        self.validate()
        backbone = create_backbone(self.name, self.embedding_dim, **self._options())
        freeze(backbone, self.frozen)
        return backbone

    def _options(self) -> dict[str, Any]:
        given = {"dropout": self.dropout, "drop_path": self.drop_path, "mask_ratio": self.mask_ratio}
        given = {key: share for key, share in given.items() if share is not None}
        return {"checkpoint_activations": self.checkpoint_activations, **given}


def _builder(name: str, options: dict[str, Any]) -> Callable[..., nn.Module]:
    """Return what builds the backbone; raise ConfigError if there is none, or if it lacks one of the options."""
    if name not in _BUILDERS:
        close = difflib.get_close_matches(name, _BUILDERS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"backbone.name: {name!r}: no such backbone{hint} (known: {', '.join(_BUILDERS)})")
    known = inspect.signature(_BUILDERS[name]).parameters.keys() - {"embedding_dim"}
    for key in options:
        if key not in known:
            raise ConfigError(f"backbone.{key}: {name} has no such option (it has: {', '.join(sorted(known))})")
    return _BUILDERS[name]

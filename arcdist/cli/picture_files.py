"""Where a command's pictures go, and in which form."""

from dataclasses import dataclass, field
from pathlib import Path

from arcdist.errors import ConfigError, DataError

FORMATS = ("png", "svg")


@dataclass
class PictureArguments:
    """What a command that draws is told."""

    pictures: str = field(default="", metadata={"help": "folder for the pictures"})
    picture_format: str = field(default="png", metadata={"help": " | ".join(FORMATS)})

    def validate(self) -> None:
        """Raise ConfigError for a form that is not drawn."""
        if self.picture_format not in FORMATS:
            raise ConfigError(f"picture_format: {self.picture_format!r}: must be one of {', '.join(FORMATS)}")

    def picture(self, name: str) -> Path:
        """Return the path of a picture; the folder is made.

        Raises DataError where it cannot be.
        """
        folder = Path(self.pictures)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written: {error.strerror}") from None
        return folder / f"{name}.{self.picture_format}"


@dataclass
class RunPictureArguments(PictureArguments):
    """The same of a run, which has a TensorBoard."""

    tensorboard: bool = field(default=False, metadata={"help": "put the pictures on the run's TensorBoard, too"})

    def validate(self) -> None:
        """Raise ConfigError for what cannot be drawn or shown."""
        super().validate()
        if self.tensorboard and (not self.pictures or self.picture_format != "png"):
            raise ConfigError("tensorboard: shows PNGs: give pictures=FOLDER, and leave picture_format out")

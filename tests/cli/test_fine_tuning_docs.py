"""The commands of docs/fine_tuning.md give configurations."""

import re
import shlex
from pathlib import Path

from arcdist.cli.compose import compose_config

PAGE = Path(__file__).parent.parent.parent / "docs" / "fine_tuning.md"


def test_every_training_that_the_page_names_is_taken() -> None:
    commands = re.findall(r"^arcdist train (.*)$", PAGE.read_text().replace("\\\n", ""), flags=re.MULTILINE)
    configs = [compose_config(shlex.split(command)) for command in commands]
    for config in configs:
        config.validate()
    of_weights, of_teacher = configs
    assert (of_weights.init, of_weights.head.initial) == ("backbone.pt", "class_means")
    assert (of_weights.data.num_classes, of_weights.data.images) == (0, 0)  # those of one's own set
    assert of_weights.train.total_steps(51_200) == 4 * 100
    assert (of_teacher.teacher.embeddings, of_teacher.teacher.weight) == ("teacher.npy", 20.0)

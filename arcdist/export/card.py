"""A model card: what a backbone takes and gives, how it was trained, what it scored; for people and for a hub."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from arcdist.export.provenance import MEAN, STD, Provenance

_COLUMNS = {"pairs": "pairs", "accuracy": "accuracy, %", "eer": "EER, %", "auc": "AUC, %"}
_POINTS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
_TRAINING = {  # keys of a recipe that say most, and what they are called
    "margin": "margin",
    "optim.name": "optimizer",
    "optim.lr": "learning rate",
    "train.global_batch_size": "images in a step",
    "head.sample_rate": "share of the classes in a step's softmax",
    "data.path": "trained on",
}


def model_card(provenance: Provenance, name: str, license: str, millions: float) -> str:
    """Return the card as Markdown, with the front matter that hubs read.

    Args:
        provenance: of the backbone.
        name: what it is called.
        license: of the weights.
        millions: of parameters.
    """
    network = provenance.network
    size, scores = network.image_size, _by_set(provenance.metrics)
    points = "\n".join(f"| {point} | {x} | {y} |" for point, (x, y) in zip(_POINTS, provenance.template()))
    parts = [
        *("---", *_front_matter(name, license, scores), "---"),
        f"# {name}\n",
        f"Face embeddings: {network.backbone}, {millions:.1f} million parameters, {network.embedding_dim} numbers.\n",
        "## Use\n",
        f"""```python
import torch
from arcdist.backbones import load_backbone

model = load_backbone("FOLDER")  # of these files; in eval mode
pixels = torch.randint(0, 256, (1, 3, {size}, {size}))  # aligned faces, RGB
embedding = torch.nn.functional.normalize(model((pixels - {MEAN}) / {STD}))  # [1, {network.embedding_dim}]
```

Two faces are compared by the cosine of their embeddings. To add the embedding of the mirrored image before it is
normalized, as the field does in verification, is a little better.
""",
        f"Faces are aligned by a similarity transform of five points to these places, in pixels of {size} × {size}:\n",
        f"| point | x | y |\n|---|---|---|\n{points}\n",
    ]
    if scores:
        parts += ["## Verification\n", *_scores_table(scores)]
    parts += ["## Training\n", *_training(provenance)]
    parts += [
        "## Limits\n",
        "Accuracy differs between groups of people, cameras and poses; measure it on faces like those that it will "
        "meet, and choose the threshold there. Of faces that are not aligned as above embeddings mean little.\n",
        "## License\n",
        f"Of these weights: {license}. That of the data they were trained on may forbid uses that this one does not."
        if license != "unknown"
        else "Not stated.",
    ]
    return "\n".join(parts) + "\n"


def _front_matter(name: str, license: str, scores: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield f"license: {json.dumps(license)}"
    yield "library_name: arcdist"
    yield "pipeline_tag: image-feature-extraction"
    yield "tags: [face-recognition, face-verification, arcface]"
    if scores:
        results = [
            {
                "task": {"type": "face-verification", "name": "Face Verification"},
                "dataset": {"type": set_name, "name": set_name},
                "metrics": [{"type": key, "value": value} for key, value in values.items() if key != "pairs"],
            }
            for set_name, values in scores.items()
        ]
        yield f"model-index: {json.dumps([{'name': name, 'results': results}])}"  # YAML takes JSON


def _by_set(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        set_name, _, metric = key.rpartition(".")
        scores.setdefault(set_name, {})[metric] = value
    return scores


def _scores_table(scores: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    known = [column for column in _COLUMNS if any(column in values for values in scores.values())]
    yield f"| set | {' | '.join(_COLUMNS[column] for column in known)} |"
    yield "|---|" + "---|" * len(known)
    for name, values in scores.items():
        yield f"| {name} | {' | '.join(_cell(values, column) for column in known)} |"
    yield ""


def _cell(values: Mapping[str, float], column: str) -> str:
    if column not in values:
        return "–"
    if column == "pairs":
        return f"{values[column]:,}"
    spread = f" ± {100 * values['std']:.2f}" if column == "accuracy" and "std" in values else ""
    return f"{100 * values[column]:.2f}{spread}"


def _training(provenance: Provenance) -> Iterator[str]:
    told = {
        **{key.replace("_", " "): value for key, value in provenance.training.items()},
        **{word: found for key, word in _TRAINING.items() if (found := _found(provenance.recipe, key)) is not None},
    }
    if not told:
        yield "Not known.\n"
        return
    for key, value in told.items():
        yield f"* {key}: {value}"
    if provenance.recipe:
        recipe = json.dumps(provenance.recipe, indent=1, ensure_ascii=False)
        yield f"\n<details><summary>The whole recipe</summary>\n\n```json\n{recipe}\n```\n\n</details>\n"


def _found(tree: Mapping[str, Any], key: str) -> str | None:
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return None if value in (None, "") else str(value)

"""The page of recipes: what configs/recipe/ says of each, what we measured, and what the field has published."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from recipe_costs import RESULT as COSTS
from tables import table

from arcdist.cli.compose import config_folder, groups
from arcdist.optim import OptimConfig
from arcdist.train.config import LoopConfig

RESULTS = Path(__file__).resolve().parent.parent / "results"
_HEAD = """# Recipes

```
torchrun --nproc_per_node=8 launch/train.py recipe=ms1mv3_r50 data.path=/data/ms1mv3/train.rec \\
    evaluate.sets=[/data/ms1mv3/lfw.bin,/data/ms1mv3/cfp_fp.bin,/data/ms1mv3/agedb_30.bin]
```

A recipe fixes data set, network, margin, batch and schedule; any key may be changed on the command line. What one
sets is in its file, `configs/recipe/NAME.yaml`, with its source; `arcdist train recipe=NAME --cfg job` prints all of
it. The data are not part of arcdist, and each set has a licence of its own.

The number of ranks is free as long as it divides the global batch into whole micro-batches. `4 × 128` is a global
batch of 512 rows in micro-batches of 128: on 4 ranks one each, on 2 ranks two each.

## What each trains
"""
_MEASURED = """## Measured here

On two CPU cores, with rendered faces (`demo`) and with few real ones; `small_real_reference` is what `small_real` is
held against. Accuracy on people never seen, with the spread over the ten folds; the commands stand in the files.
"""
_PUBLISHED = """## Published by the field

**These are figures of others, not ours**: what the authors named beside each have published for such a training in
their own code. No recipe of this table has been trained with arcdist yet. They say what a run is to be held against.
LFW, CFP-FP and AgeDB-30: accuracy in %; IJB-C: TAR in % at a FAR of 1e-4, its protocol as the source has it.
"""
_COST = """## What to expect, and what it costs

The result is the field's, with its source in the table above; where it says *measured*, it is ours, of
[Measured here](#measured-here). GPUs, memory and hours are **a plan's estimate for H100 cards in bf16, not a
measurement, and none has been held against a GPU yet** ([what it takes for granted](plan.md)). Hours are of all GPUs
together: 8 GPUs for an hour are 8. GiB are of one GPU: of its head (centers, their momentum, logits), and of all. The
first row of a GPU is by

```
{command}
```

and the others likewise: with the GPUs that a recipe's micro-batches are made for, and the classes and images of its
set. `price=3` adds what an hour costs; `gpu=` takes other cards. `python docs/site/recipe_costs.py` made all of them
([recipes.plan.json](results/recipes.plan.json)).
"""
_OWN = """## One of your own

```
arcdist train recipe=arcface_torch data.source=recordio data.path=mine.rec backbone=r18 train.epochs=30
arcdist train recipe=arcface_paper data=casia train.steps=32000 'optim.schedule.milestones_steps=[20000,28000]'
```

`FOLDER/recipe/mine.yaml`, written as those in `configs/recipe/` are, is `recipe=mine` with `--config-dir FOLDER`.

`arcface_torch` and `arcface_paper` are what the other recipes have in common. For a few thousand images begin with
`recipe=small_real`; for a set that was trained with arcface_torch, [migrate](migration.md) its configuration.
"""
_PAPER, _README, _ZOO = "ArcFace paper (arXiv:1801.07698)", "arcface_torch's README", "insightface's model zoo, iR50"
# recipe: LFW, CFP-FP, AgeDB-30, IJB-C, other figures, source
PUBLISHED = [
    ("casia_r50", "99.53", "95.56", "95.15", "", "", f"{_PAPER}, Table 2, ArcFace (0.5)"),
    ("casia_r50", "99.45", "95.21", "94.90", "87.22", "", f"{_ZOO}"),
    ("vggface2_r50", "", "", "", "92.1", "IJB-B 89.8", f"{_PAPER}, Table 7"),
    ("ms1mv2_r100", "99.83", "", "", "95.6", "YTF 98.0, IJB-B 94.2, MegaFace 81.0, 97.0", f"{_PAPER}, Tables 4, 6, 7"),
    ("ms1mv2_r100", "99.82", "", "", "", "CALFW 95.45, CPLFW 92.08", f"{_PAPER}, Table 5"),
    ("ms1mv2_r100", "99.77", "98.27", "98.28", "", "", "insightface's model zoo, R100 by mxnet"),
    ("ms1mv2_r50", "99.83", "97.67", "98.10", "", "drops at 100, 140 and 160 thousand steps", "insightface issue 215"),
    ("ms1mv2_r50_arcface_torch", "99.83", "98.08", "98.08", "96.14", "", _ZOO),
    ("ms1mv2_r50_arcface_torch", "", "", "", "95.97", "MFR 75.13", _README),
    ("ms1mv2_r100_arcface_torch", "", "", "", "96.37", "MFR 78.12", _README),
    ("ms1mv2_mbf", "", "", "", "93.61", "MFR 62.07", _README),
    ("ms1mv3_mbf", "", "", "", "94.23", "MFR 63.78", _README),
    ("ms1mv3_r50", "99.80", "98.53", "98.27", "96.58", "", _ZOO),
    ("ms1mv3_r50", "", "", "", "96.37", "MFR 79.14", _README),
    ("ms1mv3_r100", "", "", "", "96.85", "MFR 81.97", _README),
    ("glint360k_mbf", "", "", "", "95.04", "MFR 70.18", _README),
    ("glint360k_r50", "99.82", "99.14", "98.45", "97.13", "", _ZOO),
    ("glint360k_r50", "", "", "", "97.16", "MFR 86.34", _README),
    ("glint360k_r100", "", "", "", "97.55", "MFR 89.52", _README),
    ("webface4m_r100", "", "", "", "97.19", "MFR 89.87", _README),
    ("webface12m_r100", "", "", "", "97.59", "MFR 94.69", _README),
    ("webface12m_pfc02_r100", "", "", "", "97.60", "MFR 94.75", _README),
    ("webface42m_pfc02_r50", "", "", "", "97.53", "MFR 93.83", _README),
    ("webface42m_pfc02_r100", "", "", "", "97.70", "MFR 96.27", _README),
    ("webface42m_pfc02_r100_16gpus", "", "", "", "97.85", "MFR 96.69", _README),
    ("webface42m_pfc03_vit_t", "", "", "", "97.31", "MFR 92.24; there with 24,576 rows a step, here 4,096", _README),
    ("webface42m_pfc03_vit_s", "", "", "", "97.73", "MFR 95.87", _README),
    ("webface42m_pfc03_vit_b", "", "", "", "97.91", "MFR 97.16, on 8 GPUs", _README),
    ("webface42m_pfc03_vit_b", "", "", "", "97.90", "MFR 97.42, on 64 GPUs", _README),
    ("webface42m_pfc03_vit_l", "", "", "", "98.00", "MFR 97.85", _README),
]  # fmt: skip


def recipes_page() -> str:
    """Return the page."""
    names = [name for name in groups()["recipe"] if name not in ("arcface_paper", "arcface_torch")]
    costs = json.loads(COSTS.read_text(encoding="utf-8"))
    return "\n".join(
        [
            _HEAD,
            *_by_data(names),
            f"{_MEASURED}\n{table(('recipe', 'accuracy', 'training', 'machine', 'file'), _measured())}",
            _PUBLISHED,
            table(
                ("recipe", "LFW", "CFP-FP", "AgeDB-30", "IJB-C", "also", "source"),
                ((f"`{name}`", *rest) for name, *rest in PUBLISHED),
            ),
            _COST.format(command=next(iter(costs["recipes"].values()))["command"]),
            table(
                ("recipe", "classes, images", "network", "steps", "result", "GPUs", "GiB: head, all", "hours"),
                (_expected(name, costs["recipes"].get(name)) for name in names),
            ),
            _OWN,
        ]
    )


def _expected(name: str, cost: dict[str, Any] | None) -> tuple[str, ...]:
    """Return a recipe's row of what is to be expected; of one that is for no GPU, what it took here."""
    values = merged(name)
    classes, images, _ = _set_of(values)
    network = values["chosen"]["backbone"].partition("_dp")[0]
    row = (f"`{name}`", f"{classes:,}, {images:,}" if classes else "yours", network)
    if cost:
        memory = ", ".join(f"{cost[part] / 2**30:.2f}" for part in ("head_bytes", "memory_bytes"))
        return (*row, f"{cost['steps']:,}", _published(name), f"{cost['gpus']}", memory, f"{cost['gpu_hours']:.1f}")
    steps = f"{values['train']['steps']:,}"
    for file in (f"{name}.json", f"{name}.seed0.json"):
        if (RESULTS / file).is_file():
            result = json.loads((RESULTS / file).read_text(encoding="utf-8"))
            (score,) = result["sets"].values()
            told = f"{100 * score['accuracy']:.2f} %, measured"
            return (*row, steps, told, "2 CPU cores", "", f"{result['seconds'] / 3600:.2f}, measured")
    return (*row, steps, "not published", "CPU cores", "", "not measured")


def _published(name: str) -> str:
    """Return the field's figure for a recipe: on IJB-C where there is one, else on LFW."""
    figures = [(lfw, ijb_c) for recipe, lfw, _, _, ijb_c, *_ in PUBLISHED if recipe == name]
    on_ijb_c = [ijb_c for _, ijb_c in figures if ijb_c]
    if on_ijb_c:
        return " to ".join(dict.fromkeys((min(on_ijb_c), max(on_ijb_c)))) + " on IJB-C"
    return f"{figures[0][0]} on LFW" if figures else "not published"


def merged(recipe: str) -> dict[str, Any]:
    """Return what a recipe sets over the defaults, and in ``chosen`` what it chooses in the groups."""
    values = _over({"chosen": _chosen_by_default()}, _file(recipe))
    for group in ("data", "margin", "optim"):
        values = _over({group: _choice(group, values["chosen"][group])}, values)
    return _over({"train": asdict(LoopConfig()), "optim": asdict(OptimConfig())}, values)


def _chosen_by_default() -> dict[str, str]:
    entries = yaml.safe_load((config_folder() / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    return {group: choice for entry in entries if isinstance(entry, dict) for group, choice in entry.items()}


def _file(recipe: str) -> dict[str, Any]:
    """Return what a recipe's file and those that it builds on say."""
    own = yaml.safe_load((config_folder() / f"recipe/{recipe}.yaml").read_text(encoding="utf-8"))
    values: dict[str, Any] = {"chosen": {}}
    for entry in own.pop("defaults", []):
        if isinstance(entry, str):
            values = _over(values, _file(entry))
        else:
            chosen = {group.removeprefix("override /"): choice for group, choice in entry.items()}
            values = _over(values, {"chosen": chosen})
    return _over(values, own)


def _choice(group: str, choice: str) -> dict[str, Any]:
    values = yaml.safe_load((config_folder() / group / f"{choice}.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in values.items() if key != "defaults"}


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return two trees as one, in which the second counts."""
    joined = dict(below)
    for key, value in above.items():
        inner = joined.get(key)
        joined[key] = _over(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return joined


def _by_data(recipes: list[str]) -> Iterator[str]:
    """Yield a table of the recipes of each data set, the set of the fewest classes first."""
    by_set: dict[tuple[int, int, str], list[str]] = {}
    for recipe in recipes:
        by_set.setdefault(_set_of(merged(recipe)), []).append(recipe)
    for (classes, images, name), of_it in sorted(by_set.items()):
        size = f"{classes:,} classes, {images:,} images.\n" if classes else ""
        yield f"### {name}\n\n{size}"
        yield table(("recipe", "network", "margin", "batch", "schedule", "rate, decay"), map(_row, of_it))


def _set_of(values: dict[str, Any]) -> tuple[int, int, str]:
    data, name = values["data"], values["chosen"]["data"]
    if rendered := data.get("synthetic"):
        people = rendered["identities"]
        return people, people * rendered["images_per_identity"], f"{name}, {people:,} people"
    return data.get("num_classes", 0), data.get("images", 0), "faces of your own" if name == "recordio" else name


def _row(recipe: str) -> tuple[str, ...]:
    values = merged(recipe)
    train, optim, chosen = values["train"], values["optim"], values["chosen"]
    rows, micro = train["global_batch_size"], train["micro_batch_size"]
    return (
        f"`{recipe}`",
        chosen["backbone"],
        _margin(values),
        f"{rows // micro} × {micro}" if micro else f"{rows}",
        _schedule(train, optim["schedule"]),
        f"{float(optim['lr']):g}, {float(optim['weight_decay']):g}",
    )


def _margin(values: dict[str, Any]) -> str:
    margin = values["margin"]
    numbers = [f"{key} {margin[key]:g}" for key in ("m2", "m3") if margin.get(key)]
    drawn = values.get("head", {}).get("sample_rate", 1)
    sampled = [f"{100 * drawn:g} % of the centers"] if drawn != 1 else []
    return ", ".join([values["chosen"]["margin"], *numbers, f"s {margin.get('scale', 64):g}", *sampled])


def _schedule(train: dict[str, Any], schedule: dict[str, Any]) -> str:
    length = f"{train['steps']:,} steps" if train.get("steps") else f"{train['epochs']:g} epochs"
    if schedule["name"] == "step":
        shape = "÷10 at " + ", ".join(f"{step // 1000}k" for step in schedule["milestones_steps"])
    else:
        shape = f"polynomial, power {schedule['power']:g}"
    warmup = [f"warm-up {schedule[key]} {unit}" for key, unit in _WARMUPS.items() if schedule.get(key)]
    return ", ".join([length, shape, *warmup])


_WARMUPS = {"warmup_epochs": "epochs", "warmup_steps": "steps"}
_SMALL = ("small_real", "small_real_reference")


def _measured() -> Iterator[tuple[str, ...]]:
    for name in (
        "demo",
        *(f"{kind}.seed{seed}" for kind in ("small_real", "small_real_reference") for seed in range(3)),
    ):
        result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        (score,) = result["sets"].values()
        accuracy = f"{100 * score['accuracy']:.2f} ± {100 * score['std']:.2f} %"
        training = f"{result['images_seen']:,} images, {result['seconds'] / 60:.0f} min, {result['precision']}"
        yield (
            f"`{name.partition('.')[0]}`",
            accuracy,
            training,
            result["machine"],
            f"[{name}.json](results/{name}.json)",
        )

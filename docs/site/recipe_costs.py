"""What the field's recipes need on GPUs, as `arcdist plan` has it: ``python docs/site/recipe_costs.py`` writes it down.

A model, not a measurement. It takes a minute, so the page of recipes reads what was written, and a test holds that
against the recipes and the model of today.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from arcdist.backbones import BackboneConfig
from arcdist.bench.plan import Cluster, Plan
from arcdist.bench.plan_machine import GPUS
from arcdist.bench.plan_memory import memory_by_moment
from arcdist.bench.plan_network import BackboneCost, backbone_cost
from arcdist.bench.plan_sizes import Sizes
from arcdist.cli.compose import compose_config, groups
from arcdist.train.config import TrainConfig

RESULT = Path(__file__).resolve().parent.parent / "results/recipes.plan.json"
GPU, PRECISION = "h100", "bf16"
_OF_THE_BACKBONE = ("activations", "backbone", "images", "CUDA")  # what a part's name begins with


def recipes() -> dict[str, TrainConfig]:
    """Return the recipes for sets of the field, whose sizes are known, by name."""
    every = {name: compose_config([f"recipe={name}"]) for name in groups()["recipe"]}
    return {name: config for name, config in every.items() if config.data.num_classes and config.data.images}


def command(name: str, config: TrainConfig) -> str:
    """Return the command that plans a recipe on the ranks that it is made for."""
    data = config.data
    return f"arcdist plan recipe={name} gpu={GPU} gpus={_gpus(config)} classes={data.num_classes} images={data.images}"


def network(config: TrainConfig) -> str:
    """Return what a backbone is counted under: its name, and what of it is not as usual."""
    usual = asdict(BackboneConfig())
    own = {key: value for key, value in asdict(config.backbone).items() if value != usual[key]}
    return " ".join([config.backbone.name, *(f"{key}={value}" for key, value in own.items() if key != "name")])


def cost(name: str, config: TrainConfig, backbone: BackboneCost) -> dict[str, Any]:
    """Return what a recipe needs: GPUs, steps, memory of a GPU in bytes, images a second, hours of all its GPUs."""
    gpus, data = _gpus(config), config.data
    sizes = Sizes.of(config, gpus, data.num_classes, PRECISION, GPUS[GPU].device)
    cluster = Cluster(gpu=GPU, gpus=gpus, classes=data.num_classes, images=data.images)
    plan = Plan(sizes, backbone, cluster, GPUS[GPU], config.backbone.name)
    steps = config.train.total_steps(data.images)
    moments = memory_by_moment(sizes, backbone).values()
    head = (sum(n for part, n in parts.items() if not part.startswith(_OF_THE_BACKBONE)) for parts in moments)
    return {
        "command": command(name, config),
        "gpus": gpus,
        "steps": steps,
        "memory_bytes": plan.memory_bytes,
        "head_bytes": max(head),
        "images_per_s": plan.images_per_s,
        "gpu_hours": gpus * steps * config.train.global_batch_size / plan.images_per_s / 3600,
    }


def _gpus(config: TrainConfig) -> int:
    """Return the ranks that do a micro-batch each."""
    return config.train.global_batch_size // config.train.micro_batch_size


def main() -> None:
    """Count every backbone, plan every recipe, and write both down."""
    found = recipes()
    networks = {network(config): config.backbone for config in found.values()}
    # Without units: no recipe shares its backbone out.
    counted = {name: replace(backbone_cost(one, PRECISION), units=()) for name, one in networks.items()}
    rows = {name: cost(name, config, counted[network(config)]) for name, config in found.items()}
    about = {"gpu": GPU, "rates": GPUS[GPU].source, "precision": PRECISION, "recipes": rows}
    RESULT.write_text(
        json.dumps(about | {"backbones": {name: asdict(one) for name, one in counted.items()}}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()

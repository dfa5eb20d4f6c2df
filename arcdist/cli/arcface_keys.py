"""What each key of arcface_torch's configuration is here: overrides, or why it is none."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from arcdist.cli.arcface_config import Drops, Setting
from arcdist.cli.arcface_settings import Settings, is_text
from arcdist.cli.compose import groups
from arcdist.errors import ConfigError

RECIPE = "recipe=arcface_torch"
_NEEDED = ("rec", "num_classes", "num_image", "num_epoch")  # base.py has no value for them
_OLD_ROWS = 512  # before 2022 config.lr was for this many rows, and train.py scaled it
_ENVIRONMENT = "said by the environment, never in a configuration: WANDB_API_KEY, WANDB_ENTITY"
IDLE = {
    "save_all_states": "every checkpoint holds the whole state; checkpoint.every says how often",
    "dataset": "config.rec says which files",
    "image_size": "a record's own size, 112; data.image_size is another",
    **dict.fromkeys(("wandb_key", "wandb_entity"), _ENVIRONMENT),
    "wandb_log_all": "rank 0 logs for all",
    "wandb_resume": "a run that is started again goes on in the same one",
    "save_artifacts": "weights stay in the run's folder",
    "suffix_run_name": "name=NAME is the run's",
    "notes": "name=NAME is the run's",
}


@dataclass(frozen=True)
class Meaning:
    """What a key is here: overrides, and a remark; neither of a key that is not known."""

    key: str
    setting: Setting
    overrides: list[str]
    remark: str = ""


def meanings(path: Path, settings: Mapping[str, Setting], gpus: int) -> list[Meaning]:
    """Return what every key of a file, and every one of base.py's that it leaves as it is, means here.

    Errors: ConfigError for a value that cannot be, for a network that there is not, and for keys that are needed.
    """
    missing = [f"config.{key}" for key in _NEEDED if key not in settings]
    if missing:
        raise ConfigError(f"{path}: {', '.join(missing)}: not set, and base.py has no value for it; add it to the file")
    of = Settings(path, settings, gpus)
    found = []
    for key, setting in settings.items():
        if key in _TAKEN:
            overrides, remark = _TAKEN[key](of)
            found.append(Meaning(key, setting, overrides, remark))
        elif setting.line:
            found.append(Meaning(key, setting, [], IDLE.get(key, "")))
    return found


def first_overrides(path: Path, settings: Mapping[str, Setting]) -> list[str]:
    """Return what all of its trainings have in common: a recipe, or its keys where a margin of another kind bars it."""
    name = f"name={quoted(path.stem)}"
    if not Settings(path, settings, 1).is_adaface:
        return [RECIPE, name, "data=recordio"]
    return [name, "data=recordio", "optim.decay_all=true", "train.clip_norm=5.0", "optim.schedule.power=2.0"]


def quoted(text: str) -> str:
    """Return text as a value of Hydra's grammar."""
    if re.fullmatch(r"[\w./-]*[A-Za-z/][\w./-]*", text) and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    return "'" + re.sub(r"(\\*)('|\Z)", lambda end: 2 * end[1] + ("\\'" if end[2] else ""), text) + "'"


def _network(of: Settings) -> tuple[list[str], str]:
    name = of.text("network")
    known = groups()["backbone"]
    if name not in known:
        raise of.wrong("network", f"is no backbone here; known: {', '.join(known)}")
    return [f"backbone={name}"], ""


def _margin(of: Settings) -> tuple[list[str], str]:
    values = of.value("margin_list")
    if of.is_old or of.is_adaface:
        return [], "config.loss says which margin"
    numbers = isinstance(values, list) and all(isinstance(value, int | float) for value in values)
    if not numbers or len(values) != 3:
        raise of.wrong("margin_list", "must be three numbers, m1, m2 and m3")
    m1, m2, m3 = map(float, values)
    if m3 > 0:
        ignored = m1 != 1 or m2 != 0
        remark = f"there m3 > 0 is CosFace alone; margin.m1={m1} margin.m2={m2} trains all three" if ignored else ""
        return ["margin=cosface", f"margin.m3={m3}"], remark
    if m1 != 1:
        return [
            "margin=sphereface",
            f"margin.m1={m1}",
            f"margin.m2={m2}",
        ], "there m1 other than 1 stops with an error"
    return [
        "margin=arcface",
        f"margin.m2={m2}",
    ], "gradient as there, margin.gradient=straight_through; exact is the derivative"


def _loss(of: Settings) -> tuple[list[str], str]:
    name = of.text("loss")
    if name == "adaface":
        keys = {"adaface_s": "scale", "adaface_m": "m", "adaface_h": "h"}
        own = [f"margin.{ours}={of.number(theirs)}" for theirs, ours in keys.items() if of.has(theirs)]
        kept = [f"margin.momentum={1 - of.number('adaface_t_alpha')}"] if of.has("adaface_t_alpha") else []
        return ["margin=adaface", *own, *kept], ""
    if not of.is_old:
        return [], "config.margin_list says which margin"
    margins = {"arcface": ["margin=arcface", "margin.m2=0.5"], "cosface": ["margin=cosface", "margin.m3=0.4"]}
    if name not in margins:
        raise of.wrong("loss", "must be arcface or cosface, or adaface")
    return [*margins[name], "margin.gradient=exact"], "as losses.py of its time had it"


def _adaface_key(of: Settings) -> tuple[list[str], str]:
    return [], "with config.loss" if of.is_adaface else "of AdaFace, and config.loss is another"


def _filter(of: Settings) -> tuple[list[str], str]:
    threshold = of.number("interclass_filtering_threshold")
    if threshold <= 0:
        return [], "off, as margin.interclass_filter=1 is"
    remark = "there such a negative counts as one of cosine 0; here it leaves the denominator"
    return [f"margin.interclass_filter={threshold}"], remark


def _sample_rate(of: Settings) -> tuple[list[str], str]:
    rate = of.number("sample_rate")
    return ([f"head.sample_rate={float(rate)}"], "") if rate else (["head.sample_rate=1.0e-9"], "a batch's own alone")


def _precision(of: Settings) -> tuple[list[str], str]:
    if not of.flag("fp16"):
        return ["train.precision=fp32"], "auto takes bf16 where it is fast"
    return [
        "train.precision=fp16"
    ], "bf16 needs no scaling of the loss; head.products=fp32 is what train_v2.py mostly does"


def _batch(of: Settings) -> tuple[list[str], str]:
    rows = of.whole("batch_size")
    remark = f"on {of.gpus} GPU{'s' * (of.gpus > 1)}, which the file does not say: gpus=N is another number"
    return [f"train.global_batch_size={of.rows}", f"train.micro_batch_size={rows}"], remark


def _accumulation(of: Settings) -> tuple[list[str], str]:
    if of.whole("gradient_acc") == 1:
        return [], "a batch is one pass"
    return [], "in train.global_batch_size; there the schedule counts micro-batches"


def _optimizer(of: Settings) -> tuple[list[str], str]:
    name = of.text("optimizer")
    if name not in ("sgd", "adamw"):
        raise of.wrong("optimizer", "must be sgd or adamw")
    return [f"optim={name}"], ""


def _rate(of: Settings) -> tuple[list[str], str]:
    rate = of.number("lr")
    if not of.is_old:
        return [f"optim.lr={rate}"], ""
    return [f"optim.lr={rate * of.rows / _OLD_ROWS}"], f"train.py of its time scaled {rate} for {_OLD_ROWS} rows"


def _momentum(of: Settings) -> tuple[list[str], str]:
    momentum = of.number("momentum")
    if of.value("optimizer") != "sgd":
        return [], "of sgd"
    return [f"optim.momentum={momentum}"], "" if momentum == 0.9 else "train_v2.py never reads it, and takes 0.9"


def _drops(of: Settings) -> tuple[list[str], str]:
    key = "decay_epoch" if of.has("decay_epoch") else "lr_func"
    value = of.value(key)
    epochs = value.epochs if isinstance(value, Drops) else value
    if not isinstance(epochs, list) or not all(isinstance(epoch, int | float) for epoch in epochs):
        raise of.wrong(key, "must be a list of epochs")
    if not epochs:
        return ["optim.schedule.name=constant"], ""
    return ["optim.schedule.name=step", f"optim.schedule.milestones=[{','.join(map(str, epochs))}]"], ""


def _warmup(of: Settings) -> tuple[list[str], str]:
    return [f"optim.schedule.warmup_epochs={max(0.0, float(of.number('warmup_epoch')))}"], ""


def _epochs(of: Settings) -> tuple[list[str], str]:
    remark = "" if of.is_old else "the last versions decay along a straight line: optim.schedule.power=1"
    return [f"train.epochs={float(of.number('num_epoch'))}"], remark


def _data(of: Settings) -> tuple[list[str], str]:
    path = of.text("rec").rstrip("/") or "/"
    if path == "synthetic":
        raise of.wrong("rec", "is their test of speed; here: arcdist bench head --classes N, or arcdist bench step")
    is_folder = Path(path).is_dir() and not (Path(path) / "train.rec").exists()
    file = path if is_folder else f"{path.rstrip('/')}/train.rec"
    return [f"data.path={quoted(file)}"], ""


def _sets(of: Settings) -> tuple[list[str], str]:
    names = of.value("val_targets")
    if not isinstance(names, list) or not all(map(is_text, names)):
        raise of.wrong("val_targets", "must be a list of names")
    folder = of.text("rec").rstrip("/")
    return [f"evaluate.sets=[{','.join(quoted(f'{folder}/{name}.bin') for name in names)}]"], ""


def _output(of: Settings) -> tuple[list[str], str]:
    if of.value("output") is None or not of.has("output") or of.flag("resume"):
        return [], f"a run writes into runs/{of.name}; folder=PATH is another place"
    return [f"folder={quoted(of.text('output'))}"], ""


def _resume(of: Settings) -> tuple[list[str], str]:
    if not of.flag("resume"):
        return [], "a run that is started again goes on by itself; resume=never is off"
    folder = of.text("output") if of.value("output") is not None else f"work_dirs/{of.name}"
    return [f"resume={quoted(folder)}"], "its checkpoint_gpu_*.pt, on any number of ranks"


def _loader(of: Settings) -> tuple[list[str], str]:
    return [f"data.loader.kind={'dali' if of.flag('dali') else 'torch'}"], ""


def _augment(of: Settings) -> tuple[list[str], str]:
    if not of.flag("dali_aug"):
        return [], "images are mirrored or not, as there"
    return (["augment=dali_aug"], "") if of.flag("dali") else ([], "means nothing there without config.dali")


def _trackers(of: Settings) -> tuple[list[str], str]:
    if not of.flag("using_wandb"):
        return [], "TensorBoard files and metrics.jsonl are always written"
    return ["log.trackers=[wandb]"], "pip install 'arcdist[wandb]'"


def _project(of: Settings) -> tuple[list[str], str]:
    if not of.has("using_wandb") or not of.flag("using_wandb"):
        return [], "of Weights & Biases, which the file does not use"
    return [f"log.project={quoted(of.text('wandb_project'))}"], ""


def _number_of(key: str, ours: str) -> Callable[[Settings], tuple[list[str], str]]:
    return lambda of: ([f"{ours}={of.whole(key)}"], "")


_TAKEN: dict[str, Callable[[Settings], tuple[list[str], str]]] = {
    "network": _network,
    "embedding_size": _number_of("embedding_size", "backbone.embedding_dim"),
    "margin_list": _margin,
    "loss": _loss,
    **dict.fromkeys(("adaface_s", "adaface_m", "adaface_h", "adaface_t_alpha"), _adaface_key),
    "interclass_filtering_threshold": _filter,
    "sample_rate": _sample_rate,
    "fp16": _precision,
    "batch_size": _batch,
    "gradient_acc": _accumulation,
    "optimizer": _optimizer,
    "lr": _rate,
    "momentum": _momentum,
    "weight_decay": lambda of: ([f"optim.weight_decay={of.number('weight_decay')}"], ""),
    **dict.fromkeys(("decay_epoch", "lr_func"), _drops),
    "num_epoch": _epochs,
    "warmup_epoch": _warmup,
    "rec": _data,
    "num_classes": _number_of("num_classes", "data.num_classes"),
    "num_image": _number_of("num_image", "data.images"),
    "val_targets": _sets,
    "verbose": _number_of("verbose", "evaluate.every"),
    "frequent": _number_of("frequent", "train.log_every"),
    "dali": _loader,
    "dali_aug": _augment,
    "num_workers": lambda of: ([f"data.loader.workers={max(1, int(of.number('num_workers')))}"], ""),
    "seed": lambda of: ([f"seed={int(of.number('seed'))}"], ""),
    "using_wandb": _trackers,
    "wandb_project": _project,
    "output": _output,
    "resume": _resume,
}

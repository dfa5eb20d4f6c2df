"""A run: build the parts, restore them, loop, finish."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

import arcdist
from arcdist.checkpoint.arcface_torch import is_arcface_torch, load_arcface_torch
from arcdist.checkpoint.manager import CheckpointManager
from arcdist.checkpoint.marker import CheckpointError, read_marker
from arcdist.checkpoint.run_config import RUN_CONFIG
from arcdist.checkpoint.state import held_alike, training_tensors
from arcdist.data.torch_loader import Batch
from arcdist.errors import ConfigError
from arcdist.evaluate.sets import Scored, read_sets, score_sets
from arcdist.evaluate.verification import METRICS
from arcdist.runtime import collectives
from arcdist.runtime.agreement import check_agreement
from arcdist.runtime.fully_sharded import described, whole
from arcdist.runtime.hang_watch import GRACE, HangWatch
from arcdist.runtime.ranges import named_range
from arcdist.runtime.stopping import FINISHED, STOPPED, StoppedElsewhereError, StopRequest, leave_marker, remove_markers
from arcdist.runtime.world import World, close_world
from arcdist.train import summary
from arcdist.train.build import build_step
from arcdist.train.choices import choices, keep_choices
from arcdist.train.config import TrainConfig, flat
from arcdist.train.initial import centers_from_means, load_initial
from arcdist.train.memory import memory_advice
from arcdist.train.metrics import Metrics
from arcdist.train.own_angles import own_angles, own_theta
from arcdist.train.profile import StepProfile
from arcdist.train.replay import check_replay
from arcdist.train.same_run import check_same_run
from arcdist.train.same_start import check_same_data, check_same_program
from arcdist.train.trackers.fan_out import FanOut
from arcdist.train.void_steps import REMEDY, DivergedError, VoidSteps
from arcdist.train.work import Work

_log = logging.getLogger("arcdist")
_LABELS_LOOKED_AT = 10_000_000  # before the first step, a few seconds; those of larger sets as they come
_GRACE_S = 30.0  # for what is being written when a run ends by an error


class Trainer:
    """One run on this rank.

    Args:
        config: of the run, checked.
        world: this process's place.
        stop: whether this process was asked to stop; by default it never is.

    Errors: ArcdistError for what the configuration or the data cannot be, on every rank.
    """

    def __init__(self, config: TrainConfig, world: World, stop: StopRequest | None = None) -> None:
        self.config, self.world = config, world
        self.stop = StopRequest() if stop is None else stop
        self.folder = Path(config.as_dict()["folder"])
        check_same_program(config)
        collectives.from_rank_0(self._prepare)
        self.dataset = config.data.open()
        check_same_data(self.dataset)
        self.sets = read_sets(list(config.evaluate.sets))
        if self.dataset.num_classes < world.size:
            raise ConfigError(
                f"{self.dataset.num_classes} classes cannot be shared out over {world.size} ranks; start at most "
                f"{self.dataset.num_classes} (torchrun --nproc_per_node)"
            )
        known = [f"{name}.{metric}" for name in self.sets for metric in METRICS]
        if config.checkpoint.best and config.checkpoint.best not in known:
            raise ConfigError(
                f"checkpoint.best: {config.checkpoint.best!r}: must be one of {', '.join(known) or 'none'}, which "
                "evaluate.sets are scored by"
            )
        self.order = config.data.build_order(self.dataset, config.seed)
        self.total_steps = config.train.total_steps(self.order.epoch_size)
        self.step = build_step(
            *(config, world),
            num_classes=self.dataset.num_classes,
            epoch_size=self.order.epoch_size,
            teacher=config.teacher.build(
                *(self.dataset, self.order, config.backbone.embedding_dim, config.train.global_batch_size, world)
            ),
        )
        self.checkpoints = CheckpointManager(self.folder / "checkpoints", config.checkpoint)
        self.void_steps = VoidSteps(config.train.void, self.total_steps)
        found = self.checkpoints.find(config.resume)
        trained_s = self._restore(found) if found else self._begin()
        self.checkpoints.prepare(self._tensors())
        collectives.from_rank_0(lambda: OmegaConf.save(OmegaConf.create(config.as_dict()), self.folder / RUN_CONFIG))
        self.metrics = Metrics(
            self.folder,
            config.train.log_every,
            self.total_steps,
            self.step.count,
            config.train.global_batch_size,
            quiet=not world.is_first,
            train_s=trained_s,
            trackers=self._open_trackers(),
            work=Work(described(self.step.backbone), self.step.head, self._image_size, world.size, world.device),
        )
        self.profile = StepProfile(config.train.profile, self.folder, world.rank, world.device)
        self.watch = HangWatch(config.runtime.step_timeout_s, world.rank)
        self.scores: dict[str, Scored] = {}
        self.measured: dict[str, float] = {}  # at this step, if it was evaluated

    def _prepare(self) -> None:
        """Do what one rank does for all: the folder, the rendered data, a first look at what is read later."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ".writable").touch()
            (self.folder / ".writable").unlink()
            remove_markers(self.folder)
        except OSError as error:
            raise ConfigError(f"folder: {self.folder}: cannot be written: {error.strerror}") from error
        self.config.data.render()
        dataset = self.config.data.open()
        _log.info(dataset.layout)
        if len(dataset) <= _LABELS_LOOKED_AT:
            dataset.labels()
        read_sets(list(self.config.evaluate.sets))

    def _open_trackers(self) -> FanOut | None:
        """Return rank 0's trackers; every rank calls it."""
        opened: list[FanOut] = []
        about = flat(self.config.as_dict())
        resumed = self.step.count > 0
        collectives.from_rank_0(
            lambda: opened.append(self.config.log.open(self.folder, self.config.name, about, resumed))
        )
        return opened[0] if opened else None

    def run(self) -> dict[str, Any]:
        """Train to the end and return the summary, which ``summary.json`` also holds (empty but on rank 0)."""
        try:
            self.watch.open()
            self.watch.at("the start", GRACE)
            self.step.warm_up(self._image_size(self.step.count))
            if self.config.evaluate.at_start and self.step.count == 0:
                self._evaluate()
            while self._loop():
                self._go_back()
            if self.step.count < self.total_steps:
                return self._leave_stopped()
            self.watch.at("the end", GRACE)
            return self._finish()
        finally:
            self.watch.close()
            self.profile.close()
            self.checkpoints.wait(_GRACE_S)
            self.metrics.close()

    def _loop(self) -> bool:
        """Train to the end, or until asked to stop; return whether the run has to go back to a checkpoint."""
        self.metrics.resume()
        for batch in self._batches():
            learning_rate = self.step.learning_rate
            self.step.head.margin.strength = self.config.margin.strength(self.step.count, self.total_steps)
            loss = self.step(batch, bool(self.stop))
            more: dict[str, float] = {}
            if self._due(self.config.train.log_every):
                more = self.step.stragglers.report(self.step.count) | self.step.communication.report()
                more |= own_angles(self.step.head)
                self.metrics.show_distribution("theta_rad", own_theta(self.step.head), self.step.count)
            self.metrics.record(self.step.count, loss, learning_rate, more, self.step.loss_parts)
            if self._due(self.config.runtime.replay_every):
                images = batch.images[: self.step.micro_batch]
                check_replay(whole(self.step.backbone), images, self.step.precision, self.step.count)
            last = self.step.count == self.total_steps
            saves = self._due(self.config.checkpoint.every)
            verdicts = self.step.verdicts.read(all_of_them=last or saves)  # so that no void step is saved unseen
            if self.void_steps.too_many(verdicts):
                return True
            stopping = any(verdict.stop for verdict in verdicts)
            self.measured = {}
            if (self._due(self.config.evaluate.every) and not stopping) or last:
                self._evaluate()
            best = self.checkpoints.is_best(self.measured)
            if (saves and not self.void_steps.in_a_row) or last or best or stopping:
                self._save(wait=last or best or stopping)
            elif self._due(self.config.runtime.check_every):
                self._check_agreement()
            if stopping:
                break
        return False

    def _go_back(self) -> None:
        """Go on from the newest checkpoint of this run; its draws being functions of the step, nothing else moves."""
        self.watch.at("going back", GRACE)
        self.checkpoints.wait()
        found = self.checkpoints.newest(self.checkpoints.folder)
        if found is None:
            raise DivergedError(
                f"step {self.step.count}: loss or gradients are not finite, and there is no checkpoint yet to go back "
                f"to; {REMEDY}"
            )
        before = self.step.count
        self.step.verdicts.forget()
        self.step.settle()
        self._restore(found)
        self.metrics.go_back(self.step.count)
        if self.world.is_first:
            _log.warning("after too many void steps the run goes back from step %d to %d", before, self.step.count)

    def _due(self, every: int) -> bool:
        return every > 0 and self.step.count % every == 0

    def _image_size(self, step: int) -> int:
        return self.config.train.image_size_at(step, self.total_steps, self.config.data.image_size)

    def _batches(self) -> Iterator[Batch]:
        """Yield the batches that are left, on the device."""
        config = self.config
        loader = config.data.build_loader(
            *(self.dataset, self.order, config.train.global_batch_size),
            *(self.world.rank, self.world.size, self.world.device, self._image_size),
        )
        if self.world.is_first:
            _log.info("batches by %s", type(loader).__name__)
        batches = loader.batches(self.step.count, self.total_steps)
        times = GRACE  # the first step compiles, fills caches and opens files
        while True:
            self.profile.begin(self.step.count + 1)
            start = time.monotonic()
            self.watch.at(f"the batch of step {self.step.count + 1}", times)
            with named_range("data"):
                batch = next(batches, None)
            waited_s = time.monotonic() - start
            self.metrics.waited_for_data(waited_s)
            self.step.stragglers.waited(waited_s)
            if batch is None:
                return
            self.watch.at(f"step {self.step.count + 1}", times)
            yield batch.to(self.world.device)
            times = 1

    def _tensors(self) -> dict[str, Tensor]:
        step, head = self.step, self.step.head
        return training_tensors(
            *(step.backbone, head.centers, head.num_classes, step.optimizer),
            subcenters=head.subcenters,
            sharded=head.sharded_tensors(),
            replicated=head.replicated_tensors(),
            average=None if step.average is None else step.average.model,
            group_size=head.group_size,
        )

    def _begin(self) -> float:
        """Take over what a run that begins is given of another one; return its seconds of training, none."""
        config, step = self.config, self.step
        if config.init:
            load_initial(config.init, step.backbone)
        if config.head.initial == "class_means":
            plain = (whole(step.backbone), self.dataset, config.data)
            centers_from_means(step.head, *plain, config.train.global_batch_size, self.world)
        if step.average is not None:
            step.average.restart()
        return 0.0

    def _restore(self, found: Path) -> float:
        """Go on from a checkpoint, if it is of this configuration; return its seconds of training."""
        if is_arcface_torch(found):
            epochs = load_arcface_torch(found, self._tensors())
            self.step.count = round(epochs * self.order.epoch_size / self.config.train.global_batch_size)
            return 0.0
        marker = read_marker(found)
        check_same_run(found, marker, self.config, num_classes=self.dataset.num_classes, images=len(self.dataset))
        from arcdist.checkpoint.reader import load  # a second to import: a run that begins needs it not

        load(found, self._tensors(), checked=True)
        self.step.count = marker["step"]
        if marker["scaler"] and self.step.scaler.is_enabled():
            self.step.scaler.load_state_dict(marker["scaler"])
        keep_choices(self.step, self.config, marker)
        if self.world.is_first:
            _log.info("resumed from %s, step %d of %d", found, self.step.count, self.total_steps)
        return marker["train_s"]

    def _check_agreement(self) -> None:
        """Stop the run where ranks have drifted apart."""
        check_agreement(held_alike(self._tensors()), self.step.count)

    def _save(self, wait: bool = False) -> None:
        self.metrics.pause()
        self.watch.at(f"saving step {self.step.count}", GRACE)
        step = self.step
        step.settle()
        if self.config.runtime.check_every:
            self._check_agreement()
        about = {
            "arcdist": arcdist.__version__,
            "backbone": self.config.backbone.name,
            "embedding_dim": self.config.backbone.embedding_dim,
            "image_size": self.config.data.image_size,
            "num_classes": step.head.num_classes,
            "images": len(self.dataset),
            **choices(step),
            "train_s": self.metrics.train_s,
            "world_size": self.world.size,
            "scaler": step.scaler.state_dict(),
            "metrics": self.measured,
            "config": self.config.as_dict(),
        }
        self.checkpoints.save(step.count, self._tensors(), about, wait)
        if step.count == self.total_steps and (fault := self.checkpoints.wait()):
            raise CheckpointError(f"the run is done, but {fault}; make room, and start it again to have it saved")
        self.metrics.resume()

    def _evaluate(self) -> None:
        """Score every set on all ranks; training's clock stands still."""
        if not self.sets:
            return
        self.metrics.pause()
        self.watch.at(f"evaluating step {self.step.count}", GRACE)
        self.scores = score_sets(
            whole(self.step.trained),
            self.sets,
            self.config.evaluate,
            device=self.world.device,
            image_size=self.config.data.image_size,
            precision=self.step.precision,
        )
        for name, (result, _) in self.scores.items():
            self.measured |= {f"{name}.{metric}": getattr(result, metric) for metric in METRICS}
            values = {f"{name}/accuracy": result.accuracy, f"{name}/std": result.std, f"{name}/eer": result.eer}
            self.metrics.write(self.step.count, values)
            told = f"accuracy {100 * result.accuracy:.2f} ± {100 * result.std:.2f} %"
            if self.world.is_first:
                _log.info("step %d/%d  %s: %s", self.step.count, self.total_steps, name, told)
        self.metrics.resume()

    def _leave_stopped(self) -> dict[str, Any]:
        """Say that the run was asked to stop and goes on with the same command."""
        if self.world.is_first:
            about = {"step": self.step.count, "total_steps": self.total_steps, "signal": self.stop.signal}
            leave_marker(self.folder, STOPPED, about)
            _log.info("stopped after step %d of %d; the same command goes on", self.step.count, self.total_steps)
        return {}

    def _finish(self) -> dict[str, Any]:
        if not self.scores:  # of a run that was done before
            self._evaluate()
        if not self.world.is_first:
            return {}
        about = self._summary() | summary.machine() | summary.reached(self.scores, self.metrics.history())
        about |= self.checkpoints.keep_weights(self.step.count, self.folder)
        self.metrics.take_bar_down()
        summary.leave(self.folder, about, self.scores, self.metrics, self.config.json)
        self.metrics.finish(about)
        leave_marker(self.folder, FINISHED, {"step": self.step.count, "total_steps": self.total_steps})
        return about

    def _summary(self) -> dict[str, Any]:
        losses = [record["loss"] for record in self.metrics.history() if "loss" in record]
        return {
            "name": self.config.name,
            "folder": str(self.folder),
            "seed": self.config.seed,
            "steps": self.step.count,
            "images_seen": self.step.count * self.config.train.global_batch_size,
            "images": len(self.dataset),
            "num_classes": self.dataset.num_classes,
            "loss": losses[-1] if losses else None,
            "images_per_s": round(self.metrics.images_per_s, 2),
            "void_steps": self.void_steps.count,
            "seconds": round(self.metrics.train_s, 2),
            "data_wait_s": round(self.metrics.wait_s, 2),
            "world_size": self.world.size,
            "device": str(self.world.device),
            **choices(self.step),
            "image_size_changes": self.config.train.image_size_changes(self.total_steps),
            "backbone": self.config.backbone.name,
            "parameters": sum(parameter.numel() for parameter in self.step.backbone.parameters()),
        }


def train(config: TrainConfig, world: World) -> dict[str, Any]:
    """Do a whole run and return its summary; empty but on rank 0, and where the run was asked to stop.

    Errors: StoppedElsewhereError where it stopped, and this node's launcher is not told to.
    """
    with StopRequest() as stop, memory_advice(config, world):
        trainer = Trainer(config, world, stop)
        summary = trainer.run()
    if trainer.step.count < trainer.total_steps and stop.is_of_another_node():
        close_world()
        raise StoppedElsewhereError("another node was asked to stop; the run goes on where this one's launcher is left")
    return summary

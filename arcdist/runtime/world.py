"""The processes of a run and the device of each: one process without a launcher, or torchrun on any number of nodes."""

import datetime
import logging
import os
import socket
import threading
import time
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from arcdist.errors import ArcdistError, ConfigError
from arcdist.runtime import allocator
from arcdist.runtime.cores import usable_cores
from arcdist.runtime.float32_products import LIBRARIES, choose_library
from arcdist.runtime.hang_watch import end_after

_log = logging.getLogger("arcdist")
_MOST_S = 100_000_000  # three years; a watch that is set to a century is refused by the system
_LEAVING_S = 60.0
_NAMING_S = 5.0  # until a name without an address is told of
_ANSWERING_S = 10.0  # past all timeouts of its own torch waits for who hears and does not answer


class WorldError(ArcdistError):
    """The processes of a run cannot be joined: a port, an address, a device."""


@dataclass
class RuntimeConfig:
    """What the processes run on."""

    device: str = field(default="auto", metadata={"help": "auto | cpu | cuda; auto takes a GPU where there is one"})
    threads: int = field(default=0, metadata={"help": "CPU threads of a rank; 0 shares this node's cores out"})
    timeout_s: int = field(default=300, metadata={"help": "longest wait for another rank, in seconds"})
    step_timeout_s: int = field(
        default=240,
        metadata={
            "help": "longest step in seconds: past it every rank prints what it is doing, and the run ends for its "
            "launcher to start it again; 10 times as long for a first step, evaluation and saving; less than "
            "timeout_s, so that it comes first; 0: no limit"
        },
    )
    deterministic: bool = field(
        default=False,
        metadata={"help": "kernels that give the same bits in every run, where there are several; they cost time"},
    )
    check_every: int = field(
        default=1000,
        metadata={
            "help": "steps between two looks whether the ranks hold the same weights; also before a save; 0: none"
        },
    )
    replay_every: int = field(
        default=0,
        metadata={
            "help": "steps between two looks whether each device computes the same embeddings and gradients twice; "
            "on GPUs with deterministic=true; 0: none"
        },
    )
    float32_products: str = field(
        default="auto",
        metadata={"help": "auto | blas | onednn, of a CPU; auto: oneDNN where it is faster and does not round"},
    )
    keep_memory: bool = field(
        default=True, metadata={"help": "keep freed CPU memory in the process: faster steps, a larger peak"}
    )

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"runtime.device: {self.device!r}: must be one of auto, cpu, cuda")
        if self.float32_products not in ("auto", *LIBRARIES):
            raise ConfigError(
                f"runtime.float32_products: {self.float32_products!r}: must be one of auto, {', '.join(LIBRARIES)}"
            )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("runtime.device: 'cuda': torch sees no CUDA device here; use runtime.device=cpu")
        if not 0 <= self.threads <= 1024:
            raise ConfigError(f"runtime.threads: {self.threads}: must be from 0 (cores shared out) to 1024")
        if not 1 <= self.timeout_s <= _MOST_S:
            raise ConfigError(f"runtime.timeout_s: {self.timeout_s}: must be from 1 to {_MOST_S:,}")
        if self.check_every < 0:
            raise ConfigError(f"runtime.check_every: {self.check_every}: must be 0 (never) or more")
        if self.replay_every < 0:
            raise ConfigError(f"runtime.replay_every: {self.replay_every}: must be 0 (never) or more")
        if self.replay_every and self.device != "cpu" and torch.cuda.is_available() and not self.deterministic:
            raise ConfigError(
                "runtime.replay_every: on a GPU the usual kernels give other bits each time; set "
                "runtime.deterministic=true too"
            )
        if not 0 <= self.step_timeout_s <= _MOST_S:
            raise ConfigError(
                f"runtime.step_timeout_s: {self.step_timeout_s}: must be from 0 (no limit) to {_MOST_S:,}"
            )


@dataclass(frozen=True)
class World:
    """This process's place among the ranks of a run."""

    rank: int
    size: int
    local_rank: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone writes and prints."""
        return self.rank == 0


def rank_from_environment() -> int:
    """Return the rank that the launcher gave this process, 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def open_world(config: RuntimeConfig) -> World:
    """Return this process's World; the process group, if a launcher asked for one, lives until ``close_world``.

    So the runs of a sweep share it: a launcher's store serves one rendezvous.

    The environment is torchrun's (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT). Without it the run is a
    world of one and no port is opened.

    Errors: WorldError when the ranks do not find each other.
    """
    rank, size = rank_from_environment(), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    _be_deterministic(config.deterministic)
    device = device_of_rank(config.device, local_rank)
    torch.set_num_threads(config.threads or max(1, usable_cores() // local_size))
    if device.type == "cpu" and config.keep_memory:
        allocator.keep_memory()
    if "WORLD_SIZE" in os.environ:
        _join(device, rank, size, config.timeout_s)
    if device.type == "cpu":
        choose_library(config.float32_products)
    return World(rank, size, local_rank, device)


def close_world() -> None:
    """Leave the process group, at the end of a program that went well.

    After an error nobody waits for anybody: the process ends, and its peers notice. So it does, with 1 and its stacks,
    where it has not ended by itself a minute later: a rank that does not come, a thread that does not return.
    """
    if dist.is_initialized():
        end_after(_LEAVING_S)
        dist.barrier()  # rank 0 may hold the store, and leaves last
        dist.destroy_process_group()


def abandon_world() -> None:
    """Leave a process group that is broken, and wait for nobody."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _be_deterministic(wanted: bool) -> None:
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(wanted)
    # To fill memory before it is written is for who looks for reads of it; it costs a pass over every tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # ty: ignore[missing-attribute]


def device_of_rank(kind: str, local_rank: int) -> torch.device:
    """Return what a rank of this node computes on, and make it torch's current device.

    Errors: WorldError where there are fewer GPUs than ranks.
    """
    if kind == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise WorldError(
            f"local rank {local_rank} has no GPU: this node has {torch.cuda.device_count()}; start at most that many "
            "ranks a node (torchrun --nproc_per_node)"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def _join(device: torch.device, rank: int, size: int, timeout_s: int) -> None:
    if dist.is_initialized():
        return
    shares_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if shares_store and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        raise WorldError(
            "torchrun has restarted the ranks, but they would read the dead ranks' addresses in its store, and wait in "
            "vain; set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in torchrun's environment and start again: the run goes on"
        )
    if "MASTER_ADDR" not in os.environ:
        raise WorldError("WORLD_SIZE is set, but MASTER_ADDR is not; start the ranks with torchrun")
    address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    _wait_for_name(os.environ["MASTER_ADDR"], rank, timeout_s)
    silence = threading.Timer(2 * timeout_s + _ANSWERING_S, _give_up, [f"rank {rank} of {size}", address])
    silence.daemon = True
    silence.start()
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            timeout=datetime.timedelta(seconds=timeout_s),
            device_id=device if device.type == "cuda" else None,
        )
    except (dist.DistError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        advice = "is another run using this port? Choose a free one (torchrun --master_port, or --standalone)"
        if "EADDRINUSE" not in reason and "in use" not in reason:
            advice = f"are all ranks started, and can they reach this address? {_interfaces(device)}"
        raise WorldError(f"rank {rank} of {size} cannot join the run at {address}: {reason}; {advice}") from error
    finally:
        silence.cancel()


def _wait_for_name(name: str, rank: int, timeout_s: float) -> None:
    """Wait until the first rank's host has an address here; a cluster may give it one a little later than its ranks.

    torch would wait as long, on every rank in its own way, and not say for what.

    Errors: WorldError where it has none when the time is over.
    """
    begun = time.monotonic()
    warned = False
    while True:
        try:
            socket.getaddrinfo(name, None)
            return
        except (OSError, UnicodeError):
            waited_s = time.monotonic() - begun
        if waited_s > timeout_s:
            raise WorldError(
                f"rank {rank} cannot join the run: {name!r}, the host of rank 0, has no address on "
                f"{socket.gethostname()}: add it to /etc/hosts or to the name service, or tell torchrun an address: "
                "--local-addr=ADDRESS, which is 127.0.0.1 on one node"
            )
        if waited_s > _NAMING_S and not warned and os.environ.get("LOCAL_RANK", "0") == "0":
            warned = True
            _log.warning("%r, the host of rank 0, has no address here yet; waiting at most %d s", name, timeout_s)
        time.sleep(min(1.0, timeout_s / 10))


def _give_up(who: str, address: str) -> None:
    """End the process, whose main thread waits without end."""
    told = f"arcdist: {who} cannot join the run at {address}: what hears there does not answer; is it another program?"
    os.write(2, f"{told} Choose another port (torchrun --master_port)\n".encode())
    os._exit(1)


def _interfaces(device: torch.device) -> str:
    """Return which network interfaces this host has, and how one is chosen: the wrong one reaches nobody."""
    variable = "NCCL_SOCKET_IFNAME" if device.type == "cuda" else "GLOO_SOCKET_IFNAME"
    names = ", ".join(name for _, name in socket.if_nameindex())
    chosen = os.environ.get(variable)
    return f"{socket.gethostname()} has {names}; {variable}{f' is {chosen}, and' if chosen else ''} chooses one"

"""``arcdist VERB …``: find the verb, and turn what it raises into one message and an exit code."""

import difflib
import errno
import importlib
import os
import resource
import sys
from collections.abc import Sequence

import arcdist
from arcdist.errors import ArcdistError, ConfigError

VERBS = {
    "train": "train a model: backbone, sharded head, data, schedule, from one configuration",
    "evaluate": "score a checkpoint, other projects' weights, or a file of embeddings on verification sets",
    "embed": "make a file of embeddings of a .rec, a .bin, an image or a folder of images, on all ranks",
    "export": "write a trained backbone for others: a model hub's folder, ONNX, insightface, torch.export",
    "search": "say whose faces of a gallery, a file of embeddings, are nearest to these",
    "report": "make one HTML file of a finished run: results, pictures, configuration, environment",
    "align": "find faces in photographs and warp them to the template, 112×112",
    "pack": "make a .rec of a folder of images, of other .rec files (merged, split, filtered), or of rendered faces",
    "inspect": "say what a .rec or .bin holds, check every record of it, or its labels with a trained model",
    "migrate": "print the command that trains what a configuration file of arcface_torch says",
    "reproduce": "train a table of the ArcFace paper again, cell by cell, and print it beside the paper's",
    "bench": "measure the head, the whole step, its parts or the loaders beside others; damage files, kill runs",
    "doctor": "say whether a machine, or the ranks on several, are fit to train, and what to do where they are not",
    "plan": "say what a configuration needs on a cluster: memory, time, communication, cost",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 0, 1 for a fault of the input, 2 for one of the command line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"arcdist {arcdist.__version__}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        meant = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {meant[0]!r}?" if meant else ""
        print(f"arcdist: {verb!r} is no verb{hint}\n\n{usage()}", file=sys.stderr)
        return 2
    try:
        code = importlib.import_module(f"arcdist.cli.{verb}").main(rest)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has what it wanted: `arcdist train --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        code = tell(verb, error)
        if code is None:
            raise
        return code
    leave_world()
    return code


def leave_world() -> None:
    """Leave the process group, if this program has joined one."""
    world = sys.modules.get("arcdist.runtime.world")  # a verb that joins none has not imported it
    if world is not None:
        world.close_world()


def usage() -> str:
    """Return the page that ``arcdist --help`` prints."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {meaning}" for verb, meaning in VERBS.items()]
    return "\n".join(
        ["usage: arcdist VERB [key=value …]", "", *lines, "", "arcdist VERB --help lists the keys of a verb."]
    )


def tell(verb: str, error: Exception) -> int | None:
    """Print what a user can mend, once a node where all ranks know it; return the exit code, or None for a defect."""
    from arcdist.runtime.collectives import is_peer_failure

    rank, local_rank = os.environ.get("RANK", "0"), os.environ.get("LOCAL_RANK", "0")
    if is_peer_failure(error):
        print(f"arcdist {verb}: rank {rank}: stopped, because another rank did", file=sys.stderr)
        return 1
    if os.strerror(errno.EMFILE) in str(error):  # of whichever library
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        reason = str(error).splitlines()[0]
        print(f"arcdist {verb}: rank {rank}: {reason}; {limit} may be open: raise that by ulimit -n", file=sys.stderr)
        return 1
    if not isinstance(error, ArcdistError):
        return None
    if local_rank == "0" or not error.on_every_rank:
        where = "" if error.on_every_rank or "WORLD_SIZE" not in os.environ else f"rank {rank}: "
        print(f"arcdist {verb}: {where}{type(error).__name__}: {error}", file=sys.stderr)
    return 2 if isinstance(error, ConfigError) else 1

"""Train on the ranks that torchrun starts: ``torchrun --nproc_per_node=2 launch/train.py key=value …``."""

import sys

from arcdist.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))

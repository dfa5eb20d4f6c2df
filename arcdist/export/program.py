"""A backbone as an archive of ``torch.export``: runs without arcdist's code, and can be compiled ahead of time."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from arcdist.export.graph import Graph, GraphConfig, trace
from arcdist.export.parity import Parity, compare
from arcdist.export.written import written

METADATA = "metadata.json"


def export_program(backbone: nn.Module, path: Path, config: GraphConfig, metadata: Mapping[str, str]) -> Parity:
    """Write a ``.pt2`` of any batch size, and return its parity with the network: ``torch.export.load(PATH).module()``.

    Args:
        backbone: in float32, on the CPU.
        path: of the file.
        config: what the graph takes and gives.
        metadata: becomes its extra file ``metadata.json``.

    Errors: ExportError where the loaded program gives something else; DataError where the file cannot be written.
    """
    graph = Graph(backbone, config)
    program, told = trace(graph), {METADATA: json.dumps({**metadata, "input": config.input})}
    with written(path) as aside:
        with aside.open("wb") as file:  # of a path that it cannot write torch says so by a RuntimeError
            torch.export.save(program, file, extra_files=told)
        return compare(graph, torch.export.load(aside).module(), str(path))

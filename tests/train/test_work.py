"""A run records its arithmetic: the products of the real net and head, times images a second."""

import json
from pathlib import Path

import pytest
import torch
from small_runs import losses_of_run, small_config
from torch.utils.flop_counter import FlopCounterMode

from arcdist.backbones import create_backbone
from arcdist.bench.whole_steps import with_layers_of_torch
from arcdist.heads import PartialFC
from arcdist.train.work import Work, forward_flops, peak_tflop_per_s


@pytest.mark.parametrize("name", ["tiny", "mbf", "r18"])
def test_what_is_counted_without_computing_is_what_a_forward_pass_does(name: str) -> None:
    net = create_backbone(name, 64)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    counted = forward_flops(net, 112)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    with_layers_of_torch(net)  # ours do more products than the model has, where they are faster so
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(3, 3, 112, 112))
    assert counted == counter.get_total_flops() / 3 > 0


def test_the_head_counts_the_centers_that_take_part() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 8, bias=False))
    head = PartialFC(8, 100, sample_rate=0.5)
    of_an_image = 6 * 3 * 16 * 16 * 8 + 6 * 8 * 50
    work = Work(net, head, lambda step: 16, 1, torch.device("cpu"))
    assert work.told(1, 1e6) == {"tflop_per_s": pytest.approx(of_an_image / 1e6)}


def test_a_gpu_is_known_by_whole_words_of_its_name() -> None:
    names = ["NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA A100-SXM4-80GB", "NVIDIA L4", "NVIDIA L40", ""]
    assert [peak_tflop_per_s(name) for name in names] == [989, 756, 312, 121, None, None]


def test_the_record_of_a_run_holds_it(faces: Path, tmp_path: Path) -> None:
    losses_of_run(small_config(tmp_path, faces / "train.rec", {"train": {"steps": 2}}))
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [record["tflop_per_s"] / record["images_per_s"] for record in records if "loss" in record]
    assert len(rates) == 2
    assert rates[0] == pytest.approx(rates[1])
    assert rates[0] > 0

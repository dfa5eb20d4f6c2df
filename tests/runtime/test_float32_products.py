"""arcdist.runtime.float32_products."""

from typing import Any

import pytest
import torch
from torch import Tensor

from arcdist.errors import ConfigError
from arcdist.runtime import float32_products
from arcdist.runtime.float32_products import LIBRARIES, choose_library, is_float32, keep_library, library


@pytest.fixture
def rounding_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round factors to bfloat16 under oneDNN, as it does on a CPU with units for that."""
    products = float32_products._products

    def rounded(*factors: Tensor) -> list[Tensor]:
        narrow = library() == "onednn" and factors[0].dtype == torch.float32
        return products(*(factor.bfloat16().float() if narrow else factor for factor in factors))

    monkeypatch.setattr(float32_products, "_products", rounded)


def test_auto_takes_a_library_that_does_not_round() -> None:
    chosen = choose_library("auto")
    assert chosen in LIBRARIES
    assert chosen == library()
    assert is_float32(chosen)


def test_a_product_by_the_chosen_library_has_float32s_error() -> None:
    draws = torch.Generator().manual_seed(3)
    a, b = torch.randn(256, 512, generator=draws), torch.randn(512, 3000, generator=draws)
    exact = a.double() @ b.double()
    choose_library("auto")
    assert (a @ b - exact).norm() / exact.norm() < 1e-6


@pytest.mark.parametrize("faster", LIBRARIES)
def test_auto_takes_the_faster_one(faster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_faster(work: Any, than: Any) -> bool:
        work(), than()
        return faster == "onednn"

    monkeypatch.setattr(float32_products, "is_faster", is_faster)
    monkeypatch.setattr(float32_products, "is_float32", lambda name: True)  # as on a CPU without AMX
    assert choose_library("auto") == faster


@pytest.mark.usefixtures("rounding_onednn")
def test_a_library_that_rounds_is_passed_by_however_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float32_products, "is_faster", lambda work, than: True)
    assert choose_library("auto") == library() == "blas"


@pytest.mark.usefixtures("rounding_onednn")
def test_asking_for_a_library_that_rounds_is_an_error_that_names_what_works() -> None:
    with pytest.raises(ConfigError, match="float32_products: 'onednn': rounds to bfloat16.*blas"):
        choose_library("onednn")


@pytest.mark.usefixtures("rounding_onednn")
def test_a_run_goes_on_with_blas_where_its_own_library_rounds() -> None:
    assert keep_library("onednn") == library() == "blas"


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_run_goes_on_with_the_library_it_began_with(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float32_products, "is_float32", lambda name: True)  # as on a CPU without AMX
    assert keep_library(name) == library() == name

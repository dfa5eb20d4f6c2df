"""The Triton kernels fit the GPUs that they are meant for: compiled ahead of time, which needs none."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple, get_args

import pytest

pytest.importorskip("triton", reason="Triton is not installed: pip install arcdist[triton]")

import triton
from triton.backends.compiler import GPUTarget

from arcdist.ops.margin_logsumexp import triton as kernels

D = 512
SHARED_MEMORY_KIB = {80: 99, 90: 227}  # 99 is what sm_86 and sm_89 have too; sm_80 alone has 163
HOPPER, OTHERS = 0, 1
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


class Compiled(NamedTuple):
    """What a compiled kernel takes of a multiprocessor, and its machine code, one instruction a line."""

    registers: int
    stack: int
    shared_kib: float
    code: list[str]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of its own for what is compiled: nothing of an earlier version is found there."""
    return tmp_path_factory.mktemp("triton")


def _compile(name: str, products: kernels.Products, centers: str, arch: int, folder: Path) -> Compiled:
    kernel = getattr(kernels, f"_{name}")
    tile = kernels._TILES[name, products][HOPPER if arch == 90 else OTHERS]
    constants = kernels._constants(tile, D, products)
    options = {option: constants.pop(option) for option in ("num_stages", "num_warps")}
    types = {
        "embedding": "*bf16" if products == "bf16" else "*fp32",
        "centers": f"*{centers}",
        "target": "*i32",
        **dict.fromkeys(("inverse_norm", "lse", "weight", "cosine_gradient", "partial", "gradient"), "*fp32"),
        "scale": "fp32",
    }
    signature = {
        argument: "constexpr" if argument in constants else types.get(argument, "i32") for argument in kernel.arg_names
    }
    at = {argument: (position,) for position, argument in enumerate(kernel.arg_names)}
    source = triton.compiler.ASTSource(
        kernel,
        signature,
        {at[constant]: value for constant, value in constants.items()},
        {
            at[argument]: [["tt.divisibility", 16]]
            for argument in kernel.arg_names
            if signature[argument].startswith("*")
        },
    )
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(folder)
        built = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    cubin = folder / f"{name}.{products}.{centers}.{arch}.cubin"
    cubin.write_bytes(built.asm["cubin"])
    usage, code = (
        subprocess.run([CUOBJDUMP, option, cubin], check=True, text=True, capture_output=True).stdout
        for option in ("-res-usage", "-sass")
    )
    (registers, stack), *_ = re.findall(r"REG:(\d+) STACK:(\d+)", usage)
    return Compiled(int(registers), int(stack), built.metadata.shared / 1024, code.splitlines())


@pytest.mark.parametrize("arch", SHARED_MEMORY_KIB)
@pytest.mark.parametrize("products", get_args(kernels.Products))
@pytest.mark.parametrize("name", ["forward", "embedding_gradient", "centers_gradient"])
def test_nothing_spills_and_shared_memory_suffices(
    name: str, products: kernels.Products, arch: int, cache: Path
) -> None:
    for centers in ("fp32", "bf16") if products == "bf16" else ("fp32",):
        compiled = _compile(name, products, centers, arch, cache)
        print(
            f"{name} {products} {centers} centers sm_{arch}: {compiled.registers} registers, {compiled.stack} spilled,"
            f" {compiled.shared_kib:.1f} KiB shared"
        )
        assert compiled.stack == 0
        assert compiled.shared_kib <= SHARED_MEMORY_KIB[arch]
        if products == "bf16":
            products_in_code = [line for line in compiled.code if ("HGMMA" if arch == 90 else "HMMA") in line]
            assert products_in_code, "bf16 products do not use the tensor cores"
            # wgmma runs beside the program until it is waited for, unless registers are too few for that.
            waited_for = sum("gsb0" in line for line in products_in_code)
            assert waited_for <= len(products_in_code) / 4, "each wgmma is waited for"

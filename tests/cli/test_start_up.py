"""What a run imports before its first step."""

import subprocess
import sys

LATER = ("sympy", "torch.distributed.tensor", "torch.distributed.checkpoint", "torch._dynamo", "matplotlib", "onnx")


def test_a_run_is_refused_before_what_takes_a_second_to_import() -> None:
    code = f"import sys, arcdist.cli.train; print([name for name in {LATER} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", "imported at the top of a file on the way to the first step; see state.py"

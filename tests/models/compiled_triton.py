"""The Triton kernels compiled for GPUs that need not be there; ``test_triton.py`` runs this file and reads its lines.

Compiling needs triton's own compiler and no device: what a GPU would refuse for its syntax, types or tile sizes, or
for want of shared memory, shows here. It does not work beside the interpreter, so ``TRITON_INTERPRET`` must not be
set: ``python tests/models/compiled_triton.py '[[90, "bfloat16", 32]]'``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.attention.ops.triton_backend import _tiling
from models.attention.ops.triton_kernels import attend_kernel, grad_keys_values_kernel, grad_queries_kernel

KERNELS = (attend_kernel, grad_queries_kernel, grad_keys_values_kernel)
LAUNCH_OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")  # of the tiling, those that are no argument
POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
OTHER_TYPES = {"scale": "fp32", "logit_scale": "fp32", "routed": "*i64", "lookers": "*i64", "bounds": "*i64",
               "sums": "*fp32", "deltas": "*fp32"}  # fmt: skip


def shared_memory(kernel: triton.JITFunction, capability: int, dtype: torch.dtype, head: int) -> int:
    """Compile a kernel for heads of ``head`` channels; bytes of shared memory that a program of it takes."""
    tiling = _tiling(torch.empty(1, 100, 3 * head, dtype=dtype), 1, 400, True)
    options = {name: tiling.pop(name) for name in LAUNCH_OPTIONS}
    types = dict.fromkeys(("qkv", "out", "grad_out", "grad_qkv"), POINTERS[dtype]) | OTHER_TYPES
    signature = {name: "constexpr" if name in tiling else types.get(name, "i32") for name in kernel.arg_names}
    constants = {(kernel.arg_names.index(name),): value for name, value in tiling.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert compiled.asm["cubin"]
    return compiled.metadata.shared


def main(cases: list[tuple[int, str, int]]) -> None:
    """Print a line for each kernel of each (capability, type, head width)."""
    for capability, dtype, head in cases:
        for kernel in KERNELS:
            print("shared", shared_memory(kernel, capability, getattr(torch, dtype), head))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

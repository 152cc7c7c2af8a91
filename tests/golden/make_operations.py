"""Makes operations.safetensors, with PyTorch alone: what the operations of lesson 5b compute, and their gradients.

    pip install torch safetensors
    python make_operations.py OUT [SEED]

Of each case: the inputs `CASE/in.0`, …, the results `CASE/out.0`, … (floats, or integers for positions), and, where the
first result has gradients, `CASE/cot`, dL/d(out.0), with `CASE/grad.0`, …, dL/d(in.0), …
"""
import sys
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

out = sys.argv[1]
torch.manual_seed(int(sys.argv[2]) if len(sys.argv) > 2 else 11)
a, b, images = torch.randn(3, 4, 5), torch.rand(4, 5) + 0.5, torch.randn(2, 3, 5, 7)
square = torch.randn(2, 4, 4)
with_zeros = torch.randn(3, 4) * torch.tensor([[1.0, 1, 1, 1], [1, 0, 1, 1], [0, 1, 0, 1]])
ties = torch.tensor([[2.0, 3, 1, 3], [0, 0, -1, 5]])
CASES = {
    "flatten": ([a], lambda x: x.flatten(1, -1)),
    "unflatten": ([images], lambda x: x.unflatten(-3, (3, -1))),
    "repeat": ([a[0]], lambda x: x.repeat(2, 1, 3)),
    "flip": ([a], lambda x: x.flip([0, -1])),
    "roll": ([a], lambda x: x.roll(-2, 1)),
    "narrow": ([a], lambda x: x.narrow(-1, 1, 3)),
    "chunk": ([a], lambda x: torch.chunk(x, 3, -1)),
    "split": ([a], lambda x: torch.split(x, 3, 1)),
    "unbind": ([a], lambda x: torch.unbind(x, 1)),
    "pad": ([images], lambda x: F.pad(x, (1, 2, 0, 3), value=0.5)),
    "nearest": ([images], lambda x: F.interpolate(x, (8, 3))),
    "bilinear": ([images], lambda x: F.interpolate(x, (3, 12), mode="bilinear")),
    "max": ([ties], lambda x: torch.max(x, 1)),
    "min": ([a], lambda x: torch.min(x, 0)),
    "argmin": ([a], lambda x: torch.argmin(x, -1)),
    "sort": ([a], lambda x: torch.sort(x, 1)),
    "topk": ([a], lambda x: torch.topk(x, 3, 1)),
    "tril": ([square], lambda x: x.tril(1)),
    "triu": ([square], lambda x: x.triu(-1)),
    "norm": ([a], lambda x: x.norm(dim=(0, 2))),
    "cumsum": ([a], lambda x: x.cumsum(1)),
    "prod": ([with_zeros], lambda x: x.prod(1)),
    "sin": ([a], torch.sin),
    "cos": ([a], torch.cos),
    "pow": ([b, a], torch.pow),
    "einsum, batch": ([a, torch.randn(3, 5, 2)], lambda x, y: torch.einsum("bik,bkj->bij", x, y)),
    "einsum, sum": ([a], lambda x: torch.einsum("ijk->kj", x)),
    "einsum, diagonal": ([square, torch.randn(4)], lambda x, y: torch.einsum("bii,i->b", x, y)),
    "einsum, three": ([a, b, torch.randn(6)], lambda x, y, z: torch.einsum("ijk,jk,l->il", x, y, z)),
    "arange": ([], lambda: torch.arange(1.0, 2.0, 0.3)),
    "linspace": ([], lambda: torch.linspace(-1.0, 2.0, 7)),
}
tensors = {}
for name, (inputs, f) in CASES.items():
    inputs = [x.clone().requires_grad_() for x in inputs]
    results = f(*inputs)
    results = [results] if isinstance(results, torch.Tensor) else list(results)
    tensors |= {f"{name}/in.{i}": x.detach() for i, x in enumerate(inputs)}
    tensors |= {f"{name}/out.{i}": y.detach().contiguous() for i, y in enumerate(results)}
    if results[0].requires_grad:
        cot = torch.randn_like(results[0])
        results[0].backward(cot)
        tensors |= {f"{name}/cot": cot} | {f"{name}/grad.{i}": x.grad.contiguous() for i, x in enumerate(inputs)}
save_file({key: x.contiguous().clone() for key, x in tensors.items()}, f"{out}/operations.safetensors")

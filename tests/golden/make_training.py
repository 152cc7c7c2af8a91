#!/usr/bin/env python3
"""The first steps of three trainings in PyTorch on a CPU, for `cargo test --test training`.

usage: make_training.py OUT DATA [SEED] [--config FILE.json]     DATA: ../../data/mnist_sample.pkl.gz
       MINAI_GOLDEN=OUT cargo test --release --test training -- --ignored
       make_training.py OUT DATA --answer

The first writes training.json, training.safetensors, and pytorch.safetensors: the residual network after its steps.
The second trains that network in Rust and saves it as trained.safetensors; the third loads it and writes answers.safetensors,
what PyTorch makes of it. In training.safetensors, for each model:
  NAME/bits.PARAMETER  a checksum of the first weights, exact: the sum of (i + 1) times the bits of number i, mod 2^64
  NAME/order           the indices of each batch, as DataLoader(shuffle=True) gives them
  NAME/losses          the loss before each step; NAME/losses64: the same training in double precision
  NAME/lr, NAME/beta1  learning rate and momentum of each step
  NAME/scores          what the model says to the first validation images afterwards, in evaluation mode
"""
import argparse, gzip, json, pathlib, pickle
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset

parser = argparse.ArgumentParser()
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("data", type=pathlib.Path)
parser.add_argument("seed", type=int, nargs="?", default=42)
parser.add_argument("--answer", action="store_true", help="only load trained.safetensors, and say what comes out of it")
parser.add_argument("--config", type=pathlib.Path, help="replaces parts of MODELS")
args = parser.parse_args()
torch.set_num_threads(2)

MODELS = {
    "mlp": dict(sizes=[784, 50, 10], batch=50, steps=10, optimizer="sgd", lr=0.1, momentum=0.9),
    "cnn": dict(channels=[1, 4, 8, 16, 16, 10], batch=64, steps=10, optimizer="adam", lr=0.01),
    "resnet": dict(blocks=[[1, 8, 1], [8, 8, 2], [8, 16, 2], [16, 16, 2]], classes=10, batch=32, steps=10,
                   optimizer="adamw", max_lr=0.005, weight_decay=0.01),
}
IMAGES = 16
if args.config:
    for name, changes in json.loads(args.config.read_text()).items():
        MODELS[name] |= changes

with gzip.open(args.data) as file:
    (train_x, train_y), (valid_x, _), *_ = pickle.load(file, encoding="latin1")
train_x, train_y, valid_x = torch.from_numpy(np.array(train_x)), torch.from_numpy(np.array(train_y)).long(), torch.from_numpy(np.array(valid_x))
assert train_x.dtype == torch.float32


class Indices(Dataset):
    def __len__(self): return len(train_x)
    def __getitem__(self, i): return i


class Block(nn.Module):
    """Two convolutions, and a way around them."""
    def __init__(self, ni, nf, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(ni, nf, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(nf)
        self.conv2 = nn.Conv2d(nf, nf, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(nf)
        self.id = nn.Conv2d(ni, nf, 1) if ni != nf else nn.Identity()
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()

    def forward(self, x):
        y = self.bn2(self.conv2(F.leaky_relu(self.bn1(self.conv1(x)), 0.1)))
        return F.leaky_relu(y + self.id(self.pool(x)), 0.1)


def mlp(options):
    layers = []
    for i, o in zip(options["sizes"], options["sizes"][1:]):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(options):
    layers = []
    for i, o in zip(options["channels"], options["channels"][1:]):
        layers += [nn.Conv2d(i, o, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers[:-1], nn.Flatten())


def resnet(options):
    blocks, size = [Block(*block) for block in options["blocks"]], 28
    for *_, stride in options["blocks"]:
        size = -(-size // stride)
    features = options["blocks"][-1][1] * size * size
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(features, options["classes"]))


def checksum(weights):
    bits = weights.detach().numpy().reshape(-1).view(np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        return torch.from_numpy((np.arange(1, len(bits) + 1, dtype=np.uint64) * bits).sum(keepdims=True).view(np.int64).copy())


def optimizer_of(model, options):
    if options["optimizer"] == "sgd":
        return torch.optim.SGD(model.parameters(), options["lr"], momentum=options["momentum"]), None
    if options["optimizer"] == "adam":
        return torch.optim.Adam(model.parameters(), options["lr"]), None
    optimizer = torch.optim.AdamW(model.parameters(), options["max_lr"], weight_decay=options["weight_decay"])
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, options["max_lr"], total_steps=options["steps"])


def train(model, options, order, dtype):
    model, losses, rates = model.to(dtype).train(), [], []
    optimizer, schedule = optimizer_of(model, options)
    pictures = (lambda x: x) if "sizes" in options else (lambda x: x.view(-1, 1, 28, 28))
    for indices in order:
        group = optimizer.param_groups[0]
        rates.append((group["lr"], group["betas"][0] if "betas" in group else group["momentum"]))
        loss = F.cross_entropy(model(pictures(train_x[indices].to(dtype))), train_y[indices])
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        if schedule and len(losses) + 1 < len(order): schedule.step()
        losses.append(loss.item())
    with torch.no_grad():
        scores = model.eval()(pictures(valid_x[:IMAGES].to(dtype)))
    return losses, rates, scores


if args.answer:
    manifest = json.loads((args.out / "training.json").read_text())
    model = resnet(manifest["models"]["resnet"])
    model.load_state_dict(load_file(args.out / "trained.safetensors"), strict=True)
    with torch.no_grad():
        scores = model.eval()(valid_x[:manifest["images"]].view(-1, 1, 28, 28))
    print("classes", scores.argmax(1).tolist())
    save_file({"scores": scores}, args.out / "answers.safetensors")
    raise SystemExit

tensors = {}
args.out.mkdir(parents=True, exist_ok=True)
for name, options in MODELS.items():
    torch.manual_seed(args.seed)
    model = {"mlp": mlp, "cnn": cnn, "resnet": resnet}[name](options)
    first = {key: value.clone() for key, value in model.state_dict().items()}
    loader = iter(DataLoader(Indices(), options["batch"], shuffle=True))
    order = [next(loader) for _ in range(options["steps"])]
    losses, rates, scores = train(model, options, order, torch.float32)
    if name == "resnet":
        save_file(model.state_dict(), args.out / "pytorch.safetensors", metadata={"format": "pt"})
    model.load_state_dict(first)
    exact, _, exact_scores = train(model, options, order, torch.float64)
    print(name, [round(loss, 4) for loss in losses])
    print("  relative error of float32:", *(f"{abs(a - b) / b:.0e}" for a, b in zip(losses, exact)))
    print(f"  of the scores: {((scores - exact_scores).abs().max() / exact_scores.abs().max()).item():.0e}")
    tensors |= {f"{name}/bits.{key}": checksum(value) for key, value in first.items() if value.is_floating_point()}
    tensors |= {f"{name}/order": torch.stack(order), f"{name}/scores": scores,
                f"{name}/losses": torch.tensor(losses), f"{name}/losses64": torch.tensor(exact, dtype=torch.float64),
                f"{name}/lr": torch.tensor([lr for lr, _ in rates], dtype=torch.float64),
                f"{name}/beta1": torch.tensor([beta for _, beta in rates], dtype=torch.float64)}

save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, args.out / "training.safetensors")
manifest = {"seed": args.seed, "versions": {"torch": torch.__version__}, "images": IMAGES, "models": MODELS}
(args.out / "training.json").write_text(json.dumps(manifest, indent=1) + "\n")

"""Reference tensors of lessons 18, 22 and 24: a small U-Net that is told noise level and class, Karras's preconditioning, and
one training step, in plain PyTorch.

python make_diffusion.py OUT [SEED] [CHANNELS] [SIZE] [CLASSES]     such as: make_diffusion.py . 0 16,16 8 3
"""
import math
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

out, *rest = sys.argv[1:]
seed, channels, size, classes = (rest + ["0", "16,16", "8", "3"][len(rest):])[:4]
channels, size, classes = [int(c) for c in channels.split(",")], int(size), int(classes)
torch.manual_seed(int(seed))
WIDTH, WAVES, SIGMA_DATA = 128, 64, 0.5


def waves(t):
    half = WAVES // 2
    angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], 1)


class TimeEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(WAVES, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class Block(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time_emb_proj = nn.Linear(WIDTH, c_out)
        self.norm2, self.conv2 = nn.GroupNorm(8, c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        if c_in != c_out:
            self.conv_shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x, told):
        y = self.conv1(F.silu(self.norm1(x))) + self.time_emb_proj(told)[:, :, None, None]
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class Level(nn.Module):
    def __init__(self, c_in, c_out, resize=None):
        super().__init__()
        self.block = Block(c_in, c_out)
        if resize is not None:
            self.resize = resize


class UNet(nn.Module):
    def __init__(self, c):
        super().__init__()
        last = len(c) - 1
        self.time_embedding = TimeEmbedding()
        self.conv_in = nn.Conv2d(1, c[0], 3, padding=1)
        halve = lambda i: nn.Conv2d(c[i], c[i], 3, stride=2, padding=1) if i < last else None
        grow = lambda i: nn.Conv2d(c[i], c[i - 1], 3, padding=1) if i > 0 else None
        self.down = nn.ModuleList(Level(c[max(i - 1, 0)], c[i], halve(i)) for i in range(last + 1))
        self.middle = Block(c[last], c[last])
        self.up = nn.ModuleList(Level(2 * c[i], c[i], grow(i)) for i in range(last, -1, -1))
        self.norm_out, self.conv_out = nn.GroupNorm(8, c[0]), nn.Conv2d(c[0], 1, 3, padding=1)

    def embed(self, sigma):
        return self.time_embedding(waves(250 * sigma.log()))

    def forward(self, x, told):
        told, saved = F.silu(told), []
        x = self.conv_in(x)
        for level in self.down:
            x = level.block(x, told)
            saved.append(x)
            x = level.resize(x) if hasattr(level, "resize") else x
        x = self.middle(x, told)
        for level in self.up:
            x = level.block(torch.cat([x, saved.pop()], 1), told)
            if hasattr(level, "resize"):
                x = level.resize(F.interpolate(x, scale_factor=2, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(x)))


class ClassUNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.unet, self.classes = UNet(channels), nn.Embedding(classes + 1, WIDTH)

    def forward(self, x, sigma, label):
        return self.unet(x, self.unet.embed(sigma) + self.classes(label))


model = ClassUNet()
with torch.no_grad():
    for name, p in model.named_parameters():
        fan_in = p[0].numel() if p.dim() > 1 else 16
        p.copy_(torch.randn_like(p) / fan_in**0.5 + (1 if "norm" in name and "weight" in name else 0))
n = 4
x0, noise = torch.randn(n, 1, size, size) * SIGMA_DATA, torch.randn(n, 1, size, size)
sigma, label = torch.tensor([0.05, 0.4, 1.5, 20.0]), torch.tensor([0, classes, 1, 0])
column = sigma[:, None, None, None]
x = x0 + column * noise
total = column**2 + SIGMA_DATA**2
c_skip, c_out, c_in = SIGMA_DATA**2 / total, column * SIGMA_DATA / total.sqrt(), 1 / total.sqrt()
saved = {"x0": x0, "x": x, "sigma": sigma, "label": label, "channels": torch.tensor(channels)}
saved |= {f"weight/{name}": p.detach().clone() for name, p in model.named_parameters()}
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
output, target = model(c_in * x, sigma, label), (x0 - c_skip * x) / c_out
loss = F.mse_loss(output, target)
loss.backward()
optimizer.step()
saved |= {"output": output, "target": target, "image": c_skip * x + c_out * output, "loss": loss.reshape(1)}
saved |= {f"grad/{name}": p.grad for name, p in model.named_parameters()}
saved |= {f"after/{name}": p for name, p in model.named_parameters()}
save_file({name: t.detach().clone().contiguous() for name, t in saved.items()}, f"{out}/diffusion.safetensors")
print("loss", loss.item(), "parameters", sum(p.numel() for p in model.parameters()))

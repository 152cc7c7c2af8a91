"""Makes Stable Diffusion v1's networks at full size with random weights, with diffusers, and what they compute:
OUT/unet and OUT/vae as diffusers saves them, OUT/full.safetensors with inputs and outputs (3.8 GB in all; needs 9 GB of
memory). Nothing of it is kept with the project.

    pip install torch diffusers safetensors
    python make_full.py OUT
    MINAI_FULL_SD=OUT cargo test --release -p minai-tests --test unet -- --ignored --nocapture full_size
"""
import sys, time
from pathlib import Path
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file

out = Path(sys.argv[1])
torch.manual_seed(5)
tensors = {}


def timed(name, f):
    start = time.perf_counter()
    y = f()
    print(f"{name}: {time.perf_counter() - start:.2f} s")
    return y


with torch.no_grad():
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()
    z = torch.randn(1, 4, 64, 64)
    tensors |= dict(z=z, decoded=timed("decode", lambda: vae.decode(z).sample))
    vae.save_pretrained(out / "vae")
    del vae
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, cross_attention_dim=768,
        attention_head_dim=8,
    ).eval()
    x, t, context = torch.randn(2, 4, 64, 64), torch.tensor([681.0]), torch.randn(2, 77, 768)
    y = timed("step", lambda: unet(x, t.expand(2), context).sample)
    tensors |= dict(x=x, t=t, context=context, noise_pred=y)
    unet.save_pretrained(out / "unet", max_shard_size="10GB")
save_file({key: value.contiguous() for key, value in tensors.items()}, out / "full.safetensors")

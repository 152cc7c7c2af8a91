"""Makes unet.safetensors, with diffusers: small U-Nets of other shapes than the published ones, and what they predict.

    pip install torch diffusers safetensors
    python make_unet.py OUT [SEED]

Of each case: `CASE/net/…`, the weights under diffusers' names; `CASE/in.x`, `in.t`, `in.context` and `CASE/out`. The
file's metadata has each case's config as JSON.
"""
import json, sys
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

out = sys.argv[1]
torch.manual_seed(int(sys.argv[2]) if len(sys.argv) > 2 else 7)
DOWN, CROSS_DOWN, UP, CROSS_UP = "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"
# Name, options, (n, h, w, tokens), one time or one for each.
CASES = [
    ("odd", dict(block_out_channels=(4, 6, 8), down_block_types=(CROSS_DOWN, DOWN, CROSS_DOWN),
                 up_block_types=(CROSS_UP, CROSS_UP, UP), layers_per_block=1, cross_attention_dim=10,
                 attention_head_dim=(2, 3, 4), norm_num_groups=2), (2, 13, 10, 5), [3, 981]),
    ("linear", dict(block_out_channels=(4, 8), down_block_types=(DOWN, CROSS_DOWN),
                    up_block_types=(CROSS_UP, UP), layers_per_block=2, cross_attention_dim=6,
                    attention_head_dim=2, norm_num_groups=2, use_linear_projection=True, in_channels=9,
                    flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6), (1, 6, 8, 77), [500]),
    ("deep", dict(block_out_channels=(8, 8), down_block_types=(CROSS_DOWN, DOWN),
                  up_block_types=(UP, CROSS_UP), layers_per_block=1, cross_attention_dim=4,
                  attention_head_dim=1, norm_num_groups=8, transformer_layers_per_block=2), (3, 4, 4, 2), [17]),
]
tensors, metadata = {}, {}
for name, options, (n, h, w, tokens), times in CASES:
    net = UNet2DConditionModel(**options).eval().double()
    with torch.no_grad():
        for parameter in net.parameters():  # norms and biases too, so that none is 0 or 1
            parameter.add_(torch.randn_like(parameter) * 0.1)
            parameter.copy_(parameter.float())
        x = torch.randn(n, net.config.in_channels, h, w)
        context = torch.randn(n, tokens, net.config.cross_attention_dim)
        t = torch.tensor(times)
        y = net(x.double(), t, context.double()).sample
    tensors |= {f"{name}/net/{key}": value.float().contiguous() for key, value in net.state_dict().items()}
    tensors |= {f"{name}/in.x": x, f"{name}/in.t": t.float(), f"{name}/in.context": context, f"{name}/out": y.float()}
    metadata[name] = json.dumps({key: value for key, value in net.config.items() if not key.startswith("_")})
save_file(tensors, f"{out}/unet.safetensors", metadata)

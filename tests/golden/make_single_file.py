"""A small Stable Diffusion 1 in a single file, under the names of the first published code, and what diffusers makes of it:
for `cargo test --test single_file`.

    python make_single_file.py .

Needs torch, diffusers, transformers (made with 2.15, 0.42 and 5.24). diffusers itself reads the file, by `from_single_file`,
and what it computes is written down."""
import re
import sys
import tempfile
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

LAYERS, LEVELS = 1, 2
RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
ONCE = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0", "conv_out": "out.2", "mid_block.attentions.0": "middle_block.1"}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def begin(name, table):
    for new, old in table.items():
        if name.startswith(new + "."):
            return old + name[len(new):]
    return name


def old_unet(name):
    if (m := re.match(r"mid_block\.resnets\.(\d)\.(.*)", name)):
        return f"middle_block.{2 * int(m[1])}.{begin(m[2], RESNET)}"
    m = re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)", name)
    if not m:
        return begin(name, ONCE)
    way, level, kind, layer, rest = m[1], int(m[2]), m[3], int(m[4]), m[5]
    number = level * (LAYERS + 1) + layer + (way == "down")
    blocks = "input_blocks" if way == "down" else "output_blocks"
    if kind == "downsamplers":
        return f"{blocks}.{(level + 1) * (LAYERS + 1)}.0.op{rest[len('conv'):]}"
    if kind == "upsamplers":
        return f"{blocks}.{level * (LAYERS + 1) + LAYERS}.{1 + UP_LOOKS[level]}.{rest}"
    return f"{blocks}.{number}.{0 if kind == 'resnets' else 1}.{begin(rest, RESNET) if kind == 'resnets' else rest}"


def old_vae(name):
    half, _, rest = name.partition(".")
    if half in ("quant_conv", "post_quant_conv"):
        return name
    if (m := re.match(r"mid_block\.resnets\.(\d)\.(.*)", rest)):
        rest = f"mid.block_{int(m[1]) + 1}.{m[2]}"
    elif rest.startswith("mid_block.attentions.0."):
        rest = "mid.attn_1." + begin(rest[len("mid_block.attentions.0."):], ATTENTION)
    elif (m := re.match(r"(down|up)_blocks\.(\d)\.(resnets\.(\d)|(down|up)samplers\.0)\.(.*)", rest)):
        level = int(m[2]) if m[1] == "down" else LEVELS - 1 - int(m[2])
        rest = f"{m[1]}.{level}." + (f"block.{m[4]}.{m[6]}" if m[4] else f"{m[5]}sample.{m[6]}")
    rest = rest.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    return f"{half}.{rest}"


UP_LOOKS = [False, True]  # whether a level on the way up, from the coarsest, looks at the text

def main(out):
    torch.manual_seed(35)
    unet = UNet2DConditionModel(sample_size=16, in_channels=4, out_channels=4, layers_per_block=LAYERS, block_out_channels=(32, 64),
                                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=64, attention_head_dim=8)
    vae = AutoencoderKL(block_out_channels=(32, 32), layers_per_block=1, latent_channels=4, norm_num_groups=32, sample_size=32,
                        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    text = CLIPTextModel(CLIPTextConfig(vocab_size=600, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                                        num_attention_heads=1, max_position_embeddings=77, hidden_act="quick_gelu",
                                        bos_token_id=0, eos_token_id=599, pad_token_id=599))
    tensors = {"model.diffusion_model." + old_unet(name): value for name, value in unet.state_dict().items()}
    for name, value in vae.state_dict().items():
        # The first code had convolutions of 1 by 1 in the attention.
        square = "attentions" in name and name.endswith("weight") and value.ndim == 2
        tensors["first_stage_model." + old_vae(name)] = value[:, :, None, None] if square else value
    for name, value in text.state_dict().items():
        name = name if name.startswith("text_model.") else "text_model." + name
        tensors["cond_stage_model.transformer." + name] = value
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors["model_ema.decay"] = torch.tensor(0.9999)
    tensors["betas"] = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000) ** 2
    tensors = {name: value.half().contiguous() if value.is_floating_point() else value for name, value in tensors.items()}
    path = f"{out}/single_file.safetensors"
    save_file(tensors, path)

    # What diffusers reads from it: the networks one by one, since there is no vocabulary.
    with tempfile.TemporaryDirectory() as folder:
        for part, model in (("unet", unet), ("vae", vae)):
            model.save_pretrained(f"{folder}/{part}")
        unet = UNet2DConditionModel.from_single_file(path, config=folder, subfolder="unet", torch_dtype=torch.float32)
        vae = AutoencoderKL.from_single_file(path, config=folder, subfolder="vae", torch_dtype=torch.float32)
    text.load_state_dict({name: value.half().float() for name, value in text.state_dict().items()})
    tokens = torch.randint(1, 599, (2, 77), generator=torch.Generator().manual_seed(1))
    noise = lambda *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        context = text(tokens)[0]
        x, image = noise(2, 4, 16, 16), noise(1, 3, 32, 32).clamp(-1, 1)
        posterior = vae.encode(image).latent_dist
        answers = {"tokens": tokens, "context": context, "x": x, "unet": unet(x, torch.tensor([321, 7]), context).sample,
                   "image": image, "mean": posterior.mean, "decoded": vae.decode(posterior.mean).sample}
    save_file({name: value.contiguous() for name, value in answers.items()}, f"{out}/single_file_answers.safetensors")


main(*sys.argv[1:])

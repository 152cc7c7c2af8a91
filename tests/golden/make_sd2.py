"""A small Stable Diffusion 2 with random weights, in the folder sd2, and what diffusers draws with it: for
`cargo test --test sd2`. It has what version 2.1 for 768 pixels has and version 1 has not: a U-Net that predicts velocities, with
linear layers at the ends of its transformers and a number of heads for each level; a text encoder with gelu; a tokenizer that
fills up with "!" (the test adds CLIP's vocabulary from data/tiny-sd).

    python make_sd2.py .

Needs torch, diffusers, transformers (made with 2.15, 0.42 and 5.24)."""
import json
import sys
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

STEPS, GUIDANCE = 8, 5.0


def halved(folder, part, name="diffusion_pytorch_model"):
    """Its weights in 16 bits."""
    path = f"{folder}/{part}/{name}.safetensors"
    save_file({key: value.half() for key, value in load_file(path).items()}, path, {"format": "pt"})


def main(out):
    torch.manual_seed(21)
    folder = f"{out}/sd2"
    UNet2DConditionModel(sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
                         down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                         up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=16,
                         attention_head_dim=[2, 4], use_linear_projection=True, upcast_attention=True,
                         ).save_pretrained(f"{folder}/unet")
    AutoencoderKL(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=8, sample_size=16,
                  down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                  ).save_pretrained(f"{folder}/vae")
    CLIPTextModel(CLIPTextConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                                 hidden_act="gelu", projection_dim=16)).save_pretrained(f"{folder}/text_encoder")
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction")
    scheduler.save_pretrained(f"{folder}/scheduler")
    halved(folder, "unet")
    halved(folder, "vae")
    halved(folder, "text_encoder", "model")
    with open(f"{folder}/model_index.json", "w") as file:
        json.dump({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}, file)

    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32)
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", torch_dtype=torch.float32)
    # "a cat" and the empty prompt: start, words, end, and then "!" to the end.
    tokens = torch.zeros(2, 77, dtype=torch.long)
    tokens[0, :2] = torch.tensor([49406, 49407])
    tokens[1, :4] = torch.tensor([49406, 320, 2368, 49407])
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    scheduler.set_timesteps(STEPS)
    with torch.no_grad():
        context, x = text(tokens)[0], noise * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            u, p = unet(torch.cat([x, x]), t, context).sample.chunk(2)
            x = scheduler.step(u + GUIDANCE * (p - u), t, x).prev_sample
        image = vae.decode(x / vae.config.scaling_factor).sample
    answers = {"tokens": tokens, "context": context, "noise": noise, "latents": x, "image": image}
    save_file({name: value.contiguous() for name, value in answers.items()}, f"{out}/sd2_answers.safetensors")
    print(x.std().item(), image.abs().max().item())


main(*sys.argv[1:])

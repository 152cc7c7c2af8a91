"""Two LoRAs for the tiny Stable Diffusion of data/tiny-sd, as kohya's scripts and as diffusers write them, and what diffusers
makes of the model with each: for `cargo test --test lora`.

    python make_lora.py ../../data/tiny-sd .

Needs torch, diffusers, transformers, peft (made with 2.15, 0.42, 5.24 and 0.21)."""
import json
import sys
import tempfile
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

ATTENTION = "down_blocks.0.attentions.0."
BLOCK = ATTENTION + "transformer_blocks.0."
UNET = [BLOCK + "attn1.to_q", BLOCK + "attn2.to_k", BLOCK + "attn2.to_out.0", BLOCK + "ff.net.0.proj", ATTENTION + "proj_in",
        "mid_block.resnets.0.conv1"]
TEXT = ["text_model.encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.1.mlp.fc1"]


def pipeline(folder):
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    text = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    return StableDiffusionPipeline(vae=vae, text_encoder=text, tokenizer=None, unet=unet, scheduler=DDIMScheduler(),
                                   safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def weight(model, name):
    known = dict(model.named_parameters())
    return known.get(name + ".weight", known.get(name.removeprefix("text_model.") + ".weight"))


def main(folder, out):
    torch.manual_seed(29)
    pipe = pipeline(folder)
    kohya, modern = {}, {}
    for part, flat, model, names in (("unet", "lora_unet_", pipe.unet, UNET), ("text_encoder", "lora_te_", pipe.text_encoder, TEXT)):
        for i, name in enumerate(names):
            shape, rank = weight(model, name).shape, 2
            down = torch.randn(rank, *shape[1:]) * 0.2
            up = torch.randn(shape[0], rank, *[1] * (len(shape) - 2)) * 0.2
            base = flat + name.replace(".", "_")
            # One alpha for all of the U-Net: diffusers 0.42 loses those of single layers of its attention.
            kohya |= {base + ".lora_down.weight": down, base + ".lora_up.weight": up, base + ".alpha": torch.tensor(1.0 + (flat == "lora_te_") * i)}
            modern |= {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up}
    save_file(kohya, f"{out}/lora_kohya.safetensors")
    # Beside its tensors diffusers notes the settings, the alpha among them.
    noted = {f"{part}.{key}": value for part in ("unet", "text_encoder") for key, value in (("r", 2), ("lora_alpha", 1))}
    for part, names in (("unet", UNET), ("text_encoder", TEXT)):
        noted[part + ".target_modules"] = names
    save_file(modern, f"{out}/lora_diffusers.safetensors", {"format": "pt", "lora_adapter_metadata": json.dumps(noted)})

    tokens = torch.randint(0, 49000, (1, 77), generator=torch.Generator().manual_seed(1))
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    answers = {"tokens": tokens, "x": x}
    for name, file, factor in (("none", None, 0), ("kohya", "lora_kohya", 1.0), ("diffusers", "lora_diffusers", 1.0),
                               ("less", "lora_kohya", 0.5)):
        pipe = pipeline(folder)
        if file:
            with tempfile.TemporaryDirectory() as place:
                # diffusers 0.42 doesn't find the text encoder's layers under the names that transformers 5 has for them, so
                # it gets the U-Net's part, and the text encoder's is added here by the formula.
                path = f"{out}/{file}.safetensors"
                with safe_open(path, "pt") as opened:
                    metadata = opened.metadata()
                part = {key: value for key, value in load_file(path).items() if "te_" not in key and "text_encoder" not in key}
                if "lora_adapter_metadata" in (metadata or {}):
                    noted = json.loads(metadata["lora_adapter_metadata"])
                    noted = {key: value for key, value in noted.items() if key.startswith("unet")}
                    metadata = metadata | {"lora_adapter_metadata": json.dumps(noted)}
                save_file(part, f"{place}/unet.safetensors", metadata)
                pipe.load_lora_weights(f"{place}/unet.safetensors", adapter_name="one")
            pipe.set_adapters(["one"], [factor])
            for i, layer in enumerate(TEXT):
                base = "lora_te_" + layer.replace(".", "_")
                alpha = kohya[base + ".alpha"].item() if file == "lora_kohya" else 1.0
                change = kohya[base + ".lora_up.weight"] @ kohya[base + ".lora_down.weight"] * (alpha / 2 * factor)
                with torch.no_grad():
                    weight(pipe.text_encoder, layer).add_(change)
        with torch.no_grad():
            context = pipe.text_encoder(tokens)[0]
            answers[name + ".context"] = context
            answers[name + ".noise"] = pipe.unet(x, torch.tensor(321), context).sample
        print(name, answers[name + ".noise"].abs().mean().item(), context.abs().mean().item())
    save_file({name: value.contiguous() for name, value in answers.items()}, f"{out}/lora_answers.safetensors")


main(*sys.argv[1:])

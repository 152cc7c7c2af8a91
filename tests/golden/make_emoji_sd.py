"""What Python's diffusers draws with data/emoji-sd: the references for `cargo test --test emoji_sd`.

    python make_emoji_sd.py ../../data/emoji-sd .

Needs torch, diffusers, transformers (made with 2.15, 0.42 and 5.23). Everything in single precision, on a CPU. The noise is
drawn here and goes into the file, so that the test needs no generator of PyTorch's."""
import sys
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from safetensors.torch import save_file

PROMPTS = ["red apple", "woman astronaut, medium skin"]
STEPS, GUIDANCE = 12, 3.0


def main(folder, out):
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    tokens = pipe.tokenizer(PROMPTS, padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True,
                            return_tensors="pt").input_ids
    noise = torch.randn(len(PROMPTS), 4, 16, 16, generator=torch.Generator().manual_seed(36))
    with torch.no_grad():
        embedded = pipe.text_encoder(tokens)[0]
    tensors = {"tokens": tokens, "embedded": embedded, "noise": noise}
    levels = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                  prediction_type="v_prediction")
    schedulers = {
        "ddim": DDIMScheduler(**levels, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        "dpmpp_2m": DPMSolverMultistepScheduler(**levels, use_karras_sigmas=True),
    }
    for name, scheduler in schedulers.items():
        pipe.scheduler = scheduler
        images = pipe(PROMPTS, num_inference_steps=STEPS, guidance_scale=GUIDANCE, latents=noise.clone(), output_type="pt")
        images = images.images  # (n, 3, 64, 64) from 0 to 1
        tensors[name] = (images * 255).round().to(torch.uint8)
        print(name, images.shape, images.mean().item())
    save_file({key: value.contiguous() for key, value in tensors.items()}, f"{out}/emoji_sd.safetensors")


main(*sys.argv[1:])

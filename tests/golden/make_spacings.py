#!/usr/bin/env python3
"""Trajectories of diffusers' schedulers with other configurations than Stable Diffusion's: other noise schedules, ways to
space the time steps, and ends. Writes spacings.safetensors and spacings.json.

usage: make_spacings.py OUT_DIR SEED [STEPS]
"""
import json, pathlib, sys
import numpy as np, torch
from diffusers import (DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler,
                       EulerDiscreteScheduler, HeunDiscreteScheduler, LMSDiscreteScheduler, PNDMScheduler)
import diffusers.schedulers.scheduling_ddim as ddim, diffusers.schedulers.scheduling_ddpm as ddpm
import diffusers.schedulers.scheduling_euler_ancestral_discrete as euler_a
from safetensors.torch import save_file

out, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
steps = int(sys.argv[3]) if len(sys.argv) > 3 else 13
torch.manual_seed(seed)
x0, noises = torch.randn(1, 4, 3, 2), torch.randn(64, 1, 4, 3, 2)
drawn = 0


def draw(*_, **__):
    global drawn
    drawn += 1
    return noises[drawn - 1]


for module in (ddim, ddpm, euler_a):
    module.randn_tensor = draw

stable = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
linear = dict(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
short = dict(beta_schedule="linear", beta_start=0.001, beta_end=0.1, num_train_timesteps=200)
cosine = dict(beta_schedule="squaredcos_cap_v2", beta_start=0.0001, beta_end=0.02, num_train_timesteps=100)
trailing, leading = dict(timestep_spacing="trailing"), dict(timestep_spacing="leading", steps_offset=1)
whole = dict(clip_sample=False)
cases = {
    "lms.trailing": (LMSDiscreteScheduler, stable | trailing, {}),
    "lms.leading": (LMSDiscreteScheduler, linear | leading, {}),
    "lms.karras": (LMSDiscreteScheduler, linear | dict(use_karras_sigmas=True), {}),
    "euler.karras": (EulerDiscreteScheduler, stable | dict(use_karras_sigmas=True), {}),
    "euler.short": (EulerDiscreteScheduler, short | trailing, {}),
    "euler_a.leading": (EulerAncestralDiscreteScheduler, stable | leading, {}),
    "heun.karras": (HeunDiscreteScheduler, stable | dict(use_karras_sigmas=True), {}),
    "heun.leading": (HeunDiscreteScheduler, short | leading, {}),
    "dpmpp_2m.leading": (DPMSolverMultistepScheduler, stable | leading, {}),
    "dpmpp_2m.trailing": (DPMSolverMultistepScheduler, linear | trailing, {}),
    "dpmpp_2m.short": (DPMSolverMultistepScheduler, short, {}),
    "ddim.one": (DDIMScheduler, stable | leading | whole | dict(set_alpha_to_one=True), {}),
    "ddim.half": (DDIMScheduler, linear | leading | whole | dict(set_alpha_to_one=False), dict(eta=0.5)),
    "ddim.cosine": (DDIMScheduler, cosine | whole | dict(timestep_spacing="leading", set_alpha_to_one=True), {}),
    "ddpm.trailing": (DDPMScheduler, linear | trailing | whole, {}),
    "ddpm.linspace": (DDPMScheduler, short | whole | dict(timestep_spacing="linspace"), {}),
    "pndm.one": (PNDMScheduler, linear | dict(skip_prk_steps=True, set_alpha_to_one=True), {}),
}
tensors, meta = dict(x0=x0, noises=noises), {}
for name, (kind, config, options) in cases.items():
    scheduler, drawn = kind(**config), 0
    scheduler.set_timesteps(steps)
    x = x0 * scheduler.init_noise_sigma
    states = [x]
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t)
        eps = 0.7 * torch.sin(3 * seen) + 0.1 * torch.cos(torch.as_tensor(float(t)) / 100)
        x = scheduler.step(eps, t, x, **options).prev_sample
        states.append(x)
    tensors[f"{name}.traj"] = torch.stack(states)
    tensors[f"{name}.timesteps"] = torch.as_tensor(np.array(scheduler.timesteps)).double()
    if getattr(scheduler, "sigmas", None) is not None:
        tensors[f"{name}.sigmas"] = torch.as_tensor(np.array(scheduler.sigmas)).double()
    plain = {k: v for k, v in scheduler.config.items() if isinstance(v, (int, float, str, bool)) and v == v and abs(v if isinstance(v, (int, float)) else 0) != float("inf")}
    meta[name] = plain | options | dict(steps=steps, noises_used=drawn)
save_file({k: v.contiguous() for k, v in tensors.items()}, str(out / "spacings.safetensors"))
(out / "spacings.json").write_text(json.dumps({"seed": seed, "files": {"spacings": meta}}, indent=1) + "\n")

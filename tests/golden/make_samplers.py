#!/usr/bin/env python3
"""Trajectories of the samplers that make_golden.py and make_spacings.py leave out.

samplers.safetensors: diffusers' UniPC, DEIS, LCM and DPM-Solver++ 2M SDE with the network of make_spacings.py.
sde.safetensors: k-diffusion's dpmpp_sde and dpmpp_2m_sde with the exact denoiser of a mixture of two Gaussians.
samplers.json: the options of both.

usage: make_samplers.py OUT_DIR SEED
Needs diffusers 0.42, k-diffusion and setuptools < 80 (k-diffusion imports pkg_resources).
"""
import json, pathlib, sys
import numpy as np, torch
from diffusers import DEISMultistepScheduler, DPMSolverMultistepScheduler, LCMScheduler, UniPCMultistepScheduler
import diffusers.schedulers.scheduling_dpmsolver_multistep as dpmsolver, diffusers.schedulers.scheduling_lcm as lcm
from k_diffusion import sampling
from safetensors.torch import save_file

out, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(seed)
x0, noises = torch.randn(1, 4, 3, 2), torch.randn(24, 1, 4, 3, 2)
drawn = 0


def draw(*_, **__):
    global drawn
    drawn += 1
    return noises[drawn - 1]


for module in (dpmsolver, lcm):
    module.randn_tensor = draw

stable = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
linear = dict(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
short = dict(beta_schedule="linear", beta_start=0.001, beta_end=0.1, num_train_timesteps=200)
trailing, leading = dict(timestep_spacing="trailing"), dict(timestep_spacing="leading", steps_offset=1)
karras, sde = dict(use_karras_sigmas=True), dict(algorithm_type="sde-dpmsolver++")
cases = {
    "unipc": (UniPCMultistepScheduler, stable, 10),
    "unipc.karras": (UniPCMultistepScheduler, stable | karras, 13),
    "unipc.leading": (UniPCMultistepScheduler, linear | leading, 13),
    "unipc.one": (UniPCMultistepScheduler, short | trailing, 1),
    # With fewer than 15 steps diffusers makes the last one of first order.
    "deis": (DEISMultistepScheduler, stable, 16),
    "deis.short": (DEISMultistepScheduler, short | trailing, 16),
    "deis.leading": (DEISMultistepScheduler, linear | leading | dict(lower_order_final=False), 7),
    "dpmpp_2m_sde": (DPMSolverMultistepScheduler, stable | sde, 10),
    "dpmpp_2m_sde.karras": (DPMSolverMultistepScheduler, stable | sde | karras, 13),
    "lcm": (LCMScheduler, stable | dict(clip_sample=False), 4),
    "lcm.many": (LCMScheduler, stable | dict(clip_sample=False), 17),
    "lcm.short": (LCMScheduler, short | dict(clip_sample=False), 8),
}
tensors, meta = dict(x0=x0, noises=noises), {}
for name, (kind, config, steps) in cases.items():
    scheduler, drawn = kind(**config), 0
    scheduler.set_timesteps(steps)
    x = x0 * scheduler.init_noise_sigma
    states = [x]
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t)
        eps = 0.7 * torch.sin(3 * seen) + 0.1 * torch.cos(torch.as_tensor(float(t)) / 100)
        x = scheduler.step(eps, t, x).prev_sample
        states.append(x)
    tensors[f"{name}.traj"] = torch.stack(states)
    tensors[f"{name}.timesteps"] = torch.as_tensor(np.array(scheduler.timesteps)).double()
    if getattr(scheduler, "sigmas", None) is not None:
        tensors[f"{name}.sigmas"] = torch.as_tensor(np.array(scheduler.sigmas)).double()
    plain = {k: v for k, v in scheduler.config.items() if isinstance(v, (int, float, str, bool)) and v == v and abs(v if isinstance(v, (int, float)) else 0) != float("inf")}
    meta[name] = plain | dict(steps=steps, noises_used=drawn)
save_file({k: v.contiguous() for k, v in tensors.items()}, str(out / "samplers.safetensors"))

mu, s2, pi = torch.randn(2, 8) * 2, torch.tensor([0.3, 0.6]) ** 2, torch.tensor([0.35, 0.65])
sigmas = sampling.get_sigmas_karras(12, 0.002, 80.0, 7.0)
x = torch.randn(5, 8) * 80.0


def denoise(x, sigma, **_):
    """The exact posterior mean of sum_k pi_k N(mu_k, s2_k I), in double precision."""
    v = s2.double() + sigma.double()[:, None] ** 2  # (n, k)
    apart = x.double()[:, None] - mu.double()  # (n, k, d)
    share = torch.softmax(pi.double().log() - 0.5 * (apart**2).sum(-1) / v - 0.5 * x.shape[1] * v.log(), 1)
    mean = (s2.double()[None, :, None] * x.double()[:, None] + sigma.double()[:, None, None] ** 2 * mu.double()) / v[..., None]
    return (share[..., None] * mean).sum(1).to(x.dtype)


class Brownian:
    """A Brownian motion over sigma, drawn from a list: what k-diffusion's tree gives, in an order that can be repeated.

    From one level the sampler asks first for the way to the middle, and then for the whole way, which begins with it.
    """

    def __init__(self, noises):
        self.noises, self.first = iter(noises), None

    def __call__(self, start, end):
        new = next(self.noises)
        if self.first is None or self.first[0] != start:
            self.first = (start, end, new)
            return new
        start, middle, old = self.first
        a, b = (start - middle).sqrt(), (middle - end).sqrt()
        return (a * old + b * new) / (start - end).sqrt()


kd = dict(mu=mu, s2=s2, pi=pi, sigmas=sigmas, x=x, denoised_at_1=denoise(x / 80, torch.ones(5)))
for name in ("dpmpp_sde", "dpmpp_2m_sde"):
    each = torch.randn(22 if name == "dpmpp_sde" else 11, 5, 8)
    kd[f"{name}.noises"] = each
    sampler = getattr(sampling, f"sample_{name}")
    kd[name] = sampler(denoise, x.clone(), sigmas, disable=True, eta=1.0, noise_sampler=Brownian(each))
save_file({k: v.contiguous() for k, v in kd.items()}, str(out / "sde.safetensors"))
about = dict(rho=7, sigma_min=0.002, sigma_max=80)
(out / "samplers.json").write_text(json.dumps({"seed": seed, "files": {"samplers": meta, "sde": about}}, indent=1) + "\n")

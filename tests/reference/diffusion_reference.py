"""DiT's diffusion in plain PyTorch: the training loss, LiT's distillation, DDPM and DDIM, guidance, and ten exact
training steps.

The Gaussian process of Ho et al. (arXiv 2006.11239) with the learned range of variances, the hybrid loss and the
respacing of Nichol and Dhariwal (arXiv 2102.09672); DDIM is Song et al. (arXiv 2010.02502), equation 12.
Tables are f64 and become f32 when looked up; everything after that is f32. x0 is never clipped, as DiT samples.
DPM-Solver++ is not here: diffusers' own scheduler is the reference (make_dumps.py).
"""

import math

import numpy as np
import torch

LN2 = math.log(2.0)


def spaced_timesteps(total, count):
    """count timesteps from 0 to total - 1. A tie rounds to the even number, as Python's round() does, and the
    position is a running f64 sum: (1000, 7) gives 0 166 333 500 666 832 999."""
    stride = (total - 1) / (count - 1) if count > 1 else 1
    position, steps = 0.0, []
    for _ in range(count):
        steps.append(round(position))
        position += stride
    return steps


class Schedule:
    """Linear betas, respaced to `count` timesteps; every table has one entry a kept timestep."""

    def __init__(self, count=1000, total=1000):
        kept = np.cumprod(1 - np.linspace(1e-4, 0.02, total))
        self.timesteps = spaced_timesteps(total, count)  # what the model sees for index i
        kept = kept[self.timesteps]
        self.beta = 1 - kept / np.append(1.0, kept[:-1])
        alpha = 1 - self.beta
        self.kept = np.cumprod(alpha)  # alpha bar, multiplied up again from the respaced betas
        self.kept_before = np.append(1.0, self.kept[:-1])
        rest = 1 - self.kept
        variance = self.beta * (1 - self.kept_before) / rest
        # the first posterior variance is 0: the second stands in, also as beta_0 of the fixed variance
        self.posterior_log_variance = np.log(np.append(variance[1], variance[1:]))
        self.fixed_log_variance = np.log(np.append(variance[1], self.beta[1:]))
        self.log_beta = np.log(self.beta)
        self.mean_x0 = self.beta * np.sqrt(self.kept_before) / rest
        self.mean_xt = (1 - self.kept_before) * np.sqrt(alpha) / rest
        self.signal, self.noise = np.sqrt(self.kept), np.sqrt(rest)
        self.x0_from_xt, self.x0_from_eps = np.sqrt(1 / self.kept), np.sqrt(1 / self.kept - 1)

    def at(self, name, index, dtype=torch.float32):
        """(batch,) -> (batch, 1, 1, 1)"""
        return torch.from_numpy(getattr(self, name))[index].to(dtype)[:, None, None, None]

    def noisy(self, x0, noise, t):
        return self.at("signal", t, x0.dtype) * x0 + self.at("noise", t, x0.dtype) * noise

    def posterior_mean(self, x0, x_t, t):
        return self.at("mean_x0", t, x_t.dtype) * x0 + self.at("mean_xt", t, x_t.dtype) * x_t

    def predict_x0(self, x_t, eps, t):
        return self.at("x0_from_xt", t, x_t.dtype) * x_t - self.at("x0_from_eps", t, x_t.dtype) * eps

    def model_log_variance(self, raw, t):
        """raw -1 gives the posterior's variance, 1 gives beta; it is not limited to that range."""
        fraction = (raw + 1) / 2
        low = self.at("posterior_log_variance", t, raw.dtype)
        return fraction * self.at("log_beta", t, raw.dtype) + (1 - fraction) * low


def gaussian_kl(mean1, log_variance1, mean2, log_variance2):
    square = (mean1 - mean2) ** 2 * torch.exp(-log_variance2)
    return 0.5 * (-1 + log_variance2 - log_variance1 + torch.exp(log_variance1 - log_variance2) + square)


def normal_cdf(x):
    """The tanh approximation."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def discretised_log_likelihood(x, mean, log_deviation):
    """Of the 1/127.5-wide bin around x, the outermost bins open-ended, as if x were 8-bit values in [-1, 1]."""
    scale = torch.exp(-log_deviation)
    below_upper = normal_cdf(scale * (x - mean + 1 / 255))
    below_lower = normal_cdf(scale * (x - mean - 1 / 255))
    probability = torch.where(
        x < -0.999, below_upper, torch.where(x > 0.999, 1 - below_lower, below_upper - below_lower)
    )
    return torch.log(probability.clamp(min=1e-12))


def sample_mean(x):
    return x.mean(dim=(1, 2, 3))


def variational_bound(schedule, x0, x_t, t, eps, raw_variance):
    """(batch,), in bits a value: the decoder's negative log-likelihood at t = 0, else KL(posterior || model)."""
    log_variance = schedule.model_log_variance(raw_variance, t)
    mean = schedule.posterior_mean(schedule.predict_x0(x_t, eps, t), x_t, t)
    true_mean = schedule.posterior_mean(x0, x_t, t)
    true_log_variance = schedule.at("posterior_log_variance", t, x0.dtype)
    kl = sample_mean(gaussian_kl(true_mean, true_log_variance, mean, log_variance)) / LN2
    nll = -sample_mean(discretised_log_likelihood(x0, mean, 0.5 * log_variance)) / LN2
    return torch.where(t == 0, nll, kl)


def training_losses(model, schedule, x0, t, noise, y, teacher=None):
    """By name, each (batch,). The bound teaches the variance only. With a teacher, which sees the same x_t, t and y,
    also the mean square by which the student's eps and raw variance differ from its (LiT, arXiv 2501.12976)."""
    x_t = schedule.noisy(x0, noise, t)
    out = model(x_t, t, y)
    eps, raw = out[:, : x0.shape[1]], out[:, x0.shape[1] :]
    losses = {"mse": sample_mean((noise - eps) ** 2), "vb": torch.zeros(len(x0))}
    if raw.shape[1]:
        losses["vb"] = variational_bound(schedule, x0, x_t, t, eps.detach(), raw)
    if teacher is not None:
        with torch.no_grad():
            taught = teacher(x_t, t, y)
        losses["noise_distance"] = sample_mean((taught[:, : x0.shape[1]] - eps) ** 2)
        losses["variance_distance"] = sample_mean((taught[:, x0.shape[1] :] - raw) ** 2)
    return losses


def train(model, data, decay=0.9, lr=1e-3, teacher=None, weights=None):
    """AdamW steps over data (x0, t, noise, y: (steps, batch, ...)); returns what a test compares. weights: by the name
    of a loss, where it is not 1."""
    schedule = Schedule()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    ema = {name: p.detach().clone() for name, p in trained.items()}
    optimiser = torch.optim.AdamW(trained.values(), lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0)
    curve, gradients = {}, {}
    for x0, t, noise, y in zip(data["x0"], data["t"], data["noise"], data["y"]):
        losses = training_losses(model, schedule, x0, t, noise, y, teacher)
        loss = sum((weights or {}).get(name, 1) * value for name, value in losses.items()).mean()
        optimiser.zero_grad()
        loss.backward()
        gradients = gradients or {name: p.grad.clone() for name, p in trained.items()}
        optimiser.step()
        with torch.no_grad():
            for name, p in trained.items():
                ema[name].mul_(decay).add_(p, alpha=1 - decay)
        for name, value in {"loss": loss, **{name: value.mean() for name, value in losses.items()}}.items():
            curve.setdefault(name, []).append(value.detach())
    return {
        **{name: torch.stack(values) for name, values in curve.items()},
        **{f"grad0.{name}": value for name, value in gradients.items()},
        **{f"final.{name}": p.detach() for name, p in trained.items()},
        **{f"ema.{name}": value for name, value in ema.items()},
    }


def guided(model, y, scale, channels):
    """f(x, t) -> model output: eps of the first `channels` channels is uncond + scale (cond - uncond), every other
    channel (eps and variance alike) is the conditional half's own."""
    null = torch.full_like(y, model.config.num_classes)

    def call(x, t):
        out = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, null]))
        cond, uncond = out.chunk(2)
        eps = uncond[:, :channels] + scale * (cond[:, :channels] - uncond[:, :channels])
        return torch.cat([eps, cond[:, channels:]], dim=1)

    return call


def denoise(model, schedule, x, i):
    """-> (index i for each sample, eps, raw variance or None, x0)"""
    index = torch.full((x.shape[0],), i)
    out = model(x, torch.tensor(schedule.timesteps)[index])
    eps, raw = out[:, : x.shape[1]], out[:, x.shape[1] :]
    return index, eps, raw if raw.shape[1] else None, schedule.predict_x0(x, eps, index)


@torch.no_grad()
def ddpm(model, schedule, x, noises):
    """noises (steps, batch, c, h, w) in the order of use; the last (timestep 0) is not added."""
    for i, noise in zip(reversed(range(len(schedule.timesteps))), noises):
        index, _, raw, x0 = denoise(model, schedule, x, i)
        if raw is None:
            log_variance = schedule.at("fixed_log_variance", index)
        else:
            log_variance = schedule.model_log_variance(raw, index)
        x = schedule.posterior_mean(x0, x, index) + (i != 0) * torch.exp(0.5 * log_variance) * noise
    return x


@torch.no_grad()
def ddim(model, schedule, x):
    """eta = 0"""
    for i in reversed(range(len(schedule.timesteps))):
        index, _, _, x0 = denoise(model, schedule, x, i)
        # the original derives eps anew from x0, and takes these roots of f32 numbers
        eps = (schedule.at("x0_from_xt", index) * x - x0) / schedule.at("x0_from_eps", index)
        before = schedule.at("kept_before", index)
        x = x0 * torch.sqrt(before) + torch.sqrt(1 - before) * eps
    return x

"""Writes the files of tests/data/reference that the C++ tests compare with. See README.md for what they hold.

The committed files were made with torch 2.15.0 and diffusers 0.42.1 on x86-64 with one thread. Everything is seeded.
Another version or machine changes last bits, and the models that are trained first (sampling) by more.
"""

import argparse
import pathlib

import torch
from diffusers import DPMSolverMultistepScheduler
from safetensors.torch import save_file

from diffusion_reference import Schedule, ddim, ddpm, guided, train
from dit_reference import Config, DiT, randomise

# name -> configuration; sizes small enough to read in a debugger, each with something that a sloppy port gets wrong.
MODELS = {
    "dit_softmax": Config(8, 2, 4, 32, 2, 4, num_classes=5),
    "dit_linear": Config(8, 2, 4, 32, 1, 2, num_classes=5, mixer="linear"),
    "dit_lit": Config(8, 2, 4, 32, 2, 2, num_classes=5, mixer="lit"),
    # three channels, patch 4, a grid (4 x 4) smaller than the kernel
    "dit_lit_patch4": Config(16, 4, 3, 48, 1, 3, num_classes=5, mixer="lit"),
    # a 5 x 5 grid, head width 9, 9 frequencies per position axis: nothing divides by a vector width
    "dit_lit_odd": Config(10, 2, 4, 36, 3, 4, num_classes=6, mixer="lit"),
    "dit_softmax_odd": Config(10, 2, 4, 36, 2, 3, num_classes=6),
    "dit_no_sigma": Config(8, 2, 4, 24, 1, 2, num_classes=5, mixer="lit", learn_sigma=False),
    # head widths 10 and 14: learned positions, norms over all heads together, features of either sign
    "dit_focused": Config(8, 2, 4, 20, 1, 2, num_classes=5, mixer="focused"),
    "dit_focused_gelu": Config(10, 2, 4, 28, 1, 2, num_classes=5, mixer="focused_gelu"),
}


def save(path, tensors, metadata=None):
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        assert tensor.isfinite().all(), name
    save_file(tensors, path, metadata)


def save_model(path, model):
    save(path, model.state_dict(), {"linnet.config": model.config.json()})


def random_model(config, seed):
    return randomise(DiT(config), seed).eval()


def dump_models(folder, names):
    for seed, (name, config) in enumerate(MODELS.items(), start=1):  # a model added at the end changes no other
        if name not in names:
            continue
        model = random_model(config, seed)
        generator = torch.Generator().manual_seed(1000 + seed)
        shape = (4, config.in_channels, config.input_size, config.input_size)
        x = torch.randn(shape, generator=generator)
        t = torch.tensor([0.0, 7.25, 500.5, 999.0])
        y = torch.tensor([0, config.num_classes, config.num_classes - 1, 2])  # the second is the null class
        trace = {}
        out = model(x, t, y, trace)
        if config.mixer.startswith("focused"):
            trace |= attention_gradients(model, out, generator)
        save_model(folder / f"{name}.model.safetensors", model)
        save(folder / f"{name}.io.safetensors", {"x": x, "t": t, "y": y, "out": out, **trace})


def attention_gradients(model, out, generator):
    """Of the sum of out * g; the other mixers' gradients are in the training files."""
    g = torch.randn(out.shape, generator=generator)
    (out * g).sum().backward()
    named = {f"grad.{name}": p.grad for name, p in model.named_parameters() if ".attn." in name}
    return {"g": g, **named}


def dump_random(folder):
    """torch's CPU generator: its normal numbers come in another order from 16 numbers on."""
    tensors = {}
    for seed in (0, 42, 123456789):
        for n in (5, 15, 16, 17, 100, 3072):
            torch.manual_seed(seed)
            tensors[f"randn.{seed}.{n}"] = torch.randn(n)
            torch.manual_seed(seed)
            tensors[f"rand.{seed}.{n}"] = torch.rand(n)
        torch.manual_seed(seed)
        # an odd count leaves half a pair behind in the generator
        tensors[f"randn_then.{seed}"] = torch.cat([torch.randn(5), torch.randn(3)])
    save(folder / "random.safetensors", tensors)


def training_data(steps, batch, classes, seed):
    """Class patterns plus noise, and what a training step draws; some labels are dropped, some timesteps are 0."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(classes, 4, 8, 8, generator=torch.Generator().manual_seed(77))
    label = torch.randint(classes, (steps, batch), generator=generator)
    x0 = 0.9 * patterns[label] + 0.3 * torch.randn(steps, batch, 4, 8, 8, generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    t = torch.randint(1000, (steps, batch), generator=generator)
    t[::3, 0] = 0
    t[1::4, 1] = 1
    dropped = torch.rand(steps, batch, generator=generator) < 0.2
    return {"x0": x0, "t": t, "noise": noise, "y": torch.where(dropped, classes, label)}


@torch.no_grad()
def dump_training(folder):
    """The output layer starts small: the likelihood at t = 0 subtracts two numbers near 1 in f32, which is exact
    enough to compare only while the error of eps is not much above 1."""
    for seed, mixer in enumerate(("lit", "softmax"), start=21):
        model = random_model(Config(8, 2, 4, 16, 2, 2, num_classes=3, mixer=mixer), seed)
        model.final_layer.linear.weight *= 0.2
        save_model(folder / f"training.{mixer}.model.safetensors", model)
        data = training_data(10, 3, 3, seed)
        with torch.enable_grad():
            results = train(model, data)
        save(folder / f"training.{mixer}.safetensors", {**data, **results})


@torch.no_grad()
def dump_distillation(folder):
    """The student, its pictures, noise, timesteps and (partly dropped) classes are those of training.lit; the teacher is
    wider, deeper and of softmax attention. Its file is in bf16, which its weights are rounded to, to be small."""
    teacher = random_model(Config(8, 2, 4, 24, 3, 3, num_classes=3), 24)
    teacher.final_layer.linear.weight *= 0.2
    for parameter in teacher.parameters():
        if parameter.requires_grad:
            parameter.copy_(parameter.bfloat16())
    weights = {name: value.bfloat16() for name, value in teacher.named_parameters() if value.requires_grad}
    save(folder / "training.distilled.teacher.safetensors", weights, {"linnet.config": teacher.config.json()})
    student = random_model(Config(8, 2, 4, 16, 2, 2, num_classes=3, mixer="lit"), 21)
    student.final_layer.linear.weight *= 0.2
    data = training_data(10, 3, 3, 21)
    with torch.enable_grad():
        results = train(student, data, teacher=teacher, weights={"noise_distance": 0.5, "variance_distance": 0.05})
    kept = {name: value for name, value in results.items() if not name.startswith("ema.")}
    save(folder / "training.distilled.safetensors", kept)


def sampling_model(learn_sigma, seed):
    """Trained for a moment: samples of a random model grow a hundredfold and hide errors in their size.

    The raw variance starts small, as this training is too short to bring it into its range of -1 to 1.
    """
    config = Config(8, 2, 4, 24, 1, 2, num_classes=3, mixer="lit", learn_sigma=learn_sigma)
    model = random_model(config, seed)
    if learn_sigma:
        with torch.no_grad():
            model.final_layer.linear.weight.unflatten(0, (4, 8))[:, 4:] *= 0.1  # rows are (p, q, channel)
    train(model, training_data(1500, 32, 3, seed), lr=2e-3)
    return model


@torch.no_grad()
def dpm_solver(model, x, steps):
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=1000, beta_schedule="linear", beta_start=1e-4, beta_end=0.02,
        algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint", prediction_type="epsilon",
        timestep_spacing="linspace", lower_order_final=True, final_sigmas_type="zero",
    )
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        eps = model(x, t.expand(x.shape[0]))[:, : x.shape[1]]
        x = scheduler.step(eps, t, x).prev_sample
    return x, scheduler.timesteps, scheduler.sigmas


def dump_sampling(folder):
    generator = torch.Generator().manual_seed(31)
    x = torch.randn(3, 4, 8, 8, generator=generator)
    y = torch.tensor([0, 2, 1])
    noises = torch.randn(10, *x.shape, generator=generator)
    results = {"x_T": x, "y": y, "cfg_scale": torch.tensor(3.0), "ddpm.noise": noises}
    for steps in (7, 10, 250):
        results[f"spaced.{steps}"] = torch.tensor(Schedule(steps).timesteps)
    model = sampling_model(True, 32)
    save_model(folder / "sampling.model.safetensors", model)
    for name, channels in (("cfg3", 3), ("cfg_all", 4)):
        function = guided(model, y, 3.0, channels)
        results[f"guided.{name}"] = function(x, torch.full((3,), 500)).detach()
        results[f"ddpm.10.{name}"] = ddpm(function, Schedule(10), x, noises)
        for steps in (7, 10):
            results[f"ddim.{steps}.{name}"] = ddim(function, Schedule(steps), x)
        results[f"dpmpp.10.{name}"], timesteps, sigmas = dpm_solver(function, x, 10)
    results["dpmpp.timesteps"], results["dpmpp.sigmas"] = timesteps, sigmas
    save(folder / "sampling.safetensors", results)

    fixed = sampling_model(False, 33)
    save_model(folder / "sampling_no_sigma.model.safetensors", fixed)
    samples = ddpm(guided(fixed, y, 3.0, 4), Schedule(10), x, noises)
    save(folder / "sampling_no_sigma.safetensors", {"ddpm.10.cfg_all": samples})


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, default=here.parent / "data" / "reference")
    parser.add_argument("--only", nargs="+", choices=MODELS, help="these models and nothing else")
    args = parser.parse_args()
    folder = args.folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    dump_models(folder, args.only or MODELS)
    if not args.only:
        dump_random(folder)
        dump_training(folder)
        dump_distillation(folder)
        dump_sampling(folder)
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    print(f"{total / 1e6:.2f} MB in {folder}")


if __name__ == "__main__":
    main()

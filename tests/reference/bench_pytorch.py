"""Times PyTorch on the models that Linnet is timed on, so that both are measured on the same machine.

    python bench_pytorch.py                                       # S/2 and XL/2 at 256 px, forward and training
    python bench_pytorch.py --models S --pixels 256 1024 --threads 4 --json pytorch.json
    python bench_pytorch.py --compile
    python bench_pytorch.py --device cuda --tasks attention --pixels 2048    # softmax modules, every kernel it has

bf16 is tried with bf16 weights and under autocast; the faster one is reported. Attention is PyTorch's own
scaled_dot_product_attention (DiT) and dit_reference.py's two matrix products (LiT). Weights are random.
"""

import argparse
import contextlib
import json
import resource
import time

import torch
import torch.nn.functional as F

from dit_reference import MIXERS, Config, DiT, SoftmaxAttention

SIZES = {  # width, depth, heads of DiT, heads of LiT
    "S": (384, 12, 6, 2),
    "B": (768, 12, 12, 3),
    "L": (1024, 24, 16, 4),
    "XL": (1152, 28, 16, 4),
}


def make_model(size, mixer, pixels, device):
    width, depth, softmax_heads, linear_heads = SIZES[size]
    heads = softmax_heads if mixer == "softmax" else linear_heads
    config = Config(pixels // 8, 2, 4, width, depth, heads, mixer=mixer)
    return DiT(config).to(device)


def synchronise(device):
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(function, device, repeats, limit):
    """The fastest of up to `repeats` runs after one warm-up, starting none after `limit` seconds. A GPU is given call
    after call, without waiting in between, for 50 ms a run."""
    start = time.perf_counter()
    function()
    synchronise(device)
    times = []
    calls = 1
    while not times or (len(times) < repeats and time.perf_counter() - start < limit):
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        synchronise(device)
        times.append((time.perf_counter() - begin) / calls)
        if device == "cuda":
            calls = max(1, round(0.05 / times[-1]))
    return min(times)


def precisions(dtype):
    """(name, weights, autocast) to try"""
    if dtype == "f32":
        return [("f32", torch.float32, False)]
    return [("bf16 weights", torch.bfloat16, False), ("bf16 autocast", torch.float32, True)]


def autocast(device, enabled):
    return torch.autocast(device, torch.bfloat16) if enabled else contextlib.nullcontext()


def inputs(model, batch, device, dtype=torch.float32):
    config = model.config
    x = torch.randn(batch, config.in_channels, config.input_size, config.input_size, device=device, dtype=dtype)
    t = torch.randint(1000, (batch,), device=device)
    y = torch.randint(config.num_classes, (batch,), device=device)
    return x, t, y


def time_forward(args, size, mixer, pixels, dtype):
    """-> (seconds, what was fastest)"""
    results = []
    for name, weights, cast in precisions(dtype):
        model = make_model(size, mixer, pixels, args.device).eval().to(weights)
        x, t, y = inputs(model, args.batch, args.device, weights)
        call = torch.compile(model) if args.compile else model

        @torch.inference_mode()
        def forward():
            with autocast(args.device, cast):
                return call(x, t, y)

        results.append((seconds(forward, args.device, args.repeats, args.limit), name))
    return min(results)


def time_training(args, size, mixer, pixels, dtype):
    """Forward, backward and AdamW on the mean squared error; the variational bound costs next to nothing."""
    model = make_model(size, mixer, pixels, args.device).train()
    x, t, y = inputs(model, args.train_batch, args.device)
    noise = torch.randn_like(x)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=0,
                                  fused=args.device == "cuda")
    call = torch.compile(model) if args.compile else model

    def step():
        with autocast(args.device, dtype == "bf16"):
            eps = call(x, t, y)[:, :4]
        optimiser.zero_grad()
        F.mse_loss(eps.float(), noise).backward()
        optimiser.step()

    return seconds(step, args.device, args.repeats, args.limit), "f32" if dtype == "f32" else "bf16 autocast"


def time_attention(args, size, pixels):
    """One softmax self-attention module in bf16, projections included -> (seconds, the kernel that was fastest)"""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    width, _, heads, _ = SIZES[size]
    tokens = (pixels // 16) ** 2
    x = torch.randn(args.batch, tokens, width, device=args.device, dtype=torch.bfloat16)
    module = SoftmaxAttention(width, heads).to(args.device, torch.bfloat16).eval()
    results = []
    for backend in [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]:
        with contextlib.suppress(RuntimeError), sdpa_kernel(backend), torch.inference_mode():
            results.append((seconds(lambda: module(x), args.device, args.repeats, args.limit), backend.name.lower()))
    return min(results)


def reset_peak(device):
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # Linux: start the high-water mark of resident memory anew


def peak_megabytes(device):
    """CPU: resident memory of the process, PyTorch's own libraries (about 300 MB) included."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    with contextlib.suppress(OSError), open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def processor(device):
    if device == "cuda":
        return torch.cuda.get_device_name()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "unknown"


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["S", "XL"])
    parser.add_argument("--mixers", nargs="+", choices=MIXERS, default=["softmax", "lit"])
    parser.add_argument("--pixels", nargs="+", type=int, default=[256], help="side in pixels, 8 a latent value")
    parser.add_argument("--dtypes", nargs="+", choices=["f32", "bf16"], default=["f32", "bf16"])
    parser.add_argument("--tasks", nargs="+", choices=["forward", "train", "attention"], default=["forward", "train"])
    parser.add_argument("--train-models", nargs="+", choices=SIZES, default=["S"])
    parser.add_argument("--train-mixers", nargs="+", choices=MIXERS, default=["lit"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--train-batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--limit", type=float, default=30.0, help="seconds a case")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", help="also write the results to this file")
    return parser.parse_args()


def cases(args):
    """(task, model size, mixer, pixels, dtype); training at 256 px only"""
    for dtype in args.dtypes:
        if "forward" in args.tasks:
            for size in args.models:
                for pixels in args.pixels:
                    yield from (("forward", size, mixer, pixels, dtype) for mixer in args.mixers)
        if "attention" in args.tasks and dtype == "bf16":
            for size in args.models:
                yield from (("attention", size, "softmax", pixels, dtype) for pixels in args.pixels)
        if "train" in args.tasks:
            for size in args.train_models:
                yield from (("train", size, mixer, 256, dtype) for mixer in args.train_mixers)


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    machine = {"torch": torch.__version__, "processor": processor(args.device), "threads": args.threads,
               "compile": args.compile}
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print(f"{'task':9} {'model':10} {'pixels':>6} {'batch':>5} {'precision':20} {'ms':>10} {'images/s':>9} {'MB':>7}")
    results = []
    for task, size, mixer, pixels, dtype in cases(args):
        reset_peak(args.device)
        batch = args.train_batch if task == "train" else args.batch
        if task == "attention":
            duration, precision = time_attention(args, size, pixels)
        else:
            run = time_forward if task == "forward" else time_training
            duration, precision = run(args, size, mixer, pixels, dtype)
        family = {"softmax": "DiT", "lit": "LiT"}.get(mixer, mixer.title())
        name = f"{family}-{size}/2"
        memory = peak_megabytes(args.device)
        print(f"{task:9} {name:10} {pixels:6} {batch:5} {precision:20} {duration * 1e3:10.2f} "
              f"{batch / duration:9.2f} {memory:7.0f}", flush=True)
        results.append({"task": task, "model": name, "mixer": mixer, "pixels": pixels, "batch": batch,
                        "dtype": dtype, "precision": precision, "ms": duration * 1e3, "peak_mb": memory})
    if args.json:
        with open(args.json, "w") as file:
            json.dump({**machine, "results": results}, file, indent=2)


if __name__ == "__main__":
    main()

"""What the studies share: training, painting and scoring models with the command, and keeping what was found.

A run is one training, named by its settings and seed, in a folder of its own under runs/experiments. A point is a run
looked at after some number of steps by some number of pictures: 2,048, or what --pictures says, are painted (classes
in turn, the same seeds for every model), judged, and compared with the training data by the Fréchet distance. What a
point gave is appended as one line to experiments/results/<study>.jsonl; points that are there already are skipped.
Distances of unlike numbers of pictures cannot be compared, so the report is of points of 2,048 alone. A study can be interrupted at any moment
and started again, and started several times at once: each run is worked on by one process.
"""

import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
WORK = pathlib.Path("runs/experiments")  # below ROOT, where every command runs
BASE = "experiments/base.toml"
FEATURES = "models/shapes-features.safetensors"
DATA, REFERENCE = WORK / "data", WORK / "reference.safetensors"
PICTURES, TRAINING_PICTURES, HELD_OUT_SEED = 2048, 20000, 1
STEPS, HEADS = 2000, 2
TEACHER_SEED, TEACHER_MARKS = 100, [1000, 3000, 6000, 10000]
STRONG_TEACHER = "models/shapes-lit.safetensors"
SAMPLER = ["--sampler", "dpm++", "--steps", "12", "--cfg", "1", "--seed", "1000000"]


def options(description, settings):
    """The command line that every study has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps of a run (default {STEPS})")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each setting (default 3)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of these seeds (default 0)")
    parser.add_argument("--pictures", type=int, default=PICTURES,
                        help=f"pictures painted for a point (default {PICTURES})")
    parser.add_argument("--only", action="append", choices=settings, metavar="SETTING", default=[],
                        help=f"this setting alone, of {', '.join(settings)} (may be repeated)")
    parser.add_argument("--linnet", default="build/release/linnet", help="the command (default build/release/linnet)")
    return parser.parse_args()


def of_pictures(name, pictures):
    """What stands for so many pictures; the usual number goes without saying."""
    return name if pictures == PICTURES else f"{name}-{pictures}"


def say(text):
    print(text, flush=True)


@contextlib.contextmanager
def locked(path, wait=True):
    """Yields whether this process alone holds the lock; a process that ends, in whatever way, gives it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def training_seconds(metrics, steps):
    """A log's seconds count from when its process started, so they begin anew where a run was resumed."""
    total = before = 0.0
    for line in metrics.read_text().splitlines():
        entry = json.loads(line)
        if entry["step"] > steps:
            break
        if entry["seconds"] < before:
            total += before
        before = entry["seconds"]
    return total + before


class Linnet:
    """The command, run in ROOT on one core."""

    def __init__(self, program):
        self.program = str((ROOT / program).resolve())
        if not os.access(self.program, os.X_OK):
            sys.exit(f"{program}: there is no such program; build it, or name it with --linnet")

    def __call__(self, *arguments):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        command = [self.program, *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              text=True)
        if done.returncode != 0:
            error = done.stderr.strip().splitlines()
            sys.exit(f"{' '.join(command)}\nended with code {done.returncode}: {error[-1] if error else ''}")


class Run:
    """One training."""

    def __init__(self, study, name, settings, seed, init=None, teacher=None):
        self.study, self.name = study, f"{name}-s{seed}"
        self.folder = WORK / "runs" / self.name
        self.arguments = [f"train.seed={seed}", *settings, f"output.dir={self.folder}"]
        if init:
            self.arguments += ["--init", init]
        if teacher:
            self.arguments += ["--teacher", teacher]

    def model(self, steps):
        return self.folder / f"model-{steps}.safetensors"

    def train(self, marks):
        """Trains to each of the marks, which rise, and keeps the model of each."""
        for steps in marks:
            if self.model(steps).exists():
                continue
            if self.steps_done() > steps:
                sys.exit(f"{self.folder}: this run is beyond step {steps}, whose model was not kept; remove the folder")
            say(f"{self.name}: training to step {steps}")
            resume = ["--resume"] if (self.folder / "checkpoint.safetensors").exists() else []
            self.study.linnet("train", BASE, *self.arguments, f"train.steps={steps}", *resume)
            partial = self.folder / "model.partial"
            shutil.copyfile(self.folder / "model.safetensors", partial)
            partial.rename(self.model(steps))

    def steps_done(self):
        """Of the checkpoint, whose header says so."""
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return 0
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return int(header["__metadata__"]["linnet.step"])

    def score(self, steps):
        """Paints and measures the model kept at that step; remembers what came out."""
        kept = self.folder / (of_pictures(f"score-{steps}", self.study.pictures) + ".json")
        if kept.exists():
            return json.loads(kept.read_text())
        say(f"{self.name}: painting and scoring at step {steps}")
        score = measure(self.study.linnet, self.model(steps), self.study.pictures)
        score["seconds"] = round(training_seconds(self.folder / "metrics.jsonl", steps), 1)
        kept.with_suffix(".partial").write_text(json.dumps(score))
        kept.with_suffix(".partial").rename(kept)
        return score


def measure(linnet, model, pictures):
    """Paints pictures with a model, in a folder that is gone afterwards, and scores them."""
    with picture_folder() as folder:
        samples, judged, compared = folder / "samples", folder / "judged.json", folder / "compared.json"
        samples.mkdir()
        linnet("generate", "--model", model, "-n", pictures, *SAMPLER, "-o", samples / "p.png")
        linnet("eval", "shapes", samples, "--json", judged)
        linnet("eval", samples, REFERENCE, "--features", FEATURES, "--json", compared)
        return scores(judged, compared)


@contextlib.contextmanager
def picture_folder():
    """In memory if there is such a place: the command flushes every picture to the disk."""
    memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="linnet-", dir=memory if memory.is_dir() else None) as folder:
        yield pathlib.Path(folder)


def scores(judged, compared):
    """Out of the files that both kinds of evaluation wrote."""
    judged, compared = (json.loads(path.read_text()) for path in (judged, compared))
    kept = ["accuracy", "shape_accuracy", "colour_accuracy", "mean_iou"]
    return {"pictures": judged["count"], **{name: judged[name] for name in kept}, "frechet": compared["frechet_distance"]}


class Study:
    """Some settings, compared."""

    def __init__(self, name, description, settings):
        self.name, self.results = name, RESULTS / f"{name}.jsonl"
        arguments = options(description, settings)
        self.steps, self.pictures, self.only = arguments.steps, arguments.pictures, arguments.only
        self.always_kept = [self.steps // 4, self.steps // 2, self.steps]  # studies that share a run ask for different ones
        self.seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        self.linnet = Linnet(arguments.linnet)
        os.chdir(ROOT)
        self.prepare()

    def prepare(self):
        """The data, and its statistics; what real pictures of another seed score is what no model can beat."""
        held_out = WORK / of_pictures("held-out", self.pictures)
        real = RESULTS / (of_pictures("real", self.pictures) + ".json")
        with locked(WORK / "prepare.lock"):
            if REFERENCE.exists() and real.exists():
                return
            say(f"rendering {TRAINING_PICTURES} pictures to learn from, and as many as are painted to compare with")
            for folder, count, seed in [(DATA, TRAINING_PICTURES, 0), (held_out, self.pictures, HELD_OUT_SEED)]:
                self.render(folder, count, seed)
            judged, compared = WORK / "judged.json", WORK / "compared.json"
            self.linnet("eval", "shapes", held_out, "--json", judged)
            self.linnet("eval", held_out, DATA, "--features", FEATURES, "--json", compared,
                        "--save-statistics", REFERENCE)
            RESULTS.mkdir(parents=True, exist_ok=True)
            real.write_text(json.dumps(scores(judged, compared)) + "\n")

    def render(self, folder, count, seed):
        if folder.exists():
            return
        with picture_folder() as memory:
            self.linnet("data", "shapes", memory / "data", "--count", count, "--size", 32, "--seed", seed)
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(memory / "data", partial)
            partial.rename(folder)

    def wanted(self, setting):
        return not self.only or setting in self.only

    def finished(self):
        """Setting, seed and steps of the points that the results hold of so many pictures."""
        if not self.results.exists():
            return set()
        lines = [json.loads(line) for line in self.results.read_text().splitlines()]
        return {(line["setting"], line["seed"], line["steps"]) for line in lines
                if line["pictures"] == self.pictures}

    def record(self, setting, seed, steps, score):
        with locked(WORK / "results.lock"):
            if (setting, seed, steps) in self.finished():
                return
            RESULTS.mkdir(parents=True, exist_ok=True)
            with open(self.results, "a") as file:
                file.write(json.dumps({"setting": setting, "seed": seed, "steps": steps, **score}) + "\n")
        say(f"{self.name}, {setting}, seed {seed}, step {steps}: accuracy {score['accuracy']:.3f}, "
            f"Fréchet distance {score['frechet']:.3f}")

    def points(self, setting, seed, marks, make_run):
        """Trains make_run() to each of the marks in turn and records what it is worth there."""
        done = self.finished()
        if not self.wanted(setting) or all((setting, seed, steps) in done for steps in marks):
            return
        run = make_run()
        with locked(WORK / "locks" / run.name, wait=False) as mine:
            if not mine:
                return say(f"{run.name}: another process is at work on it")
            run.train(sorted({*marks, *self.always_kept}) if marks[-1] == self.steps else marks)
            for steps in marks:
                self.record(setting, seed, steps, run.score(steps))

    # ---- The runs that studies have in common. ----

    def scratch(self, mixer, heads, seed):
        """A model trained from nothing."""
        return Run(self, f"{mixer}-h{heads}", [f"model.mixer={mixer}", f"model.num_heads={heads}"], seed)

    def teacher(self, steps=TEACHER_MARKS[-1]):
        """The teacher of inheritance and distillation, trained once and kept at every mark: a softmax DiT. Trains it up
        to these steps if it is not, or waits while another process does. Its model."""
        run = self.teacher_run()
        with locked(WORK / "locks" / run.name):
            run.train([mark for mark in TEACHER_MARKS if mark <= steps])
        return run.model(steps)

    def teacher_run(self):
        return Run(self, "teacher", ["model.mixer=softmax", f"model.num_heads={HEADS}"], TEACHER_SEED)

    def inherited(self, seed, steps=TEACHER_MARKS[-1], also="", taught=None):
        """A LiT that starts from the teacher after so many steps. taught: name, model, λ₁ and λ₂ of a distillation."""
        name = f"inherited-{steps}" + (f"-{also}" if also else "")
        init = WORK / "inherited" / f"{name}-s{seed}.safetensors"
        init.parent.mkdir(parents=True, exist_ok=True)
        with locked(WORK / "locks" / init.name):
            if not init.exists():
                self.linnet("inherit", "--from", self.teacher(steps), "--mixer", "lit", "--heads", HEADS, "--seed", seed,
                            "-o", init, *(["--also", also] if also else []))
        settings, model = ["model.mixer=lit", f"model.num_heads={HEADS}"], None
        if taught:
            teacher, model, noise, variance = taught
            name += f"-{teacher}-{noise}-{variance}"
            settings += [f"distil.noise={noise}", f"distil.variance={variance}"]
        return Run(self, name, settings, seed, init, model)

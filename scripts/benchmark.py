"""The speed of icsbench against plain baselines, as ratios measured interleaved in one run.

``make benchmark`` or ``python scripts/benchmark.py [NAME ...]``; the rows are printed, and take the place of their
benchmark's in ``results/reference/benchmark.md`` and ``.csv``, each with its commit. Training is VGG16 at width 1/4
with batch 128 on random 32x32 images (the numbers in a picture do not change its cost); one thread, except where it
says otherwise.
"""

import csv
import itertools
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from icsbench import random_networks as rn
from icsbench.config import Config, DataConfig, WandbConfig, options_of, probes_options
from icsbench.data import Batches, Split, channel_statistics
from icsbench.data import Dataset as Images
from icsbench.labs.explosion import ExplosionOptions
from icsbench.labs.explosion.networks import Setting, propagate
from icsbench.labs.explosion.networks import rows as explosion_rows
from icsbench.probes import NetworkWatcher, UpdateWatcher, internal_covariate_shift, loss_landscape
from icsbench.random_networks import ACTIVATIONS
from icsbench.training import Protocol, build_model, environment
from icsbench.training import run as train
from icsbench.training.evaluation import known_protocol
from icsbench.training.trainer import Progress, Trainer

OUT = Path(__file__).resolve().parent.parent / "results" / "reference"
BATCH = 128
IMAGES = 8192


class Row(NamedTuple):
    what: str
    measured: str
    bar: str
    holds: bool


def random_split(count: int = IMAGES) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return Split(images, torch.randint(10, (count,), generator=generator))


def interleaved(rounds: int, **work: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds of each piece of work, taken in turn, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for index in range(rounds + 1):
        for name, do in work.items():
            began = time.perf_counter()
            do()
            if index:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(seconds: dict[str, list[float]], numerator: str, denominator: str) -> float:
    """Median of the ratios of the rounds: each compares two measurements made right after one another."""
    return statistics.median(a / b for a, b in zip(seconds[numerator], seconds[denominator], strict=True))


class TorchvisionImages(Dataset):
    """The usual way: PIL images, torchvision transforms, one sample at a time."""

    def __init__(self, split: Split, mean: torch.Tensor, std: torch.Tensor) -> None:
        self.images = [to_pil_image(image.permute(2, 0, 1)) for image in split.images]
        self.labels = split.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((mean / 255).tolist(), (std / 255).tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def input_pipeline() -> list[Row]:
    split = random_split()
    mean, std = channel_statistics(split.images)
    batches = Batches(split, BATCH, 0, flip=True, crop=True, mean=mean, std=std, device="cpu")
    plain = TorchvisionImages(split, mean, std)
    workers = torch.multiprocessing.cpu_count()
    loaders = {
        "in_process": DataLoader(plain, BATCH, shuffle=True, drop_last=True),
        "workers": DataLoader(plain, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True),
    }

    def ours() -> None:
        for step in range(IMAGES // BATCH):
            batches(step)

    def theirs(name: str) -> Callable[[], object]:
        return lambda: deque(loaders[name], maxlen=0)

    seconds = interleaved(5, ours=ours, in_process=theirs("in_process"), workers=theirs("workers"))
    rate = IMAGES / statistics.median(seconds["ours"])
    rows = []
    for name, label in (("in_process", "in the process"), ("workers", f"with {workers} workers")):
        times = ratio(seconds, name, "ours")
        rows.append(
            Row(
                f"input pipeline against torchvision transforms in a DataLoader {label}",
                f"{times:.1f}x ({rate:,.0f} images/s, 1 thread)",
                "8x or more",
                times >= 8,
            )
        )
    return rows


def training_config(folder: str, norm: str, steps: int) -> Config:
    return Config(
        results=folder,
        steps=steps,
        eval_every=10**6,
        threads=1,
        device="cpu",
        data=DataConfig("cifar10", val_size=0),
        model=options_of("model", width=0.25),
        norm=options_of("norm", norm),
        probes=probes_options(shift=False),
        wandb=WandbConfig("disabled"),
    )


def training_step() -> list[Row]:
    """Our loop, records and all, against ``forward, backward, step`` on the same batches, ``BLOCK`` steps at a time."""
    block, split = 10, random_split()
    mean, std = channel_statistics(split.images)
    rows = []
    resnet = options_of("model", "resnet20", width=0.5)
    for model_options, norm in ((None, "none"), (None, "bn"), (resnet, "bn")):
        with tempfile.TemporaryDirectory() as folder:
            config = training_config(folder, norm, 10**6)
            config.model = model_options or config.model
            ours = _OurLoop(config, split, block)
            batches = Batches(split, BATCH, 0, mean=mean, std=std, device="cpu")
            model = build_model(config, 10).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            optimizer = torch.optim.SGD(model.parameters(), lr=config.optim.lr)
            position = iter(range(10**9))

            def bare(batches=batches, model=model, optimizer=optimizer, position=position) -> None:
                for _ in range(block):
                    inputs, targets = batches(next(position))
                    optimizer.zero_grad()
                    F.cross_entropy(model(inputs), targets).backward()
                    optimizer.step()

            seconds = interleaved(12, ours=ours.advance, bare=bare)
            ours.stop()
        over = ratio(seconds, "ours", "bare") - 1
        milliseconds = statistics.median(seconds["bare"]) / block * 1e3
        of = " of ResNet-20 at width 1/2" if model_options else ""
        rows.append(
            Row(
                f"training step{of} in our loop against a bare loop, {norm}",
                f"{over:+.1%} (bare {milliseconds:.0f} ms)",
                "within 3 %",
                over <= 0.03,
            )
        )
    return rows


def amp_step() -> list[Row]:
    """A step of our loop under bfloat16 autocast against one in float32; of use where the CPU has the instructions."""
    block, split, rows = 10, random_split(), []
    for norm in ("none", "bn"):
        with tempfile.TemporaryDirectory() as folder:
            plain = _OurLoop(training_config(folder, norm, 10**6), split, block)
            amp = _OurLoop(replace(training_config(folder, norm, 10**6), amp=True), split, block)
            seconds = interleaved(12, amp=amp.advance, plain=plain.advance)
            amp.stop()
            plain.stop()
        times = ratio(seconds, "amp", "plain")
        milliseconds = statistics.median(seconds["plain"]) / block * 1e3
        measured = f"{times:.2f}x (float32 {milliseconds:.0f} ms)"
        rows.append(Row(f"training step with amp=true against float32, {norm}", measured, "faster", times < 1))
    return rows


def trainer_of(norm: str, data: Images | None = None, **changes: Any) -> Trainer:
    """A trainer on random images."""
    config = replace(training_config("unused", norm, 2000), optim=options_of("optim", lr=0.01), **changes)
    return Trainer(config, data or _dataset(random_split()), torch.device("cpu"))


def updates(trainer: Trainer, count: int = 1) -> Callable[[], object]:
    """The next ``count`` updates of a trainer."""
    numbers = itertools.count()
    return lambda: [trainer.step(next(numbers)) for _ in range(count)]


def accuracies_along_the_way() -> list[Row]:
    """What the network knows, measured at the default settings of ``scale=cpu``, against the steps of the run."""
    rows = []
    train, val, test = (random_split(count) for count in (45_000, 5000, 10_000))
    data = Images("cifar10", "random images", 10, train=train, val=val, test=test, fingerprint="0")
    for norm in ("none", "bn", "noisy_bn"):
        trainer = trainer_of(norm, data, eval_every=250)
        evaluations, steps = trainer.evaluations, trainer.config.steps
        protocol = known_protocol(evaluations.protocols)
        splits = ("train",) if norm == "none" else ("test", "train")  # without statistics that of the test set is there
        seconds = interleaved(
            3,
            known=lambda e=evaluations, p=protocol, s=splits: e.measure({p: s}, along=True),
            end=lambda e=evaluations: e.measure({Protocol("running", False): ("train",)}, along=False),
            steps=updates(trainer, 20),
        )
        known, end = (20 * ratio(seconds, name, "steps") for name in ("known", "end"))
        times = len(evaluations.known_steps)
        share = (times * known + end) / steps
        what = f"what the network knows, along {steps:,} steps and at the end, against these steps, {norm}"
        measured = f"{share:.1%} ({times} of {known:.0f} steps, at the end {end:.0f})"
        rows.append(Row(what, measured, "5 % or less", share <= 0.05))
    return rows


class _OurLoop:
    """The real training loop, run in a thread that advances ``block`` steps for every call of :meth:`advance`."""

    def __init__(self, config: Config, split: Split, block: int) -> None:
        import threading

        self._go, self._done, self._stopping = threading.Semaphore(0), threading.Semaphore(0), False
        self._block = block
        self._config = config
        self._dataset = _dataset(split)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        original = environment.load_dataset
        environment.load_dataset = lambda *_, **__: self._dataset
        try:
            self._go.acquire()
            train(self._config, show=self._pause)
        except _Stop:
            pass
        finally:
            environment.load_dataset = original

    def _pause(self, progress: Progress) -> None:
        if progress.step % self._block == 0:
            self._done.release()
            self._go.acquire()
            if self._stopping:
                raise _Stop

    def advance(self) -> None:
        self._go.release()
        self._done.acquire()

    def stop(self) -> None:
        self._stopping = True
        self._go.release()
        self._thread.join()


class _Stop(Exception):
    pass


def _dataset(split: Split) -> Images:
    few = Split(split.images[:256], split.labels[:256])
    return Images("cifar10", "random images", 10, train=split, val=few, test=few, fingerprint="0")


def shift_probe() -> list[Row]:
    rows = []
    for norm in ("none", "bn", "noisy_bn"):
        trainer = trainer_of(norm, probes=probes_options())
        steps = trainer.config.steps
        look, count = _looks(trainer, steps)
        seconds = interleaved(15, probe=look, step=updates(trainer))
        cost = ratio(seconds, "probe", "step")
        share = count * cost / steps
        rows.append(
            Row(
                f"default shift probe over {steps:,} steps, {norm}",
                f"{share:.1%} ({count} probes of {cost:.2f} steps each)",
                "5 % or less",
                share <= 0.05,
            )
        )
    return rows


def _looks(trainer: Trainer, steps: int) -> tuple[Callable[[], object], int]:
    """The next measurement of the network by the trainer's one probe of it, and how often a run has one."""
    (watcher,) = (watcher for _, watcher in trainer.probes if isinstance(watcher, NetworkWatcher))
    trainer.look(watcher, 0)
    numbers = itertools.count(1)
    return lambda: trainer.look(watcher, next(numbers)), sum(map(watcher.due, range(steps + 1)))


def update_probes() -> list[Row]:
    """ICS and landscape of VGG16 against plain forward and backward passes, and all probes over a run."""
    steps = 1000
    probes = probes_options(ics=True, landscape=True)
    every, points = probes.update_every, probes.alpha_points
    alphas = [0.01 * 0.5 * 1.5**k for k in range(points)]
    rows = []
    for norm in ("none", "bn", "noisy_bn"):
        trainer = trainer_of(norm, probes=probes)
        model = trainer.model
        inputs, targets = trainer.task.batches(0)
        paths = [path for path, _ in model.layers()]
        step = updates(trainer)
        step()
        new = {name: parameter.detach() * 0.999 for name, parameter in model.named_parameters()}

        def one_pass(model=model, inputs=inputs, targets=targets) -> None:
            model.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()

        def brute_force(model=model, paths=paths, new=new, one_pass=one_pass) -> None:
            old = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
            one_pass()
            for count in range(len(paths)):
                with torch.no_grad():
                    for name, parameter in model.named_parameters():
                        parameter.copy_((new if name.startswith(tuple(f"{p}." for p in paths[:count])) else old)[name])
                one_pass()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(old[name])

        (watcher,) = (watcher for _, watcher in trainer.probes if isinstance(watcher, UpdateWatcher))
        look, probes_of_run = _looks(trainer, steps)
        seconds = interleaved(
            7,
            ics=lambda m=model, n=new, i=inputs, t=targets: internal_covariate_shift(m, F.cross_entropy, i, t, n),
            one_pass=one_pass,
            brute_force=brute_force,
            landscape=lambda m=model, i=inputs, t=targets: loss_landscape(m, F.cross_entropy, i, t, alphas),
            step=step,
            watched=lambda t=trainer, w=watcher: t.step(0, [w]),
            shift=look,
        )
        cost = ratio(seconds, "ics", "one_pass")
        rows.append(
            Row(
                f"ICS of the 14 layers of VGG16 against one forward and backward pass, {norm}",
                f"{cost:.2f}x (brute force takes {ratio(seconds, 'brute_force', 'ics'):.1f} times as long)",
                "5x or less",
                cost <= 5,
            )
        )
        cost = ratio(seconds, "landscape", "one_pass") / (points + 1)
        rows.append(
            Row(
                f"landscape at {points} points against {points + 1} forward and backward passes, {norm}",
                f"{cost:.2f}x",
                "1.1x or less",
                cost <= 1.1,
            )
        )
        extra = ratio(seconds, "watched", "step") - 1
        share = extra / every + probes_of_run * ratio(seconds, "shift", "step") / steps
        what = f"all probes over {steps:,} steps, ICS and landscape every {every}, {norm}"
        rows.append(Row(what, f"{share:.0%} (one update measured: {extra:.1f} steps)", "none", True))
    return rows


def deep_linear_study() -> list[Row]:
    """The whole of ``experiment=dln`` at full length: two learning rates, six seeds, with and without BN."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "icsbench", "sweep", "experiment=dln", "scale=cpu", f"results={folder}"]
        began = time.perf_counter()
        subprocess.run([*command, "wandb=disabled"], check=True, capture_output=True)
        minutes = (time.perf_counter() - began) / 60
        runs = len(list(Path(folder).rglob("summary.json")))
    what = f"the deep linear study: {runs} runs of 10,000 steps with all probes"
    measured = f"{minutes:.0f} minutes on {torch.multiprocessing.cpu_count()} cores"
    return [Row(what, measured, "minutes, not hours", minutes < 60)]


class NaiveNoise(torch.nn.Module):
    """Algorithm 1 as it is written down: two random floats for every activation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        units = (1, x.shape[1], 1, 1)
        mu = torch.empty(units).uniform_(-0.5, 0.5)
        sigma = torch.empty(units).uniform_(1, 1.25)
        s = sigma + 0.1 * torch.randn_like(x)
        m = mu + 0.1 * (2 * torch.rand_like(x) - 1)
        return s * x + m


def noise() -> list[Row]:
    """Steps with noisy BN against steps with BN, in float32 and under bfloat16 autocast; three steps a turn.

    Three, because a network that needs more memory leaves it behind for the first step of the other.
    """
    naive = trainer_of("bn")
    for _, block in naive.model.layers()[:-1]:
        block.norm = torch.nn.Sequential(block.norm, NaiveNoise())
    in_float32 = interleaved(
        15,
        noisy_bn=updates(trainer_of("noisy_bn"), 3),
        bn=updates(trainer_of("bn"), 3),
        naive=updates(naive, 3),
    )
    ours, theirs = ratio(in_float32, "noisy_bn", "bn"), ratio(in_float32, "naive", "bn")
    in_bfloat16 = interleaved(
        25, noisy_bn=updates(trainer_of("noisy_bn", amp=True), 3), bn=updates(trainer_of("bn", amp=True), 3)
    )
    under_amp = ratio(in_bfloat16, "noisy_bn", "bn")
    milliseconds = statistics.median(in_bfloat16["bn"]) / 3 * 1e3
    return [
        Row(
            "noisy_bn step against bn step, noise per position",
            f"{ours:.2f}x (drawn naively {theirs:.2f}x)",
            "1.5x or less",
            ours <= 1.5,
        ),
        Row(
            "noisy_bn step against bn step under bf16 autocast",
            f"{under_amp:.2f}x (bn {milliseconds:.0f} ms)",
            "1.3x or less",
            under_amp <= 1.3,
        ),
    ]


FUSED: dict[str, Callable[[torch.Size], torch.nn.Module]] = {
    "layer": torch.nn.LayerNorm,
    "group": lambda shape: torch.nn.GroupNorm(2, shape[0]),
    "instance": lambda shape: torch.nn.InstanceNorm2d(shape[0], affine=True),
    "rms": torch.nn.RMSNorm,
}
"""PyTorch's own modules by norm, for feature maps of a shape ``(C, H, W)``."""


class GhostsInALoop(torch.nn.Module):
    """Ghost BN as it is written down: PyTorch's BN of one part of the batch after another."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.size = options_of("norm", "ghost").ghost_size
        self.bn = torch.nn.BatchNorm2d(shape[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.bn(part) for part in x.split(self.size)])


def _put(norm: Callable[[torch.Size], torch.nn.Module], trainer: Trainer) -> None:
    """Replace the norm of every layer by one that is made for the shape of the layer's outputs."""

    def replaced(block: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        block.norm = norm(output.shape[1:])

    blocks = [block for _, block in trainer.model.layers()[:-1]]
    hooks = [block.register_forward_hook(replaced) for block in blocks]
    trainer.model(trainer.task.batches(0)[0])
    for hook in hooks:
        hook.remove()


def norms() -> list[Row]:
    """Steps with each norm of the family against steps with PyTorch's module in its places, and with BN; three a turn.

    PyTorch's layer and RMS norm have a weight for each position too. Its layer and instance norm leave the memory
    format of the network, channels last, which costs time; ours are its group norm, which keeps it. The optimizer does
    not know the modules that are put in, so its step is a little shorter with them. Ghost BN is compared with a loop
    over the parts of the batch. The others are compared with BN alone: there is no fused DyT or batch renormalization,
    and weight normalization is PyTorch's.
    """
    rows = []
    bn = updates(trainer_of("bn"), 3)
    others = {**FUSED, "ghost": GhostsInALoop}
    for norm in (*others, "batch_renorm", "dyt", "weight_norm"):
        work = {"ours": updates(trainer_of(norm), 3)}
        if norm in others:
            theirs = trainer_of(norm)
            _put(others[norm], theirs)
            work["theirs"] = updates(theirs, 3)
        seconds = interleaved(9, **work, bn=bn)
        to_bn = ratio(seconds, "ours", "bn")
        if norm not in others:
            rows.append(Row(f"{norm} step against bn step", f"{to_bn:.2f}x", "none", True))
            continue
        times = ratio(seconds, "ours", "theirs")
        measured = f"{times:.2f}x ({to_bn:.2f} times a step with bn)"
        if norm in FUSED:
            rows.append(Row(f"{norm} step against PyTorch's module", measured, "1.15x or less", times <= 1.15))
        else:
            rows.append(Row(f"{norm} step against a loop over the parts of the batch", measured, "none", True))
    return rows


def pool() -> list[Row]:
    """Six seeds x three regimes on the digits: the default pool against one after another on all cores."""
    common = ["steps=100", "probes=none", "wandb=disabled", "eval_every=1000", "log_every=20"]

    def sweep(*extra: str) -> Callable[[], None]:
        def work() -> None:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "icsbench", "sweep", "experiment=three_regimes", f"results={folder}"]
                subprocess.run([*command, *common, *extra], check=True, capture_output=True)

        return work

    seconds = interleaved(1, one_after_another=sweep("hydra/launcher=basic"), pool=sweep())
    times = ratio(seconds, "one_after_another", "pool")
    return [
        Row(
            "six seeds x three regimes through the pool against one after another on all cores",
            f"{times:.2f}x on {torch.multiprocessing.cpu_count()} cores (digits, 100 steps a run, start-up included)",
            "as fast as the cores allow",
            times >= 1,
        )
    ]


def memory() -> list[Row]:
    """Resident memory of the real loop, probes on, after 100 steps and after 500."""
    import resource

    def resident() -> float:
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize() / 2**20

    split = random_split()
    with tempfile.TemporaryDirectory() as folder:
        config = training_config(folder, "noisy_bn", 10**6)
        config.model = options_of("model", width=0.125)
        config.probes = probes_options(every=10)
        ours = _OurLoop(config, split, 100)
        ours.advance()
        early = resident()
        for _ in range(4):
            ours.advance()
        late = resident()
        ours.stop()
    growth = late / early - 1
    return [
        Row(
            "resident memory after 500 steps against after 100, probes every 10",
            f"{growth:+.1%} ({early:.0f} MiB to {late:.0f} MiB)",
            "flat",
            growth <= 0.02,
        )
    ]


def start_up() -> list[Row]:
    """Whole commands; ``figures`` on three regimes x two seeds, drawn anew and with nothing changed since."""
    tiny = "model=vgg11 model.width=0.0625 steps=40 probes.every=10 eval_every=20 wandb=disabled seed=0,1".split()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        icsbench = [sys.executable, "-m", "icsbench"]
        sweep = [*icsbench, "sweep", "experiment=three_regimes", f"results={folder}", *tiny]
        subprocess.run(sweep, check=True, capture_output=True)
        figures = [*icsbench, "figures", folder]
        note = Path(folder) / "figures" / ".drawn.json"

        def run(command: list[str], forget: bool = False) -> Callable[[], None]:
            def work() -> None:
                if forget:
                    note.unlink(missing_ok=True)
                subprocess.run(command, check=True, capture_output=True)

            return work

        seconds = interleaved(7, help=run([*icsbench, "--help"]), drawn=run(figures, forget=True), again=run(figures))
        median = {name: statistics.median(values) for name, values in seconds.items()}
        rows.append(Row("icsbench --help", f"{median['help']:.2f} s", "under 0.5 s", median["help"] < 0.5))
        what = "icsbench figures, records unchanged since the last drawing"
        rows.append(Row(what, f"{median['again']:.2f} s", "under 0.5 s", median["again"] < 0.5))
        rows.append(Row("icsbench figures, five figures drawn anew", f"{median['drawn']:.2f} s", "none", True))
        loaded = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "icsbench", "figures", folder], capture_output=True, text=True
        )
        without = "torch" not in {line.split("|")[-1].strip() for line in loaded.stderr.splitlines()}
        rows.append(Row("icsbench figures imports torch", "no" if without else "yes", "no", without))
    return rows


def networks() -> list[Row]:
    """Random networks batched against one by one, at width 128: the networks alone, and the lab that draws them.

    One by one is a bare loop of linear layers, BN and one backward pass, which draws its weights for each setting anew.
    """
    count, depth, width = 32, 30, 128
    options = ExplosionOptions("explosion", list(ACTIVATIONS), ["bn"], [8, 32], count, width, depth)
    drawn = rn.stream(0, "benchmark")
    weights = [rn.square_weights("gaussian", drawn, count, width) for _ in range(depth)]

    def one_by_one(settings: list[Setting], weights: list[torch.Tensor] | None) -> None:
        for setting, number in itertools.product(settings, range(count)):
            h = torch.randn(setting.batch, width, generator=drawn, requires_grad=True)
            features = [h]
            for layer in range(depth):
                weight = weights[layer][number] if weights else rn.gaussian(drawn, width, width, std=width**-0.5)
                h = F.linear(ACTIVATIONS[setting.activation](F.batch_norm(h, None, None, training=True)), weight)
                features.append(h)
            loss = (h * torch.randn(h.shape, generator=drawn)).sum()
            for gradient in torch.autograd.grad(loss, features):
                gradient.square().sum().log()

    rows = []
    for what, settings in {
        "relu, batch 8": [Setting("relu", "bn", 8)],
        "relu, batch 32": [Setting("relu", "bn", 32)],
        "all activations, batch 8": [Setting(activation, "bn", 8) for activation in ACTIVATIONS],
    }.items():
        generators = {setting: rn.stream(0, *setting) for setting in settings}
        chosen = replace(options, activations=[s.activation for s in settings], batches=[settings[0].batch])
        seconds = interleaved(
            5,
            batched=lambda g=generators, c=chosen: propagate(weights, g, c),
            loop=lambda s=settings: one_by_one(s, weights),
            lab=lambda c=chosen: deque(explosion_rows(c, 0), maxlen=0),
            drawing_loop=lambda s=settings: one_by_one(s, None),
        )
        given, whole = ratio(seconds, "loop", "batched"), ratio(seconds, "drawing_loop", "lab")
        rows.append(Row(f"random networks, batched against one by one, {what}", f"{given:.1f}x", "5x", given >= 5))
        what = f"the same with their weights drawn, by the lab, {what}"
        rows.append(Row(what, f"{whole:.1f}x", "none: drawing takes the same time", True))
    return rows


BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "input": input_pipeline,
    "step": training_step,
    "amp": amp_step,
    "knows": accuracies_along_the_way,
    "probe": shift_probe,
    "update": update_probes,
    "noise": noise,
    "norms": norms,
    "dln": deep_linear_study,
    "memory": memory,
    "start": start_up,
    "pool": pool,
    "networks": networks,
}


def main(names: list[str]) -> None:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"unknown benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    torch.set_num_threads(1)
    made = {
        "commit": environment.commit() or "",
        "machine": f"torch {torch.__version__}, {platform.system()} {platform.machine()}, "
        f"{torch.multiprocessing.cpu_count()} cores",
    }
    rows = read()
    for name in names or BENCHMARKS:
        found = BENCHMARKS[name]()
        for row in found:
            print(f"{'ok  ' if row.holds else 'MISS'} {row.what}: {row.measured} (bar: {row.bar})", flush=True)
        rows[name] = [{"benchmark": name, **made, **row._asdict()} for row in found]
        write([row for benchmark in BENCHMARKS for row in rows.get(benchmark, [])])


def read() -> dict[str, list[dict[str, Any]]]:
    """The committed rows, by benchmark."""
    rows: dict[str, list[dict[str, Any]]] = {}
    if (OUT / "benchmark.csv").exists():
        with open(OUT / "benchmark.csv", newline="") as file:
            for row in csv.DictReader(file):
                rows.setdefault(row["benchmark"], []).append(row | {"holds": row["holds"] == "True"})
    return rows


def write(rows: list[dict[str, Any]]) -> None:
    made: dict[str, list[str]] = {}
    for row in rows:
        made.setdefault(f"commit {row['commit']}, {row['machine']}", []).append(row["benchmark"])
    lines = [f"{', '.join(dict.fromkeys(names))}: {where}." for where, names in made.items()]
    lines += ["", "| benchmark | what | measured | bar | holds |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['benchmark']} | {row['what']} | {row['measured']} | {row['bar']} | {'yes' if row['holds'] else 'no'} |"
        for row in rows
    ]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "benchmark.md").write_text("\n".join(lines) + "\n")
    with open(OUT / "benchmark.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(sys.argv[1:])

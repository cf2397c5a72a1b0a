"""What each process does in the tests of several processes, and the problems that both they and the tests solve.

`python -m tests.uscl.ranks WORLD RANK PORT FOLDER` plays one process of torchrun and leaves its tensors in FOLDER. To start a process costs
more than all that it does here, so two do everything that two can show, and three the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from tests.uscl.tiny_set import TINY_NETWORK
from uscl import batch_norm, distributed, processes
from uscl.config import Config, load_config
from uscl.losses import masked_cross_entropy, nt_xent
from uscl.methods import Facts
from uscl.methods.barlow_twins import barlow_twins
from uscl.methods.vicreg import vicreg
from usdata.errors import Stopped, UserError

# Videos in a batch: equal and unequal parts for two and three processes, and fewer videos than processes.
COUNTS = (6, 7, 2)
NETWORK_COUNTS = (7, 2)
# Recipes whose methods are compared on rows alone, and how many videos those are of.
CONTRASTS = ("moco-v2", "ucl", "awcl", "supervised")
CONTRASTED = 7
META_COUNTS = (5, 1)
# Steps enough that a signal comes before the last of them.
SETTINGS = [TINY_NETWORK, "image_size=32", "epochs=10", "batch_size=4", "device=cpu", "checkpoint.every_epochs=10"]
SETTINGS += ["checkpoint.log_every_steps=1"]
FEEDS = {
    "mix first": ["augment.blur=0.5", "augment.vertical_flip=0.5", "pairs.exclude_same_group=true"],
    "augment first": ["pairs.order=augment-then-mix", "batch_size=5"],
}


@dataclass(frozen=True)
class Problem:
    """A batch in float64.

    Attributes:
        inputs: (views, videos, ...), of the whole batch.
        labels: (videos,), -1 = unlabelled.
        same_group: (videos, videos).
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    same_group: torch.Tensor

    @property
    def facts(self) -> Facts:
        return Facts(self.labels, torch.arange(len(self.labels)), same_group=self.same_group)


def problem(videos: int, shape: tuple[int, ...]) -> Problem:
    generator = torch.Generator().manual_seed(videos)
    inputs = torch.randn(2, videos, *shape, generator=generator, dtype=torch.float64)
    groups = torch.arange(videos) // 2 * (torch.arange(videos) % 3 > 0)
    labels = torch.where(torch.arange(videos) % 3 == 1, -1, torch.arange(videos) % 2)
    return Problem(inputs, labels, groups[:, None] == groups)


def small_network() -> nn.ModuleDict:
    """Layers before the gather and one after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = {"before": nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)), "after": nn.Linear(5, 2)}
        return nn.ModuleDict(layers).double()


def whole_loss(network: nn.ModuleDict, rows: torch.Tensor, given: Problem) -> torch.Tensor:
    """The loss of the whole batch from its gathered rows."""
    z_a, z_b = rows.chunk(2)
    o_a, o_b = network["after"](rows).chunk(2)
    cross_entropy = masked_cross_entropy(o_a, given.labels) + masked_cross_entropy(o_b, given.labels)
    return nt_xent(z_a, z_b, 0.5, same_group=given.same_group) + 0.2 * cross_entropy


def vector_network() -> nn.Module:
    """A projector with BatchNorm of vectors."""
    from uscl.models import projector
    from uscl.sections import Projector

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return projector(6, Projector(layers=3, hidden=8, width=5, batch_norm=True)).double()


def statistics_loss(rows: torch.Tensor, name: str) -> torch.Tensor:
    """A loss of the batch's statistics, with weights of the pairs."""
    z_a, z_b = rows.chunk(2)
    weights = torch.linspace(0.2, 1, len(z_a), dtype=torch.float64)
    terms = {"barlow-twins": barlow_twins, "vicreg": vicreg}[name](z_a, z_b, weights=weights)
    return torch.stack([factor * term for factor, term in zip((3.0, 2.0, 1.0), terms, strict=False)]).sum()


def usual_network() -> nn.Module:
    from uscl.methods import make_method

    return make_method(Config(image_size=32), classes=2)[0].double()


def contrasts(keep: Callable[[str, dict[str, torch.Tensor]], None]) -> None:
    """Gradients, losses and queues of methods that compare rows in their own way, from rows of which each process has its part."""
    for recipe in CONTRASTS:
        keep(recipe, contrast(recipe, distributed.own_part(CONTRASTED)))


def contrast(recipe: str, part: slice) -> dict[str, torch.Tensor]:
    """Two batches through a method's projector and comparison, of this part of their videos; gradients of both together."""
    from uscl.methods import make_method

    small = [] if recipe == "supervised" else ["projector.hidden=8", "projector.width=6"]
    small += ["moco.queue=9"] if recipe in ("moco-v2", "ucl") else []
    method = make_method(load_config(recipe, ["image_size=32", TINY_NETWORK, *small]), classes=2)[0].double().train()
    groups, losses = torch.tensor([0, 1, 2, 3, 0, 1, 4]), []
    for batch in range(2):
        rows = torch.randn(4, CONTRASTED, method.backbone.width, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)
        facts = Facts(groups % 2 - (groups == 4).long(), groups + batch, views=4, same_group=groups[:, None] == groups, keys=groups % 2)
        features = rows[:, part].flatten(0, 1)
        outcome = method.compare((features, method.projector(features)), facts)
        outcome["loss"].backward()
        losses.append(outcome["loss"].detach())
    distributed.average_gradients(method)
    queue = {name: buffer for name, buffer in method.named_buffers() if name.startswith("queue")}
    return gradients(method) | queue | {"losses": torch.stack(losses)}


def gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.contiguous() for name, parameter in network.named_parameters() if parameter.grad is not None}


def gather_without_gradient(rows: torch.Tensor, videos: int) -> torch.Tensor:
    """The wrong gather that is often written: other processes' rows are constants."""
    part = distributed.own_part(videos)
    whole = distributed.gather(rows.detach(), videos, views=2).unflatten(0, (2, videos))
    own = rows.unflatten(0, (2, part.stop - part.start))
    return torch.cat([whole[:, : part.start], own, whole[:, part.stop :]], dim=1).flatten(0, 1)


def gathered(keep: Callable[[str, dict[str, torch.Tensor]], None]) -> None:
    """Gradients of the small network by the right way and by wrong ones."""
    for videos in COUNTS:
        given = problem(videos, (6,))
        own = given.inputs[:, distributed.own_part(videos)].flatten(0, 1)
        for way in ("right", "without gradient", "not averaged", "own negatives"):
            if way == "own negatives" and videos < processes.world_size():
                continue
            network = small_network()
            rows = network["before"](own)
            if way == "own negatives":
                part = distributed.own_part(videos)
                loss = whole_loss(network, rows, Problem(own, given.labels[part], given.same_group[part, part]))
            elif way == "without gradient":
                loss = whole_loss(network, gather_without_gradient(rows, videos), given)
            else:
                loss = whole_loss(network, distributed.gather(rows, videos, views=2), given)
            loss.backward()
            if way == "own negatives":
                distributed.average([parameter.grad for parameter in network.parameters()], 1 / processes.world_size())
            elif way != "not averaged":
                distributed.average_gradients(network)
            else:
                distributed.average([parameter.grad for parameter in network.parameters()], 1.0)
            keep(f"{way} {videos}", gradients(network) | {"loss": loss.detach()})
    # Twice differentiated: L = sum z^3 in each of W processes, then the square of its gradient.
    given = problem(5, (3,))
    rows = given.inputs[:, distributed.own_part(5)].flatten(0, 1).requires_grad_()
    cubes = distributed.gather(rows, 5, views=2).pow(3).sum()
    (first,) = torch.autograd.grad(cubes, rows, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), rows)
    keep("twice", {"rows": rows.detach(), "first": first.detach(), "second": second})


def networks(keep: Callable[[str, dict[str, torch.Tensor]], None]) -> None:
    """Gradients and running statistics of a whole ResNet, by either kind of BatchNorm."""
    for videos in NETWORK_COUNTS:
        given = problem(videos, (1, 32, 32))
        for whole_batch in (True, False):
            # A whole ResNet in float64 takes its time: of own parts the odd case is enough.
            if not whole_batch and videos != 2:
                continue
            network = usual_network()
            batch_norm.prepare(network, whole_batch=whole_batch, device=torch.device("cpu"))
            view_a, view_b = given.inputs[:, distributed.own_part(videos)]
            network((view_a, view_b), given.facts)["loss"].backward()
            distributed.average_gradients(network)
            batch_norm.average_statistics(network, videos)
            tensors = gradients(network) | dict(network.named_buffers())
            digest = hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors)))
            # Ninety megabytes are written once.
            kept = tensors if processes.is_first() else {}
            keep(f"{'whole batch' if whole_batch else 'own part'} {videos}", kept | {"digest": torch.tensor(list(digest.digest()))})


def vectors(keep: Callable[[str, dict[str, torch.Tensor]], None]) -> None:
    """Gradients and running statistics of a projector under losses of the batch's statistics, by either kind of BatchNorm."""
    for videos in NETWORK_COUNTS:
        own = problem(videos, (6,)).inputs[:, distributed.own_part(videos)].flatten(0, 1)
        for name in ("barlow-twins", "vicreg"):
            for whole_batch in (True, False):
                network = vector_network()
                batch_norm.prepare(network, whole_batch=whole_batch, device=torch.device("cpu"))
                loss = statistics_loss(distributed.gather(network(own), videos, views=2), name)
                loss.backward()
                distributed.average_gradients(network)
                batch_norm.average_statistics(network, videos)
                kept = gradients(network) | dict(network.named_buffers()) | {"loss": loss.detach()}
                keep(f"vectors {name} {'whole batch' if whole_batch else 'own part'} {videos}", kept)


def meta_gradients(keep: Callable[[str, dict[str, torch.Tensor]], None]) -> None:
    """What Meta-USCL's weights learn from a batch whose parts are unequal, and from one with an empty part."""
    for videos in META_COUNTS:
        keep(f"meta {videos}", meta_gradient(videos))


def meta_gradient(videos: int) -> dict[str, torch.Tensor]:
    """BatchNorm has fixed statistics, so that one process sees the same network."""
    from tests.uscl.test_meta_uscl import learn, small_method, views_of

    own = distributed.own_part(videos)
    facts = Facts(torch.full((videos,), -1), torch.arange(videos))
    views, meta_views = ([view[own] for view in views_of(seed, videos)] for seed in (1, 2))
    return learn(small_method().eval(), views=views, facts=facts, meta_views=meta_views, meta_facts=facts)


def shared_weights(keep: Callable[[str, dict[str, torch.Tensor]], None]) -> None:
    """Weights that differ from process to process, and lie in memory as convolutions like them, made those of the first."""
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        for tensor in layer.state_dict().values():
            tensor.fill_(processes.rank() + 1)
    distributed.share_weights(layer)
    keep("shared", layer.state_dict())


def stops(keep: Callable[[str, dict[str, torch.Tensor]], None]) -> None:
    """The last process alone has a signal, before its third step."""
    agreement = distributed.StopAgreement()
    last = processes.rank() == processes.world_size() - 1
    answers = [agreement("SIGTERM" if last and step >= 2 else None) for step in range(6)]
    keep("stops", {"answers": torch.tensor([signal.Signals[name].value if name else 0 for name in answers])})
    processes.wait_for_all()


def refusals(folder: Path) -> None:
    """What is refused, in words."""
    distributed.check_agreement(seed=1)
    distributed.check_world(processes.world_size())
    said = []
    for refused in (
        lambda: distributed.check_agreement(seed=1, data_set=f"of process {processes.rank()}"),
        lambda: distributed.check_world(processes.world_size() - 1),
    ):
        try:
            refused()
        except UserError as error:
            said.append(str(error))
    (folder / f"refusals-{processes.rank()}.json").write_text(json.dumps(said))


def batches_of(dataset: Path, keep: Callable[[str, dict[str, torch.Tensor]], None]) -> None:
    """All batches of two epochs, as this process sees them, and their views."""
    from uscl.augment import two_views
    from uscl.feed import Feed
    from uscl.frames import open_store
    from uscl.pairs import index_videos
    from usdata.manifest import open_dataset

    data = open_dataset(dataset)
    for name, overrides in FEEDS.items():
        config = load_config("uscl", [*SETTINGS, *overrides, "epochs=2"])
        feed = Feed(open_store(data, size=32), index_videos(data), config, torch.device("cpu"))
        for batch in feed(0, 0):
            tensors = {"frames": batch.frames, "coefficients": batch.coefficients, "values": batch.augmentations.values}
            views = two_views(batch.frames, batch.coefficients, batch.augmentations, order=config.pairs.order, size=32)
            tensors |= {"view_a": views[0], "view_b": views[1], "labels": batch.facts.labels, "videos": torch.from_numpy(batch.videos)}
            tensors |= {} if batch.facts.same_group is None else {"same_group": batch.facts.same_group}
            keep(f"{name} {batch.epoch} {batch.number}", tensors)


def training(folder: Path) -> None:
    """Whole runs one after another in the same two processes."""
    from uscl import run_folder, train

    made = []
    make_method, append_metrics = train.make_method, run_folder.append_metrics
    number = int(os.environ["RANK"])

    def remember(*arguments: object) -> object:
        made.append(make_method(*arguments))  # type: ignore[arg-type]
        return made[-1]

    train.make_method = remember  # type: ignore[assignment]

    def run(name: str, *overrides: str, resume: bool = False) -> None:
        try:
            train.pretrain(folder / "set", out=folder / name, overrides=[*SETTINGS, *overrides], resume=resume)
            end = "finished"
        except (UserError, Stopped, SystemExit) as error:
            end = f"{type(error).__name__}: {error}"
        (folder / f"{name}-{number}.txt").write_text(end)
        if name == "undisturbed":
            save_file({key: value.contiguous() for key, value in made[-1][0].state_dict().items()}, folder / f"{name}-{number}.safetensors")

    def at_step(step: int, act: Callable[[], object]) -> None:
        def append(out: Path, line: dict[str, object]) -> None:
            append_metrics(out, line)
            if line["step"] == step and number == 1:
                act()

        run_folder.append_metrics = append  # type: ignore[assignment]

    def fail() -> None:
        raise UserError("the disk of one machine", "is full")

    run("undisturbed")
    run("stopped", resume=True)
    run("whole", "sync_batchnorm=true", "epochs=2")
    at_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    run("signalled", "epochs=3")
    at_step(1, fail)
    run("failed", "epochs=3")
    at_step(1, lambda: os.kill(os.getpid(), signal.SIGKILL))
    run("killed", "epochs=3")


def start(world: int, folder: Path) -> list[subprocess.CompletedProcess[str]]:
    """Start `world` processes as torchrun would, and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [[sys.executable, "-m", "tests.uscl.ranks", str(world), str(rank), str(port), str(folder)] for rank in range(world)]
    root = Path(__file__).resolve().parents[2]
    running = [subprocess.Popen(each, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for each in arguments]
    try:
        said = [process.communicate(timeout=200) for process in running]
    finally:
        for process in running:
            with process:
                process.kill()
    return [subprocess.CompletedProcess(process.args, process.returncode, *each) for process, each in zip(running, said, strict=True)]


def main(world: str, rank: str, port: str, folder: str) -> None:
    os.environ |= {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.set_num_threads(1)
    place = Path(folder)

    def keep(name: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file({key: value.contiguous().clone() for key, value in tensors.items()}, place / f"{name}-{rank}.safetensors")

    with processes.joined():
        gathered(keep)
        networks(keep)
        vectors(keep)
        contrasts(keep)
        meta_gradients(keep)
        shared_weights(keep)
        stops(keep)
        refusals(place)
        if processes.world_size() == 3:  # with unequal parts and empty ones
            batches_of(place / "set", keep)
        processes.wait_for_all()
    (place / f"is_first-{rank}.json").write_text(json.dumps(processes.is_first()))
    if world == "2":
        training(place)


if __name__ == "__main__":
    main(*sys.argv[1:])

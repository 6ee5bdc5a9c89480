"""One evaluation by one process and shared out among several; ``test_shared_evaluation.py`` runs it and compares.

It runs in a process of its own. The others are forked from there, where torch is loaded but has done nothing yet, so
that they start at once.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
from pathlib import Path

import pycocotools.cocoeval  # noqa: F401 - loaded before forking
import torch
from torch import nn

from engine.evaluator import EvalResult, evaluate
from utils.dist import process_group

LAUNCHES = ((2, 5), (3, 2))  # processes, batches: uneven shares, and a process without any batch
CLASSES, SIDE, IMAGES_A_BATCH, ROWS = 3, 128, 3, 24
CPU = torch.device("cpu")


class Reader(nn.Module):
    """Answers each image by the number in its first pixel: near its labels, and beside them."""

    def __init__(self, answers: torch.Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return self.answers[(images[:, 0, 0, 0] * 255).round().long()], [images]


def material(batches: int) -> tuple[Reader, list]:
    """A model and the batches it knows."""
    draw = torch.Generator().manual_seed(5)
    answers, loader = [], []
    for number in range(batches):
        images = torch.randint(0, 256, (IMAGES_A_BATCH, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8)
        targets = []
        for place in range(IMAGES_A_BATCH):
            images[place, 0, 0, 0] = len(answers)
            kinds = torch.randint(0, CLASSES, (ROWS, 1), generator=draw)
            boxes = torch.rand(ROWS, 4, generator=draw) * 0.3 + torch.tensor([0.3, 0.3, 0.1, 0.1])
            labels = torch.cat([torch.full((ROWS, 1), place), kinds, boxes], 1)[: 3 + place]
            targets.append(labels)
            near = boxes * SIDE + torch.randn(ROWS, 4, generator=draw) * 2
            # One decimal, so that many confidences are equal: their order is that of the images.
            scores = torch.rand(ROWS, 1, generator=draw).mul(10).round().div(10)
            answers.append(torch.cat([near, scores, nn.functional.one_hot(kinds[:, 0], CLASSES)], 1))
        shape = ((SIDE, SIDE), ((1.0, 1.0), (0.0, 0.0)))
        loader.append((images, torch.cat(targets), [f"{number}.jpg"] * IMAGES_A_BATCH, [shape] * IMAGES_A_BATCH))
    return Reader(torch.stack(answers)), loader


def loss(levels: list[torch.Tensor], targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of such different sizes that their sum depends on the order of adding."""
    number = (levels[0][0, 0, 0, 0] * 255).round()
    parts = torch.stack([levels[0].mean(), levels[0].std(), targets.sum() / 7]) * 1e12 ** (number % 2)
    return parts.sum(), parts


def measure(loader: list, model: nn.Module, title: str) -> tuple[EvalResult, list[int]]:
    """The result, and the numbers of the batches that this process saw."""
    seen: list[int] = []
    result = evaluate(
        model,
        loader,
        device=CPU,
        nc=CLASSES,
        names={number: str(number) for number in range(CLASSES)},
        compute_loss=loss,
        confusion=True,
        coco=True,
        slices=True,
        observers=[lambda batch: seen.append(batch.index)],
        progress=title,
    )
    return result, seen


def share(rank: int, ranks: int, batches: int, port: int, folder: Path) -> None:
    """One process of several."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    model, loader = material(batches)
    with process_group(CPU):
        answer = measure(loader[rank::ranks], model, f"process {rank} of {ranks}")
    (folder / f"{ranks}-{rank}.pickle").write_bytes(pickle.dumps(answer))


def main(folder: Path) -> None:
    """All launches side by side, and each again in one process; what they say goes to ``said.txt``."""
    with (folder / "said.txt").open("w") as said:
        os.dup2(said.fileno(), 2)
    forked, processes = multiprocessing.get_context("fork"), []
    for ranks, batches in LAUNCHES:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        processes += [forked.Process(target=share, args=(rank, ranks, batches, port, folder)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    torch.set_num_threads(1)
    for ranks, batches in LAUNCHES:
        model, loader = material(batches)
        (folder / f"{ranks}-alone.pickle").write_bytes(pickle.dumps(measure(loader, model, "alone")))

"""Inputs and weights of the golden cases, rebuilt from the formulas in tests/golden/README.md."""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden"


@cache
def golden_json(name: str) -> dict:
    """The description of one family of cases, such as ``forward``."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


@cache
def golden_arrays(name: str) -> dict[str, np.ndarray]:
    """The stored arrays of one family, by ``<case>.<array>``."""
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return dict(stored)


def generator(text: str) -> np.random.Generator:
    """A PCG64 stream seeded by the CRC-32 of a text."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(text.encode())))


def as_f32(values: np.ndarray) -> np.ndarray:
    """Contiguous float32 copy."""
    return np.ascontiguousarray(values, dtype=np.float32)


def uniform(text: str, shape) -> np.ndarray:
    """Float32 numbers in [0, 1)."""
    return as_f32(generator(text).random(tuple(shape)))


def normal(text: str, shape, scale: float = 1.0) -> np.ndarray:
    """Float32 normal numbers, scaled before the cast."""
    return as_f32(generator(text).standard_normal(tuple(shape)) * scale)


def image_u8(text: str, height: int, width: int) -> np.ndarray:
    """A noise image."""
    return generator(text).integers(0, 256, (height, width, 3), dtype=np.uint8)


def check_numbers(values: np.ndarray) -> list[float]:
    """Sum and first four values: tells a wrong input from a wrong implementation."""
    flat = np.asarray(values).reshape(-1).astype(np.float64)
    return [float(flat.sum()), *map(float, flat[:4])]


def sample_positions(count: int, wanted: int) -> np.ndarray:
    """Evenly spread positions into a flat array."""
    return np.round(np.linspace(0, count - 1, wanted)).astype(np.int64)


def fill_module(module: torch.nn.Module, salt: str, gain: float = 1.0) -> torch.nn.Module:
    """Overwrite a module's state with values that depend on each entry's key alone."""
    with torch.no_grad():
        for key, value in module.state_dict().items():
            last = key.rsplit(".", 1)[-1]
            if last in ("num_batches_tracked", "anchors") or value.ndim == 0:
                continue
            noise = generator(salt + key).standard_normal(tuple(value.shape))
            if value.ndim >= 2:
                noise = noise * (gain / np.sqrt(np.prod(value.shape[1:], dtype=np.float64)))
            elif last == "running_var":
                noise = 1 + 0.1 * np.abs(noise)
            elif last == "weight":
                noise = 1 + 0.1 * noise
            else:
                noise = 0.1 * noise
            value.copy_(torch.from_numpy(as_f32(noise)))
    return module


def assert_golden(actual, expected: np.ndarray, tol: float = 1e-4) -> None:
    """Compare as the golden files ask: |a - b| <= tol (1 + |b|)."""
    actual = actual.detach().cpu().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
    np.testing.assert_equal(actual.shape, expected.shape)
    np.testing.assert_allclose(actual, expected, rtol=tol, atol=tol)

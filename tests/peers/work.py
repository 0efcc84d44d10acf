"""What ours and the peers are measured on: models, work items, and the protocol of a peer process.

A peer hands `serve` an object with two methods, each of which returns when the work is done:

    step(tokens [B, T], replay [R, T] or None)   one optimizer step
    generate()                                   rows [256 or R, T] sampled by the frozen reference

`serve` warms it up (the first calls compile), prints `{"ready": true}` and answers every line
`go SECONDS` on stdin with one JSON line; it ends with its stdin.
"""

import argparse
import json
import os
import resource
import sys
import time
from dataclasses import dataclass

import numpy as np

RMS_EPS = 1e-6
ROPE_BASE = 10_000.0
LEARNING_RATE, BETA1, BETA2, ADAM_EPS, WEIGHT_DECAY = 1e-3, 0.9, 0.99, 1e-8, 0.01
KL_COEFF = 10.0
NTP_COEFF = 1.0
# Rows that are generated together for replay.
GENERATED_ROWS = 256
# Batches of new rows that training goes through, again and again.
BATCHES = 8


@dataclass(frozen=True)
class Config:
    """Sizes of the model, as the paper's small transformer has them."""

    d_model: int
    n_layers: int
    head_dim: int
    seq_len: int
    vocab_size: int

    @property
    def n_heads(self):
        return self.d_model // self.head_dim

    @property
    def d_ff(self):
        return 4 * self.d_model


@dataclass(frozen=True)
class Llama:
    """Sizes of a model of the Llama family; heads are grouped, embeddings tied."""

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    rope_base: float
    seq_len: int
    vocab_size: int


TOY = Config(d_model=256, n_layers=2, head_dim=16, seq_len=14, vocab_size=19)
TEXT = Config(d_model=128, n_layers=4, head_dim=32, seq_len=128, vocab_size=4096)
TEXT_256 = Config(d_model=256, n_layers=6, head_dim=64, seq_len=256, vocab_size=4096)
# SmolLM2-135M's.
LLAMA_135M = Llama(
    d_model=576,
    n_layers=30,
    n_heads=9,
    n_kv_heads=3,
    head_dim=64,
    d_ff=1536,
    rope_base=100_000.0,
    seq_len=256,
    vocab_size=49_152,
)
# Llama-3.2-1B's, but for the scaling of RoPE; for a GPU.
LLAMA_1B = Llama(
    d_model=2048,
    n_layers=16,
    n_heads=32,
    n_kv_heads=8,
    head_dim=64,
    d_ff=8192,
    rope_base=500_000.0,
    seq_len=512,
    vocab_size=128_256,
)


@dataclass(frozen=True)
class Item:
    """One thing to measure."""

    config: Config | Llama
    config_name: str  # on forgetlab's command line
    work: str  # `train` or `generate`
    batch: int  # new rows a step, or rows generated at a time
    replay: str = "none"  # or `ntp`, `kl`
    replay_rows: int = 0  # a step

    @property
    def generated_rows(self):
        """Rows generated at a time."""
        if self.work == "generate":
            return self.batch
        return max(GENERATED_ROWS, self.replay_rows)

    @property
    def steps_per_generation(self):
        """Steps that use up what is generated at a time."""
        return self.generated_rows // self.replay_rows if self.replay_rows else 0

    @property
    def replay_coeff(self):
        return KL_COEFF if self.replay == "kl" else NTP_COEFF


ITEMS = {
    "toy-256:train": Item(TOY, "toy", "train", 256),
    "toy-2048:train": Item(TOY, "toy", "train", 2048),
    "text:train": Item(TEXT, "text", "train", 32),
    "text-256:train": Item(TEXT_256, "text-256", "train", 16),
    "toy-256:train-ntp": Item(TOY, "toy", "train", 256, "ntp", 256),
    "toy-256:train-kl": Item(TOY, "toy", "train", 256, "kl", 256),
    "text:train-ntp": Item(TEXT, "text", "train", 32, "ntp", 16),
    "text:train-kl": Item(TEXT, "text", "train", 32, "kl", 16),
    "text-256:train-kl": Item(TEXT_256, "text-256", "train", 16, "kl", 8),
    "toy:generate": Item(TOY, "toy", "generate", GENERATED_ROWS),
    "text:generate": Item(TEXT, "text", "generate", GENERATED_ROWS),
    "text-256:generate": Item(TEXT_256, "text-256", "generate", GENERATED_ROWS),
    "llama-135m:train": Item(LLAMA_135M, "llama-135m", "train", 8),
    "llama-135m:generate": Item(LLAMA_135M, "llama-135m", "generate", 32),
    "llama-1b:train": Item(LLAMA_1B, "llama-1b", "train", 128),
    "llama-1b:generate": Item(LLAMA_1B, "llama-1b", "generate", 256),
}


def initial_weights(config, seed=0):
    """The paper's initialisation, in the layout of its reference implementation.

    Normal with deviation D^-½, F^-½ for `down`.
    """
    c, rng = config, np.random.default_rng(seed)
    n_layers, d, n, h, f, v = c.n_layers, c.d_model, c.n_heads, c.head_dim, c.d_ff, c.vocab_size
    shapes = {
        "embed_in": (v, d),
        "embed_out": (v, d),
        "qkv": (n_layers, 3, n, d, h),
        "out": (n_layers, n, h, d),
        "up": (n_layers, d, f),
        "down": (n_layers, f, d),
    }
    std = {name: (f if name == "down" else d) ** -0.5 for name in shapes}
    return {name: std[name] * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def rope_tables(config):
    """Cosines and sines of every position, `[T, H/2]` each."""
    half = config.head_dim // 2
    angles = np.outer(np.arange(config.seq_len), ROPE_BASE ** (-np.arange(half) / half))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def arguments(description):
    """A parser of the options that all peers have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--item", required=True, choices=ITEMS, metavar="ITEM", help=", ".join(ITEMS))
    parser.add_argument("--threads", type=int, default=2)
    return parser


def bound_threads(threads):
    """Lets this process run on that many cores; to be called before the framework is imported.

    OpenMP, MKL, Eigen and XLA size their pools by the cores they may run on and by these variables.
    """
    cores = sorted(os.sched_getaffinity(0))
    if threads > len(cores):
        sys.exit(f"{threads} threads asked for, but this process may run on {len(cores)} cores only")
    os.sched_setaffinity(0, cores[:threads])
    for name in ("NPROC", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


def peak_rss_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(item, peer):
    """Warms up, then measures whenever stdin says so."""
    measure = _generation(item, peer) if item.work == "generate" else _training(item, peer)
    measure(0.0)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command, seconds = line.split()
        if command != "go":
            sys.exit(f"unknown command `{command}`")
        print(json.dumps(measure(float(seconds)) | {"peak_rss_bytes": peak_rss_bytes()}), flush=True)


def _generation(item, peer):
    tokens = item.generated_rows * (item.config.seq_len - 1)

    def measure(seconds):
        steps, start = 0, time.perf_counter()
        while True:
            peer.generate()
            steps += 1
            elapsed = time.perf_counter() - start
            if elapsed >= seconds:
                return {"tokens_per_second": steps * tokens / elapsed, "steps": steps, "seconds": elapsed}

    return measure


def _training(item, peer):
    rng = np.random.default_rng(1)
    shape = (BATCHES, item.batch, item.config.seq_len)
    batches = rng.integers(0, item.config.vocab_size, shape, dtype=np.int32)

    def measure(seconds):
        """Times steps and generations apart.

        What is generated at a time may serve more steps than a measurement has, so that each step is
        charged its share of a generation, however many followed the last one.
        """
        steps = generations = 0
        step_seconds = generation_seconds = per_step = 0.0
        while steps < 2 or steps * per_step < seconds:
            replay = None
            if item.replay_rows:
                used = steps % item.steps_per_generation * item.replay_rows
                if used == 0:
                    start = time.perf_counter()
                    generated = peer.generate()
                    generation_seconds += time.perf_counter() - start
                    generations += 1
                replay = generated[used:][: item.replay_rows]
            start = time.perf_counter()
            peer.step(batches[steps % BATCHES], replay)
            step_seconds += time.perf_counter() - start
            steps += 1
            per_step = step_seconds / steps
            if generations:
                per_step += generation_seconds / generations / item.steps_per_generation
        return {
            "tokens_per_second": item.batch * item.config.seq_len / per_step,
            "steps": steps,
            "seconds": step_seconds + generation_seconds,
        }

    return measure

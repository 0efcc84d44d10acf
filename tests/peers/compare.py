"""Runs forgetlab and its peers in turn, on the CPU or a GPU, and prints how much faster forgetlab is.

The peers of an item are started once, warmed up, and wait; in every round each of them and a fresh
`forgetlab bench` works for --seconds, in an order that rotates from round to round. A ratio is
forgetlab's median tokens/s over the peer's; behind it the smallest and largest ratio of one round.
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median

import work

HERE = Path(__file__).parent
PEERS = {
    "JAX f32": ["peer_jax.py"],
    "PyTorch eager f32": ["peer_torch.py", "--mode", "eager"],
    "PyTorch compiled f32": ["peer_torch.py", "--mode", "compiled"],
    "PyTorch compiled bf16": ["peer_torch.py", "--mode", "compiled", "--dtype", "bf16"],
    "PyTorch eager bf16": ["peer_torch.py", "--mode", "eager", "--dtype", "bf16"],
    "transformers eager f32": ["peer_transformers.py"],
    "transformers eager bf16": ["peer_transformers.py", "--dtype", "bf16", "--micro-batch", "8"],
}
JAX, EAGER, COMPILED, COMPILED_BF16, EAGER_BF16, TRANSFORMERS, TRANSFORMERS_BF16 = PEERS
ISA = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16")


@dataclass(frozen=True)
class Line:
    """One item of the comparison, forgetlab's number format, and its targets."""

    item: str  # of work.ITEMS
    targets: dict  # peer: least ratio
    dtype: str = "f32"
    gemm_share: float | None = None  # least share of the measured GEMM peak
    memory: float | None = None  # largest peak RSS, as a share of the only peer's

    @property
    def name(self):
        return self.item + ("" if self.dtype == "f32" else f"-{self.dtype}") + ("-memory" if self.memory else "")


LINES = [
    Line("toy-256:train", {JAX: 1.8, COMPILED: 1.3, EAGER: None}, gemm_share=0.7),
    Line("toy-2048:train", {JAX: 1.8, COMPILED: 1.3, EAGER: None}),
    Line("text:train", {JAX: 2.4, COMPILED: 1.7, EAGER: None}),
    Line("text-256:train", {JAX: 1.8, COMPILED: 1.3, EAGER: None}, gemm_share=0.7),
    Line("toy-256:train-ntp", {JAX: 1.8}),
    Line("text:train-kl", {JAX: 3.0}),
    Line("toy-256:train-kl", {JAX: None}),
    Line("text-256:train-kl", {JAX: None}),
    Line("toy:generate", {JAX: 1.4}),
    Line("text:generate", {JAX: 7.0}),
    Line("text-256:generate", {JAX: None}),
    Line("toy-256:train", {COMPILED_BF16: 1.6, JAX: 3.2}, dtype="bf16"),
    Line("text:train", {COMPILED_BF16: 1.6, JAX: 3.2}, dtype="bf16"),
    Line("text-256:train", {COMPILED_BF16: 1.6, JAX: 3.2}, dtype="bf16"),
    Line("text-256:train", {EAGER: None}, memory=0.5),
    Line("llama-135m:train", {TRANSFORMERS: 1.0}, gemm_share=0.7),
    Line("llama-135m:generate", {TRANSFORMERS: 1.5}),
]
LINES = {line.name: line for line in LINES}
# On a GPU; nothing is aimed at yet.
GPU_LINES = [
    Line("toy-256:train", {COMPILED_BF16: None}, dtype="bf16"),
    Line("toy-2048:train", {COMPILED_BF16: None}, dtype="bf16"),
    Line("text:train", {COMPILED_BF16: None}, dtype="bf16"),
    Line("text-256:train", {COMPILED: None}),
    Line("text-256:train", {COMPILED_BF16: None}, dtype="bf16"),
    Line("text-256:generate", {EAGER_BF16: None}, dtype="bf16"),
    Line("llama-1b:train", {TRANSFORMERS_BF16: None}, dtype="bf16"),
    Line("llama-1b:generate", {TRANSFORMERS_BF16: None}, dtype="bf16"),
]
GPU_LINES = {line.name: line for line in GPU_LINES}
# Without a target, and slow.
NOT_BY_DEFAULT = ("toy-256:train-kl", "text-256:train-kl", "text-256:generate")


class Peer:
    """A peer process, ready and waiting for `go`."""

    def __init__(self, name, item, options):
        command = [sys.executable, *PEERS[name], "--item", item, "--threads", str(options.threads)]
        if options.device != "cpu":
            command += ["--device", options.device]
        self.name, self.process = name, subprocess.Popen(
            command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with status {self.process.wait()}: {shlex.join(self.process.args)}")
        return json.loads(line)

    def measure(self, seconds):
        self.process.stdin.write(f"go {seconds}\n")
        self.process.stdin.flush()
        return self.answer()

    def stop(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def ours(options, line):
    """One `forgetlab bench`, a fresh process."""
    item = work.ITEMS[line.item]
    command = [options.forgetlab, "bench", "--config", item.config_name, "--work", item.work]
    command += ["--batch", item.batch, "--threads", options.threads, "--device", options.device]
    if line.dtype != "f32":
        command += ["--dtype", line.dtype]
    if item.replay_rows:
        command += ["--replay", item.replay, "--replay-rows", item.replay_rows]
    command = [str(part) for part in command + ["--seconds", options.seconds, "--json"]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"status {done.returncode}: {shlex.join(command)}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(options, line):
    """Measures one line; rows of the table."""
    peers = []
    try:
        for name in line.targets:
            peer = Peer(name, line.item, options)
            peers.append(peer)
            peer.answer()
        sides = [lambda: ours(options, line), *(lambda p=p: p.measure(options.seconds) for p in peers)]
        reports = [[] for _ in sides]
        for turn in range(options.rounds):
            for i in range(len(sides)):
                side = (turn + i) % len(sides)
                reports[side].append(sides[side]())
            rates = " ".join(f"{r[-1]['tokens_per_second']:.0f}" for r in reports)
            print(f"{line.name} round {turn + 1}: ours, {', '.join(line.targets)}: {rates}", file=sys.stderr)
    finally:
        for peer in peers:
            peer.stop()
    return list(rows(line, reports[0], dict(zip(line.targets, reports[1:]))))


def rows(line, ours, theirs):
    def rates(reports):
        return [r["tokens_per_second"] for r in reports]

    def rss(reports):
        return max(r["peak_rss_bytes"] or 0 for r in reports) / 2**20

    for name, reports in theirs.items():
        ratio = median(rates(ours)) / median(rates(reports))
        each = [a / b for a, b in zip(rates(ours), rates(reports))]
        if line.memory:
            share = rss(ours) / rss(reports)
            target, verdict = f"memory ≤ {line.memory}", f"{share:.2f}, {judge(line.memory / share, 1)}"
        else:
            least = line.targets[name]
            target, verdict = (f"≥ {least}", judge(ratio, least)) if least else ("–", "–")
        yield (
            line.name, name, f"{ratio:.2f} ({min(each):.2f}–{max(each):.2f})", target, verdict,
            f"{median(rates(ours)):,.0f}", f"{median(rates(reports)):,.0f}",
            f"{rss(ours):,.0f}", f"{rss(reports):,.0f}",
        )  # fmt: skip
    if line.gemm_share:
        shares = [r["gemm_share"] for r in ours]
        share = f"{median(shares):.2f} ({min(shares):.2f}–{max(shares):.2f})"
        verdict = judge(median(shares), line.gemm_share)
        yield line.name, "its GEMM peak", share, f"≥ {line.gemm_share}", verdict, *[""] * 4


def judge(value, least):
    return "met" if value >= least else f"short by {1 - value / least:.0%}"


def output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def installed(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def setting(options):
    """Where, when and with what this was measured."""
    cpu = dict(line.split(":", 1) for line in output("lscpu").splitlines() if ":" in line)
    flags = cpu.get("Flags", "").split()
    packages = ("jax", "jaxlib", "optax", "torch", "transformers", "numpy")
    versions = [f"{name} {version}" for name in packages if (version := installed(name))]
    commit = output("git", "-C", HERE, "describe", "--always", "--dirty")
    yield f"- Hardware: {cpu.get('Model name', '?').strip()}, {os.cpu_count()} cores, "
    yield f"  {' '.join(f for f in ISA if f in flags)}; {options.threads} threads a side"
    if options.device != "cpu":
        query = ("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
        yield f"- GPU: {output('nvidia-smi', *query)}"
    yield f"- Versions: {output(options.forgetlab, '--version') or options.forgetlab} at {commit};"
    yield f"  Python {platform.python_version()}, {', '.join(versions)}; Linux {platform.release()}"
    yield f"- Command: `{shlex.join(['python', 'compare.py', *sys.argv[1:]])}`"
    yield f"- Date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; load before: {options.load:.2f}"


def table(rows):
    head = ("work", "against", "ratio (min–max)", "target", "", "ours tok/s", "peer tok/s", "ours MiB", "peer MiB")
    yield "| " + " | ".join(head) + " |"
    yield "|---|---|---|---|---|--:|--:|--:|--:|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forgetlab", required=True, metavar="PATH", help="the binary, built with --release")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--items", help=f"on the CPU of {', '.join(LINES)}; on a GPU of {', '.join(GPU_LINES)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="where the table is written as well")
    options = parser.parse_args()
    options.load = os.getloadavg()[0]
    lines = LINES if options.device == "cpu" else GPU_LINES
    default = [name for name in lines if lines is GPU_LINES or name not in NOT_BY_DEFAULT]
    items = options.items.split(",") if options.items else default
    if unknown := [name for name in items if name not in lines]:
        parser.error(f"unknown items {', '.join(unknown)}; there are {', '.join(lines)}")
    measured = []
    for name in items:
        measured += compare(options, lines[name])
        text = "\n".join([*setting(options), "", *table(measured)]) + "\n"
        # What was measured is kept if a later item fails.
        if options.out:
            options.out.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()

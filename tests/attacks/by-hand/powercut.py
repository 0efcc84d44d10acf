#!/usr/bin/env python3
"""Power cuts: SIGKILL at a random moment, then whatever was never synced is taken away; needs strace.

    powercut.py [--trials 60] [--kinds toy,waiting,lora]

`events.jsonl` keeps what was written up to its last fdatasync and, of the rest, nothing, a part, or zeros in its
place; temporary files are gone. The resumed run must equal an undisturbed one.
"""
import argparse
import collections
import glob
import os
import random
import re
import signal
import subprocess

from common import *

parser = argparse.ArgumentParser()
parser.add_argument("--trials", type=int, default=60)
parser.add_argument("--kinds", default="toy,waiting,lora")
parser.add_argument("--seed", type=int, default=0)
asked = parser.parse_args()

RUN, EVENTS, TRACE = f"{SCRATCH}/run", f"{SCRATCH}/run/events.jsonl", f"{SCRATCH}/trace"
STRACE = ["strace", "-ff", "-qq", "-s", "0", "-e", "trace=openat,write,fdatasync", "-o", TRACE]


def size():
    return os.path.getsize(EVENTS) if os.path.exists(EVENTS) else 0


def children(pid):
    """A process's children and theirs."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            own = [int(child) for child in file.read().split()]
    except OSError:
        return []
    return own + [deeper for child in own for deeper in children(child)]


def cut(kind, seconds):
    """Cuts the power once; whether it hit a live run."""
    for trace in glob.glob(f"{TRACE}.*"):
        os.remove(trace)
    process = subprocess.Popen([*STRACE, FORGETLAB, *again(kind, 41, RUN)], env=environment(),
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        for pid in children(process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # ended meanwhile
        process.wait()
        return True


def synced(before):
    """Bytes of the events that are on the disk, as the traces tell; each has the calls of one thread."""
    return max((synced_by(trace, before) for trace in glob.glob(f"{TRACE}.*")), default=before)


def synced_by(trace, before):
    descriptor, written, safe = None, before, before
    for line in open(trace, errors="replace"):
        if opened := re.match(r'openat\(.*/events\.jsonl".*O_APPEND.* = (\d+)$', line):
            descriptor = opened[1]
        if (wrote := re.match(r"write\((\d+),.* = (\d+)$", line)) and wrote[1] == descriptor:
            written += int(wrote[2])
        if descriptor and re.match(rf"fdatasync\({descriptor}\).* = 0$", line):
            safe = written
    return safe


def lose(safe, rng):
    """Takes away what was not synced; how many bytes."""
    lost = size() - safe
    if lost > 0:
        with open(EVENTS, "rb") as file:
            content = file.read()
        part = content[:safe + rng.randrange(lost)]
        left = rng.choice([content[:safe], part, part + bytes(len(content) - len(part))])
        with open(EVENTS, "wb") as file:
            file.write(left)
    for name in glob.glob(f"{RUN}/**/.tmp-*", recursive=True):
        os.remove(name)
    return max(lost, 0)


counts, bad = {}, 0
for kind in asked.kinds.split(","):
    rng = random.Random(f"{asked.seed} {kind}")
    want, _ = undisturbed(kind, 41, f"{SCRATCH}/base")
    _, _, seconds = call(run_args(kind, 41, fresh(RUN)), before=STRACE)
    verdicts = counts.setdefault(kind, collections.Counter())
    for trial in range(asked.trials):
        fresh(RUN)
        for _ in range(rng.choice([1, 1, 2, 3])):
            before = size()
            verdicts["cuts"] += cut(kind, rng.uniform(0.02, seconds))
            verdicts["with loss"] += lose(synced(before), rng) > 0
        wrong = wrong_in_the_end(kind, 41, RUN, want)
        verdicts["BAD" if wrong else "equal"] += 1
        if wrong:
            bad += 1
            print(f"BAD {kind} trial {trial}: {wrong}", flush=True)
            keep(RUN, f"{kind}-{trial}")
finish(counts, bad)

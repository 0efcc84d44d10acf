#!/usr/bin/env python3
"""A small disk that fills up, has no inodes left or is taken away at a random moment of a run; needs root, for mount.

    disk.py [--trials 60] [--kinds toy,lora] [--modes full,small,inodes,read-only,moved,removed]

full: nothing is left from a random moment on. small: there is little room from the start. moved: the run's folder is
renamed, and named back for the resume. removed: it is deleted. Where the run ends, it must say why, with an exit code
that is not 0; once the disk is mended, the resumed run must equal an undisturbed one.
"""
import argparse
import collections
import glob
import os
import random
import shutil
import subprocess
import time

from common import *

parser = argparse.ArgumentParser()
parser.add_argument("--trials", type=int, default=60)
parser.add_argument("--kinds", default="toy,lora")
parser.add_argument("--modes", default="full,small,inodes,read-only,moved,removed")
parser.add_argument("--seed", type=int, default=0)
asked = parser.parse_args()

DISK = f"{SCRATCH}/disk"
RUN, AWAY, FILLER = f"{DISK}/run", f"{DISK}/away", f"{DISK}/filler"


def mount(inodes=100000):
    unmount()
    os.makedirs(DISK, exist_ok=True)
    options = f"size=64m,nr_inodes={inodes}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", DISK], check=True)


def remount(options):
    subprocess.run(["mount", "-o", f"remount,{options}", DISK], check=False, stderr=subprocess.DEVNULL)


def unmount():
    while os.path.ismount(DISK):
        subprocess.run(["umount", "-l", DISK], check=True)


def fill(leave=0):
    left = os.statvfs(DISK).f_bavail * os.statvfs(DISK).f_frsize - leave
    try:
        with open(FILLER, "ab", buffering=0) as file:
            while left > 0:
                left -= file.write(bytes(min(left, 1 << 16)))
    except OSError:
        pass  # full


def break_disk(mode):
    if mode == "full":
        fill()
    if mode == "read-only":
        remount("ro")
    if mode == "moved" and os.path.exists(RUN):
        os.rename(RUN, AWAY)
    if mode == "removed":
        # At once: what is still being written keeps no folder.
        if os.path.exists(RUN):
            os.rename(RUN, f"{DISK}/gone")
        shutil.rmtree(f"{DISK}/gone", ignore_errors=True)


def mend(mode):
    """What is wrong with what is left."""
    remount("rw,nr_inodes=100000")
    if os.path.exists(FILLER):
        os.remove(FILLER)
    if mode == "removed":
        return "something was written where the run was removed" if os.path.exists(RUN) else None
    if os.path.exists(AWAY):
        made = os.path.exists(RUN)
        shutil.rmtree(RUN, ignore_errors=True)
        os.rename(AWAY, RUN)
        return "something was written where the run was moved away" if made else None
    return None


def attempt(kind, mode, rng, want, seconds, size):
    """One trial: its exit code, and what is wrong."""
    mount(rng.randrange(8, 90) if mode == "inodes" else 100000)
    broken = False
    if mode == "small":
        fill(rng.randrange(int(size * 1.3)))
    with open(f"{SCRATCH}/said", "w+") as said:
        process = subprocess.Popen([FORGETLAB, *run_args(kind, 31, RUN)], env=environment(), stdin=subprocess.DEVNULL,
                                   stdout=said, stderr=subprocess.STDOUT)
        if mode not in ("small", "inodes"):
            time.sleep(rng.uniform(0, seconds))
            # What is not there yet cannot be taken away.
            while mode in ("moved", "removed") and process.poll() is None and not os.path.exists(f"{RUN}/events.jsonl"):
                time.sleep(0.005)
            broken = process.poll() is None
            break_disk(mode)
        try:
            code = process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait(), "hangs"
        said.seek(0)
        text = said.read()
    wrong = mend(mode)
    if "bug in forgetlab" in text:
        wrong = f"PANIC: {text[-300:]}"
    elif code != 0 and "error" not in text:
        wrong = f"code {code} without an error: {text[-300:]}"
    elif code == 0 and broken and mode in ("moved", "removed"):
        wrong = wrong or "said to be done, and is nowhere"
    if mode == "removed":
        return code, wrong
    return code, wrong or wrong_in_the_end(kind, 31, RUN, want)


counts, bad = {}, 0
for kind in asked.kinds.split(","):
    unmount()
    want, _ = undisturbed(kind, 31, f"{SCRATCH}/base")
    size = sum(os.path.getsize(f) for f in glob.glob(f"{SCRATCH}/base/**", recursive=True) if os.path.isfile(f))
    mount()
    _, seconds = undisturbed(kind, 31, RUN)
    for mode in asked.modes.split(","):
        rng = random.Random(f"{asked.seed} {kind} {mode}")
        verdicts = counts.setdefault(f"{kind}, {mode}", collections.Counter())
        for trial in range(asked.trials):
            code, wrong = attempt(kind, mode, rng, want, seconds, size)
            verdicts[f"code {code}" if wrong is None else "BAD"] += 1
            if wrong:
                bad += 1
                print(f"BAD {kind} {mode} trial {trial}: {wrong}", flush=True)
                keep(RUN, f"{kind}-{mode}-{trial}")
unmount()
finish(counts, bad)

#!/usr/bin/env python3
"""The Nth write, fsync, rename, … of a run kills it or fails, for every N; needs strace.

    syscalls.py [--kind toy] [--mode kill|ENOSPC|ENOSPC+|EIO|EROFS|EDQUOT|ENOENT] [--calls write,rename,…] [--most 40]

`ENOSPC+` fails from the Nth call on, as on a disk that stays full; the others fail once. The run is then resumed
without faults, and must equal an undisturbed one. Where there are more than --most calls, that many are tried, spread
evenly.
"""
import argparse
import collections
import glob
import re

from common import *

CALLS = "write,fsync,fdatasync,rename,openat,unlink,mkdir,ftruncate,pwrite64"
parser = argparse.ArgumentParser()
parser.add_argument("--kind", default="toy")
parser.add_argument("--mode", default="kill")
parser.add_argument("--calls", default=CALLS)
parser.add_argument("--most", type=int, default=10000)
asked = parser.parse_args()

RUN, TRACE = f"{SCRATCH}/run", f"{SCRATCH}/trace"
STRACE = ["strace", "-ff", "-qq", "-o", TRACE]


def count_calls():
    """How often the busiest thread makes each call: strace counts a thread's calls."""
    call(run_args(asked.kind, 11, fresh(RUN)), before=STRACE)
    most = collections.Counter()
    for trace in glob.glob(f"{TRACE}.*"):
        names = (re.match(r"(\w+)\(", line) for line in open(trace, errors="replace"))
        most |= collections.Counter(name[1] for name in names if name)
    return most


def attempt(name, nth, want):
    """The exit code where one call is disturbed, and what is wrong."""
    what = "signal=SIGKILL" if asked.mode == "kill" else f"error={asked.mode.rstrip('+')}"
    when = f"{nth}+" if asked.mode.endswith("+") else str(nth)
    inject = ["-e", f"trace={name}", "-e", f"inject={name}:{what}:when={when}"]
    code, said, _ = call(run_args(asked.kind, 11, fresh(RUN)), before=["strace", "-f", "-qq", "-o", TRACE, *inject], timeout=60)
    if code is None:
        return code, "hangs"
    if "bug in forgetlab" in said:
        return code, f"PANIC: {said[-300:]}"
    # Where every write fails, or the first of every process (strace counts in each), so does the one that would say so.
    dumb = name == "write" and (asked.mode.endswith("+") or nth == 1)
    if asked.mode != "kill" and code != 0 and "error" not in said and not dumb:
        return code, f"code {code} without an error: {said[-300:]}"
    return code, wrong_in_the_end(asked.kind, 11, RUN, want)


want, _ = undisturbed(asked.kind, 11, f"{SCRATCH}/base")
found, counts, bad = count_calls(), {}, 0
for name in asked.calls.split(","):
    verdicts = counts.setdefault(f"{asked.kind}, {asked.mode}, {name} of {found[name]}", collections.Counter())
    for nth in range(1, found[name] + 1, max(1, -(-found[name] // asked.most))):
        code, wrong = attempt(name, nth, want)
        verdicts[f"code {code}" if wrong is None else "BAD"] += 1
        if wrong:
            bad += 1
            print(f"BAD {name} {nth} of {found[name]}: {wrong}", flush=True)
            keep(RUN, f"{asked.mode}-{name}-{nth}")
finish(counts, bad)

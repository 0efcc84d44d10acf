"""What these campaigns share: the binary, runs worth disturbing, and the comparison of two runs.

FORGETLAB names the binary (default: target/debug/forgetlab of this checkout), SCRATCH a folder to work in (default:
forgetlab-attacks in the current one). Processes are ended by their own numbers alone.
"""
import csv
import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))
FORGETLAB = os.environ.get("FORGETLAB", os.path.join(ROOT, "target/debug/forgetlab"))
SCRATCH = os.path.abspath(os.environ.get("SCRATCH", "forgetlab-attacks"))
CSVS = ["metrics.csv", "summary.csv", "plugin_metrics.csv", "replay.csv", "choices.csv"]

# The kinds of ../campaign.rs.
KINDS = {
    "toy": ["toy-continual", "--set", "phases.steps=12", "--arms",
            "none,true-data:kl:10,self-generated:ntp:1,bos-prompted:kl:10,true-data:replace:0.3,none:kl-new:1"],
    "waiting": ["toy-continual", "--set", "training.concurrent_arms=1", "--set", "phases.steps=12"],
    "instruct": ["instruct"],
    "lora": ["instruct", "--set", "model.lora_rank=4"],
}


def run_args(kind, seed, out):
    """Arguments of `run`: in one thread, without the cache, with a checkpoint at every evaluation."""
    return ["run", *KINDS[kind], "--preset", "smoke", "--threads", "1", "--no-cache", "--seed", str(seed),
            "--set", "training.checkpoint_seconds=0", "--out", out]


def again(kind, seed, run):
    """Arguments that go on with a run, or begin it where nothing was begun."""
    begun = os.path.exists(f"{run}/config.toml")
    return ["resume", run, "--no-cache"] if begun else run_args(kind, seed, run)


def environment():
    return dict(os.environ, FORGETLAB_RESULTS=f"{SCRATCH}/results", NO_COLOR="1")


def call(args, timeout=120, before=()):
    """Exit code (None where it hung), output, seconds."""
    start = time.time()
    process = subprocess.Popen([*before, FORGETLAB, *args], env=environment(), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        said, _ = process.communicate(timeout=timeout)
        code = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        code = None
    return code, said.decode("utf-8", "replace"), time.time() - start


def table(path):
    """Rows of a CSV without the columns of seconds."""
    if not os.path.exists(path):
        return None
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    kept = [i for i, name in enumerate(rows[0]) if not name.startswith("seconds")] if rows else []
    return [[row[i] for i in kept] for row in rows]


def numbers(run):
    return {name: table(f"{run}/{name}") for name in CSVS}


def difference(a, b):
    """The first difference of two runs in words, or None."""
    for name in CSVS:
        x, y = a[name] or [], b[name] or []
        for row in range(max(len(x), len(y))):
            if x[row:row + 1] != y[row:row + 1]:
                return f"{name} row {row}: {x[row:row + 1]} against {y[row:row + 1]}"
    return None


def undisturbed(kind, seed, run):
    """The numbers of a run that nothing disturbs, and how long it takes."""
    code, said, seconds = call(run_args(kind, seed, fresh(run)))
    if code != 0:
        sys.exit(f"the undisturbed run ends with {code}: {said}")
    return numbers(run), seconds


def wrong_in_the_end(kind, seed, run, want):
    """Goes on with a run; what is wrong with its end, or None."""
    code, said, _ = call(again(kind, seed, run))
    if "bug in forgetlab" in said:
        return f"PANIC: {said[-300:]}"
    if code != 0:
        return f"ends with {code}: {said[-300:]}"
    return difference(want, numbers(run))


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def keep(run, name):
    """Keeps a run that went wrong, to be looked at."""
    if os.path.exists(run):
        shutil.copytree(run, fresh(f"{SCRATCH}/bad/{name}"), symlinks=True)


def finish(counts, bad):
    """Prints the counts, a line a kind; exit code 1 where one was bad."""
    for kind, verdicts in counts.items():
        print(f"{kind}: {', '.join(f'{verdict} {n}' for verdict, n in sorted(verdicts.items()))}")
    sys.exit(1 if bad else 0)

#!/usr/bin/env python3
"""Measures the terminal lab from outside, on a pseudo-terminal: how soon it opens, what it costs while nothing
happens, what it writes while a run is live, and what a run of a million events takes.

    cargo build --release && python3 tests/screen/measure.py target/release/forgetlab [PART…]

Parts: open, idle, live, long, training; all of them without one. Times are medians of five, of training of three
each. Needs Linux and Python alone; everything is made in a temporary folder.
"""

import fcntl
import json
import os
import pty
import resource
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

ROWS, COLUMNS = 60, 250
TICK = os.sysconf("SC_CLK_TCK")


class Lab:
    """A results folder of its own, and the binary in it."""

    def __init__(self, binary):
        self.binary = str(Path(binary).resolve())
        self.folder = Path(tempfile.mkdtemp(prefix="forgetlab-screen-"))
        self.runs = self.folder / "results" / "runs"
        self.env = dict(
            os.environ,
            FORGETLAB_RESULTS=str(self.folder / "results"),
            XDG_CACHE_HOME=str(self.folder / "cache"),
            XDG_CONFIG_HOME=str(self.folder / "config"),
            HOME=str(self.folder),
            TERM="xterm-256color",
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)

    def run(self, *args):
        """Runs a command to its end and returns its seconds."""
        start = time.perf_counter()
        subprocess.run([self.binary, *args], env=self.env, cwd=self.folder, check=True, capture_output=True)
        return time.perf_counter() - start


class Terminal:
    """The lab (or another command) on a pseudo-terminal."""

    def __init__(self, lab, *args):
        self.start = time.perf_counter()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
            os.chdir(lab.folder)
            os.execve(lab.binary, [lab.binary, *args], lab.env)
        self.bytes = 0
        self.seen = b""

    def read(self, seconds):
        """Reads for a time; returns what came."""
        end = time.perf_counter() + seconds
        got = b""
        while (left := end - time.perf_counter()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                try:
                    piece = os.read(self.fd, 1 << 16)
                except OSError:
                    break
                if not piece:
                    break
                got += piece
        self.bytes += len(got)
        self.seen += got
        return got

    def until(self, text, limit=120):
        """Seconds from the start to a text."""
        while text.encode() not in self.seen:
            now = time.perf_counter() - self.start
            if now > limit:
                sys.exit(f"{text!r} never came; the end of what did: {self.seen[-2000:]!r}")
            if select.select([self.fd], [], [], 1)[0]:
                try:
                    self.seen += os.read(self.fd, 1 << 16)
                except OSError:
                    # It has ended.
                    if text.encode() not in self.seen:
                        sys.exit(f"{text!r} never came; the end of what did: {self.seen[-2000:]!r}")
        return time.perf_counter() - self.start

    def cpu(self):
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self):
        """MiB now and at most."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        of = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Vm")}
        return int(of["VmRSS"]) / 1024, int(of["VmHWM"]) / 1024

    def press(self, keys):
        os.write(self.fd, keys.encode())

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def tell(what, value, limit=""):
    print(f"{what:<62} {value:>14}  {limit}", flush=True)


def milliseconds(seconds):
    return f"{1000 * statistics.median(seconds):.0f} ms"


def finished_runs(lab, count):
    """So many finished runs: copies of one under other names."""
    lab.run("run", "toy-continual", "--preset", "smoke", "--out", str(lab.runs / "first"))
    shutil.rmtree(lab.runs / "first" / "arms")
    for n in range(1, count):
        shutil.copytree(lab.runs / "first", lab.runs / f"copy-{n:03}")
    return lab.runs / "first"


def folder_of(lab, name):
    """The folder of a run whose events are still to be written."""
    first = lab.folder / "first"
    lab.run("run", "toy-continual", "--preset", "smoke", "--out", str(first))
    run = lab.runs / name
    run.mkdir(parents=True)
    for file in ["config.toml", "environment.json"]:
        shutil.copy(first / file, run)
    return run


def opens(binary):
    with Lab(binary) as lab:
        finished_runs(lab, 500)
        times = []
        # The first time, the files are read from the disk.
        for _ in range(6):
            terminal = Terminal(lab)
            times.append(terminal.until("copy-"))
            terminal.end()
        tell("opens with 500 runs, to the first frame with the list", milliseconds(times[1:]), "<= 100 ms")


def idle(binary):
    with Lab(binary) as lab:
        finished_runs(lab, 500)
        for what, keys in [("the list of 500 runs", ""), ("a finished run", "\r")]:
            terminal = Terminal(lab)
            terminal.until("copy-")
            terminal.press(keys)
            terminal.read(15)
            cpu, seconds = terminal.cpu(), 60
            wrote = len(terminal.read(seconds))
            used = (terminal.cpu() - cpu) / seconds
            tell(f"idle on {what}: of a core, bytes in {seconds} s", f"{100 * used:.2f} %, {wrote}", "<= 0.2 %, 0")
            terminal.end()


class Events:
    """Events as versions without checksums wrote them, of a run of two arms that are evaluated on four tasks."""

    TASKS = ["reversal", "sort", "rotate", "complement"]

    def __init__(self, run, steps, arms=2):
        self.file = open(run / "events.jsonl", "w", buffering=1 << 20)
        self.steps, self.arms, self.seq = steps, arms, 0
        names = ["none"] + [f"true-data:kl:{n}" for n in range(1, arms)]
        infos = [
            dict(name=name, slug=name.replace(":", "-"), strategy=name.split(":")[0], objective="kl" if n else "",
                 coeff=n or None, lr=1e-3, seed=0, steps=[])
            for n, name in enumerate(names)
        ]
        phases = [dict(dataset=task, steps=steps // 4) for task in self.TASKS]
        self.add(event="run_started", experiment="toy-continual", preset="cpu", arms=infos, phases=phases)
        self.add(event="worker_started", pid=1, version="0.1.0", device="cpu", resumed=False)

    def add(self, **event):
        line = dict(v=1, seq=self.seq, time=time.time() if self.steps < 10**5 else 1e9 + self.seq, **event)
        self.file.write(json.dumps(line) + "\n")
        self.seq += 1

    def evaluated(self, arm, step):
        phase = min(4 * step // self.steps, 3)
        scores = [
            dict(dataset=name, role="old" if task < phase else "new" if task == phase else "future",
                 ntp=1 + ((step * 31 + task * 7 + arm) % 101) / 101, kl=((step + arm) % 17) / 17,
                 accuracy=((step * 13 + task * 5 + arm) % 97) / 97)
            for task, name in enumerate(self.TASKS)
        ]
        cost = dict(tokens_trained=step * 4096, tokens_generated=0, seconds_new=step * 0.1, seconds_replay=0.0,
                    seconds_generate=0.0, seconds_eval=0.0)
        self.add(event="evaluated", arm=arm, phase=phase, step=step, cost=cost, scores=scores)

    def progress(self, arm, step):
        phase = min(4 * step // self.steps, 3)
        self.add(event="progress", arm=arm, phase=phase, step=step, ntp=1.0 + (step % 10) / 10, replay=0.1,
                 grad_norm=1.0, tokens_per_second=1e4 + step % 100)

    def metric(self, arm, step):
        self.add(event="plugin_metric", arm=arm, step=step, name="drawn", value=float(step))


def live(binary):
    """A run whose events come in ten times a second, beside the lab."""
    with Lab(binary) as lab:
        run = folder_of(lab, "live")
        events = Events(run, 4000, arms=8)
        for step in range(0, 2000, 10):
            for arm in range(8):
                events.evaluated(arm, step)
        events.file.flush()
        lock = open(run / "worker.lock", "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        terminal = Terminal(lab)
        terminal.until("LIVE")
        terminal.read(5)
        cpu, seconds, wrote, step = terminal.cpu(), 30, 0, 2000
        for _ in range(10 * seconds):
            step += 1
            for arm in range(8):
                events.progress(arm, step)
            if step % 10 == 0:
                events.evaluated(step // 10 % 8, step)
            events.file.flush()
            wrote += len(terminal.read(0.1))
        used = (terminal.cpu() - cpu) / seconds
        tell("live, ten updates a second, eight arms, 250x60: on the wire", f"{wrote / seconds / 1000:.1f} kB/s", "<= 20 kB/s")
        tell("  and of a core", f"{100 * used:.1f} %")
        terminal.end()


def long(binary):
    """A run of a million events."""
    with Lab(binary) as lab:
        run = folder_of(lab, "long")
        steps = 166_000
        events = Events(run, steps)
        for step in range(1, steps + 1):
            for arm in range(2):
                events.evaluated(arm, step)
                events.progress(arm, step)
                events.metric(arm, step)
        for arm in range(2):
            events.add(event="arm_finished", arm=arm, step=steps)
        events.add(event="run_finished")
        events.file.close()
        size = (run / "events.jsonl").stat().st_size
        tell("a run of so many events, of so many MiB", f"{events.seq}, {size >> 20}")
        first = lab.run("list")
        tell("its first listing, which makes the index", f"{first:.1f} s")
        for what, args, text in [("the lab", (), "no interval"), ("attach", ("attach", "long"), "finished:")]:
            times = []
            for _ in range(5):
                terminal = Terminal(lab, *args)
                if not args:
                    terminal.until("long")
                    terminal.start = time.perf_counter()
                    terminal.press("\r")
                times.append(terminal.until(text))
                if not args:
                    terminal.read(3)
                memory = (0, 0) if args else terminal.memory()
                terminal.end()
            tell(f"{what} shows where it stands after", milliseconds(times), "<= 1 s")
            if not args:
                tell("  memory of the lab: now, at most", "{:.0f}, {:.0f} MiB".format(*memory))


def training(binary):
    """The same run with the lab open on it, and without."""
    with Lab(binary) as lab:
        args = ["run", "toy-continual", "--preset", "cpu", "--arms", "none", "--no-cache", "--set", "phases.0.steps=400"]
        times = {False: [], True: []}
        for n in range(6):
            watched = n % 2 == 1
            out = lab.runs / f"run-{n}"
            worker = subprocess.Popen([lab.binary, *args, "--out", str(out)], env=lab.env, cwd=lab.folder,
                                      stdout=subprocess.DEVNULL)
            start = time.perf_counter()
            terminal = None
            if watched:
                while not (out / "events.jsonl").exists():
                    time.sleep(0.01)
                terminal = Terminal(lab)
            while worker.poll() is None:
                terminal.read(0.05) if terminal else time.sleep(0.05)
            times[watched].append(time.perf_counter() - start)
            if terminal:
                terminal.end()
        without, beside = (statistics.median(times[watched]) for watched in (False, True))
        tell("training without and with the lab open, s", f"{without:.1f}, {beside:.1f}")
        tell("  its speed with the lab, of that without", f"{without / beside:.3f}", ">= 0.99")


PARTS = {"open": opens, "idle": idle, "live": live, "long": long, "training": training}


def main():
    if len(sys.argv) < 2 or any(part not in PARTS for part in sys.argv[2:]):
        sys.exit(__doc__)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for part in sys.argv[2:] or PARTS:
        PARTS[part](sys.argv[1])


if __name__ == "__main__":
    main()

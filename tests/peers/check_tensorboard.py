"""Compares what TensorBoard reads from `forgetlab export RUN --tensorboard DIR` with the run's metrics.csv.

    venv/bin/pip install tensorboard==2.21.0
    forgetlab export RUN --tensorboard DIR
    venv/bin/python tests/peers/check_tensorboard.py RUN_FOLDER DIR/RUN
"""

import csv
import math
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

COLUMNS = ["accuracy", "ntp", "kl", "forgetting_ntp", "forgetting_accuracy"]


def as_f32(number):
    return struct.unpack("<f", struct.pack("<f", number))[0]


def read(folder):
    """Every scalar of an arm: tag to step to value."""
    everything = {"scalars": 0, "tensors": 0}
    accumulator = EventAccumulator(str(folder), size_guidance=everything)
    accumulator.Reload()
    found = {}
    for tag in accumulator.Tags()["scalars"]:
        events = accumulator.Scalars(tag)
        assert all(event.wall_time > 1.7e9 for event in events), f"{tag}: wall times"
        found[tag] = {event.step: event.value for event in events}
        assert len(found[tag]) == len(events), f"{tag}: a step twice"
    return found


def main():
    run, board = map(Path, sys.argv[1:])
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    arms = {}
    for row in rows:
        arms.setdefault((row["arm"], row["seed"]), []).append(row)
    folders = sorted(folder for folder in board.iterdir() if folder.is_dir())
    assert len(folders) == len(arms), f"{len(folders)} folders, {len(arms)} arms with seeds"
    checked = 0
    left = {folder: read(folder) for folder in folders}
    for (arm, seed), own in arms.items():
        # The folder whose curves these are; names of folders are shortened where they are long.
        def fits(found):
            for row in own:
                for column in COLUMNS:
                    value = found.get(f"{column}/{row['dataset']}", {}).get(int(row["step"]))
                    expected = as_f32(float(row[column])) if row[column] else None
                    if value != expected:
                        return False
            return True

        fitting = [folder for folder, found in left.items() if fits(found)]
        assert fitting, f"no folder has the curves of {arm}, seed {seed}"
        found = left.pop(fitting[0])
        checked += sum(1 for row in own for column in COLUMNS if row[column])
        for tag, events in found.items():
            assert all(math.isfinite(v) for v in events.values()) or tag.startswith("train/"), tag
    print(f"{checked} numbers of {len(arms)} arms are as in metrics.csv")


main()

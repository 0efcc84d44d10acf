//! Tests of the event log.

use std::fs::OpenOptions;

use super::super::{Evaluation, Event, Level, Outcomes, fixture};
use super::*;

fn log(message: &str) -> Event {
    Event::Log {
        level: Level::Info,
        arm: None,
        message: message.into(),
    }
}

fn messages(records: &[Record]) -> Vec<&str> {
    records
        .iter()
        .filter_map(|r| match &r.event {
            Event::Log { message, .. } => Some(message.as_str()),
            _ => None,
        })
        .collect()
}

/// After SIGKILL in the middle of a line, the run must still be readable and writable.
#[test]
fn a_torn_last_line_is_closed_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let mut writer = EventWriter::open(&path).unwrap().writer;
    writer.append(log("one")).unwrap();
    writer.append(log("two")).unwrap();
    drop(writer);
    let whole = std::fs::read(&path).unwrap();
    for cut in 1..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut reader = EventReader::new(&path);
        let before = reader.poll().unwrap().len() as u64;
        let mut writer = EventWriter::open(&path).unwrap().writer;
        writer.append(log("after")).unwrap();
        let more = reader.poll().unwrap();
        let last = more.last().unwrap();
        assert_eq!(messages(&more).last(), Some(&"after"), "cut at {cut}");
        // A line that lacked only its newline counts; any other torn one is passed over.
        assert_eq!(last.seq, before + more.len() as u64 - 1, "cut at {cut}");
        assert!(reader.check_end().is_ok());
    }
}

/// `attach` and the lab would show half an event, or miss one, while the worker writes it.
#[test]
fn a_reader_waits_for_the_end_of_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let mut reader = EventReader::new(&path);
    assert!(reader.poll().unwrap().is_empty());
    let mut writer = EventWriter::open(&path).unwrap().writer;
    writer.append(log("one")).unwrap();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(reader.poll().unwrap().is_empty());
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(messages(&reader.poll().unwrap()), ["one"]);
    assert!(reader.poll().unwrap().is_empty());
    reader.check_end().unwrap();
}

/// A log of so many lines.
fn written(path: &Path, lines: usize) -> Vec<u8> {
    let mut writer = EventWriter::open(path).unwrap().writer;
    for n in 0..lines {
        writer
            .append_at(n as f64, log(&format!("line {n}")))
            .unwrap();
    }
    std::fs::read(path).unwrap()
}

/// What reading a log to its end comes to: messages, or what is wrong.
fn read(path: &Path) -> Result<Vec<String>, String> {
    let mut reader = EventReader::new(path);
    let records = reader.poll().map_err(|error| error.to_string())?;
    reader.check_end().map_err(|error| error.to_string())?;
    Ok(messages(&records).into_iter().map(str::to_owned).collect())
}

/// A lost or changed evaluation would be a wrong figure of forgetting in a paper.
#[test]
fn every_change_of_whole_lines_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let whole = written(&path, 5);
    let all = read(&path).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|&b| b == b'\n').collect();
    let wrong = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let found = read(&path);
        let error = found.expect_err(what);
        assert!(
            error.contains("events.jsonl, line ") && error.contains("--go-back"),
            "{what}: {error}"
        );
        assert!(
            EventWriter::open(&path).is_err(),
            "{what}: a worker would go on"
        );
    };
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        // The last newline torn off is no damage.
        if at + 1 < whole.len() {
            wrong(&changed, &format!("bit of byte {at}"));
        }
    }
    for i in 0..lines.len() {
        let without = |i: usize| [&lines[..i], &lines[i + 1..]].concat().concat();
        if i + 1 < lines.len() {
            wrong(&without(i), "a lost line");
        }
        wrong(
            &[&lines[..=i], &lines[i..]].concat().concat(),
            "a line twice",
        );
        let mut zeros = whole.clone();
        let start: usize = lines[..i].iter().map(|line| line.len()).sum();
        zeros[start..start + 9].fill(0);
        wrong(&zeros, "zeros");
        for j in 0..i {
            let mut swapped = lines.clone();
            swapped.swap(i, j);
            wrong(&swapped.concat(), "lines swapped");
        }
    }
    // Cut between lines there is nothing to see: that is what checkpoints are compared with.
    std::fs::write(&path, &whole[..lines[0].len()]).unwrap();
    assert_eq!(read(&path).unwrap(), all[..1]);
}

/// A run that was killed in the middle of a line, twice, must not be taken for a damaged one.
#[test]
fn torn_lines_in_the_middle_are_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    written(&path, 2);
    for n in 0..2 {
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 30]).unwrap();
        let mut writer = EventWriter::open(&path).unwrap().writer;
        writer.append(log(&format!("after {n}"))).unwrap();
        writer.append(log("more")).unwrap();
    }
    assert_eq!(
        read(&path).unwrap(),
        ["line 0", "after 0", "after 1", "more"]
    );
}

/// What was measured with an older version must stay readable, and what is lost of it be told all the same.
#[test]
fn lines_of_older_versions_are_read_as_far_as_their_numbers_follow() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let line = |seq: u64, message: &str| {
        format!(
            r#"{{"v":1,"seq":{seq},"time":1.0,"event":"log","level":"info","arm":null,"message":"{message}"}}"#
        ) + "\n"
    };
    let [one, two, three] = [line(0, "one"), line(1, "two"), line(2, "three")];
    let torn = &two[..20];
    std::fs::write(&path, [&one, torn, "\n", &two, &three].concat()).unwrap();
    assert_eq!(read(&path).unwrap(), ["one", "two", "three"]);
    // This version goes on, and its first line makes the older ones checked.
    let mut writer = EventWriter::open(&path).unwrap().writer;
    assert_eq!(writer.append(log("four")).unwrap().seq, 3);
    assert_eq!(read(&path).unwrap(), ["one", "two", "three", "four"]);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("two", "owt", 1)).unwrap();
    assert!(read(&path).unwrap_err().contains("checksum"));

    for (lines, why) in [
        (
            [&one, &three].map(String::as_str).concat(),
            "line 2: event 2 follows event 0",
        ),
        (
            [&one, &two, &one].map(String::as_str).concat(),
            "line 3: event 0 comes again",
        ),
        (
            [&one, "{}\n", &three].concat(),
            "line 2: it is not an event",
        ),
        ([&one, "{}\n"].concat(), "line 2: it is not an event"),
        (two.clone(), "line 1: event 1 follows no other"),
    ] {
        std::fs::write(&path, lines).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

/// An older program must be able to read a newer run.
#[test]
fn events_of_a_newer_version_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let mut line = br#"{"v":7,"seq":0,"time":1.0,"event":"from_the_future","x":[1]}"#.to_vec();
    Chain::default().seal(&mut line);
    std::fs::write(&path, [&line[..], b"\n"].concat()).unwrap();
    let records = EventReader::new(&path).poll().unwrap();
    assert_eq!(records[0].event, Event::Unknown);
    let mut writer = EventWriter::open(&path).unwrap().writer;
    assert_eq!(writer.append(log("more")).unwrap().seq, 1);
}

/// A run whose file is damaged must not be lost: what is whole goes on, what is not is kept.
#[test]
fn damage_is_cut_off_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let whole = written(&path, 5);
    assert_eq!(cut_damage(&path).unwrap(), None);
    let mut spoilt = whole.clone();
    let third = whole
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'\n')
        .nth(1)
        .unwrap()
        .0
        + 20;
    spoilt[third] ^= 1;
    std::fs::write(&path, &spoilt).unwrap();
    let aside = cut_damage(&path).unwrap().expect("something was cut");
    assert_eq!(std::fs::read(aside).unwrap(), spoilt);
    assert_eq!(read(&path).unwrap(), ["line 0", "line 1"]);
    assert_eq!(
        EventWriter::open(&path)
            .unwrap()
            .writer
            .append(log("x"))
            .unwrap()
            .seq,
        2
    );
}

/// A pipe or a device in the place of the file would hang who looks, or fill the memory.
#[test]
fn what_is_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let zero = dir.path().join("events.jsonl");
    std::os::unix::fs::symlink("/dev/zero", &zero).unwrap();
    assert!(read(&zero).unwrap_err().contains("not a file"));
    std::fs::remove_file(&zero).unwrap();
    let sparse = std::fs::File::create(&zero).unwrap();
    sparse.set_len(10 << 30).unwrap();
    assert!(read(&zero).unwrap_err().contains("longer than any event"));
}

/// Hours of training would be gone with a folder that was moved away while they went on.
#[test]
fn a_moved_file_is_noticed_when_it_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let path = run.join("events.jsonl");
    let mut writer = EventWriter::open(&path).unwrap().writer;
    writer.append(log("one")).unwrap();
    assert_eq!(writer.sync().unwrap().events, 1);
    std::fs::rename(&run, dir.path().join("elsewhere")).unwrap();
    let error = writer.sync().unwrap_err();
    assert!(matches!(error, RunError::Moved { .. }), "{error}");
    std::fs::create_dir(&run).unwrap();
    std::fs::write(&path, "").unwrap();
    assert!(matches!(writer.sync().unwrap_err(), RunError::Moved { .. }));
}

/// A full disk must be an error with a path, not a panic or a silent gap.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let mut writer = EventWriter::open(&path).unwrap().writer;
    writer.file = OpenOptions::new().append(true).open("/dev/full").unwrap();
    let error = writer.append(log("lost")).unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    assert!(error.to_string().contains("events.jsonl"), "{error}");
    // Once there is space again the numbering has no gap.
    writer.file = OpenOptions::new().append(true).open(&path).unwrap();
    assert_eq!(writer.append(log("kept")).unwrap().seq, 0);
}

/// Figures must survive the file bit for bit, or a resumed run would differ.
#[test]
fn numbers_survive_bit_for_bit_and_nan_does_not_spoil_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let mut writer = EventWriter::open(&path).unwrap().writer;
    let values = [
        0.1 + 0.2,
        1e-308,
        5.018_137_669_483_83e-7,
        f64::MAX,
        2.0_f64.powi(-1074),
    ];
    for value in values {
        writer
            .append(Event::PluginMetric {
                arm: 0,
                step: 1,
                name: "x".into(),
                value,
            })
            .unwrap();
    }
    writer
        .append(Event::Progress {
            arm: 0,
            phase: 0,
            step: 1,
            ntp: f64::NAN,
            replay: None,
            grad_norm: f64::INFINITY,
            tokens_per_second: 1.0,
        })
        .unwrap();
    let mut reader = EventReader::new(&path);
    let records = reader.poll().unwrap();
    reader.check_end().unwrap();
    for (record, expected) in records.iter().zip(values) {
        let Event::PluginMetric { value, .. } = record.event else {
            panic!()
        };
        assert_eq!(value.to_bits(), expected.to_bits());
    }
    let Event::Progress { ntp, grad_norm, .. } = records[5].event else {
        panic!()
    };
    assert!(ntp.is_nan() && grad_norm.is_nan());
}

/// The state that all events of a log give.
fn whole(path: &Path) -> RunState {
    let mut follow = Follow::new(path);
    follow.catch_up().unwrap();
    follow.state
}

/// A long log: more than an index is made for.
fn long(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("events.jsonl");
    let Opened {
        mut writer,
        mut state,
        ..
    } = EventWriter::open(&path).unwrap();
    let mut give = |event: Event| state.apply(&writer.append(event).unwrap());
    for mut event in fixture::events() {
        if let Event::Evaluated { cost, .. } = &mut event {
            cost.replaced = Some(0.125);
        }
        give(event);
    }
    for n in 0..3000_u32 {
        give(log(&format!("line {n} of a run that says much")));
        let (name, value) = ("loss".to_owned(), f64::from(n) / 3.0);
        let (arm, step) = (1, 40 + u64::from(n));
        give(Event::PluginMetric {
            arm,
            step,
            name,
            value,
        });
        let seen = fixture::look(step);
        give(Event::ReplaySeen { arm, seen });
        give(fixture::sampled(step).event(arm));
        give(fixture::trained(arm, step));
    }
    writer.sync().unwrap();
    writer.index(&state, true);
    path
}

/// Else a long run would be shown otherwise than it was, or as it was some time ago.
#[test]
fn an_index_gives_the_state_that_all_events_give_and_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = long(dir.path());
    assert!(index::read(&path, Part::Whole).is_some(), "there is one");
    assert_eq!(Follow::quickly(&path).unwrap().state, whole(&path));
    let brief = Follow::briefly(&path).unwrap().state;
    assert_eq!(brief, whole(&path).brief());
    assert!(brief.log.is_empty() && brief.arms[1].evaluations.len() == 1);
    assert!(brief.arms[1].training.is_empty() && whole(&path).arms[1].training.len() == 3000);

    // A worker goes on: what follows is read, whether it is there or is yet to come.
    let mut writer = EventWriter::open(&path).unwrap().writer;
    writer
        .append(Event::ArmFailed {
            arm: 0,
            step: 40,
            reason: "NaN".into(),
        })
        .unwrap();
    let mut follow = Follow::quickly(&path).unwrap();
    assert_eq!(follow.state, whole(&path));
    writer.append(log("last")).unwrap();
    assert_eq!(follow.poll().unwrap().len(), 1);
    assert_eq!(follow.state, whole(&path));
}

/// Else an index would hide that the events are no longer those it was made of.
#[test]
fn an_index_of_other_or_damaged_events_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = long(dir.path());
    let text = std::fs::read_to_string(&path).unwrap();
    let index = dir.path().join("events.index");
    let believed = || super::index::read(&path, Part::Whole).is_some();
    assert!(believed());
    // Copied back, edited, replaced, cut.
    let aside = dir.path().join("aside");
    std::fs::copy(&path, &aside).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert!(!believed(), "another file of the same content");
    let path = long(&{
        let sub = dir.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        sub
    });
    let believed = || super::index::read(&path, Part::Whole).is_some();
    assert!(believed());
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, &text.as_bytes()[..10]).unwrap();
    assert!(!believed(), "written to");
    file.set_len(text.len() as u64 / 2).unwrap();
    assert!(!believed(), "cut");
    drop(index);

    // A torn or changed index is none.
    let sub = dir.path().join("third");
    std::fs::create_dir(&sub).unwrap();
    let path = long(&sub);
    let index = sub.join("events.index");
    let bytes = std::fs::read(&index).unwrap();
    for at in (0..bytes.len()).step_by(bytes.len() / 300) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        std::fs::write(&index, &changed).unwrap();
        assert!(
            super::index::read(&path, Part::Whole).is_none(),
            "byte {at}"
        );
        std::fs::write(&index, &bytes[..at]).unwrap();
        assert!(
            super::index::read(&path, Part::Whole).is_none(),
            "cut at {at}"
        );
    }
}

/// Else a run whose file was put back from a copy, or cut by `--go-back`, would be shown as it was before, or be called
/// damaged.
#[test]
fn an_index_is_given_up_where_the_events_behind_it_do_not_follow() {
    let dir = tempfile::tempdir().unwrap();
    let path = long(dir.path());
    // Longer events, written into the same file.
    let sub = dir.path().join("other");
    std::fs::create_dir(&sub).unwrap();
    let other = long(&sub);
    let mut writer = EventWriter::open(&other).unwrap().writer;
    for n in 0..50 {
        writer.append(log(&format!("more, {n}"))).unwrap();
    }
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, &std::fs::read(&other).unwrap()).unwrap();
    assert!(
        index::read(&path, Part::Head).is_some(),
        "as far as can be seen"
    );
    assert_eq!(Follow::quickly(&path).unwrap().state, whole(&path));
    assert_eq!(Follow::briefly(&path).unwrap().state, whole(&path));

    // Cut, and grown beyond what it was.
    let mut bytes = std::fs::read(&other).unwrap();
    let last = bytes.len() - 40;
    bytes[last] ^= 1;
    std::fs::write(&other, &bytes).unwrap();
    cut_damage(&other).unwrap().expect("something was cut");
    let mut writer = EventWriter::open(&other).unwrap().writer;
    for _ in 0..50 {
        writer.append(log("again")).unwrap();
    }
    assert!(index::read(&other, Part::Head).is_none(), "another file");
    assert_eq!(Follow::quickly(&other).unwrap().state, whole(&other));
}

/// An evaluation of the first arm, with rows; `luck` tells one that came to nothing from the one that took its place.
fn long_evaluation(step: u64, luck: u64) -> Event {
    let mut evaluation = fixture::state().arms[0].evaluations[3].clone();
    evaluation.step = step;
    for (task, score) in (0..).zip(&mut evaluation.scores) {
        let right = ((step + luck) * 7919 + task * 31) % 1009;
        score.accuracy = Some(right as f64 / 1009.0);
        score.ntp = Some(1.0 - right as f64 / 1009.0);
        score.outcomes = Some(std::sync::Arc::new(Outcomes {
            right: (0..40).map(|row| u32::from(row < right % 41)).collect(),
            ..Outcomes::default()
        }));
        score.rows_kept = true;
    }
    fixture::evaluated(0, &evaluation)
}

/// What must hold of an arm however it was read: how many evaluations, the first and the last, and the first of the
/// worst of each dataset, with their rows.
fn told(state: &RunState) -> Vec<String> {
    let arm = &state.arms[0];
    let mut told = vec![format!(
        "{}",
        arm.evaluations.len() + arm.dropped.evaluations()
    )];
    told.extend([arm.evaluations.first(), arm.evaluations.last()].map(|e| format!("{e:?}")));
    for dataset in 0..2 {
        let accuracy = |e: &Evaluation| e.scores[dataset].accuracy.unwrap();
        let behind = arm.evaluations[1..].iter();
        let worst = behind.reduce(|worst, e| match accuracy(e) < accuracy(worst) {
            true => e,
            false => worst,
        });
        told.push(format!("{:?}", worst.map(|e| (e.step, &e.scores[dataset]))));
    }
    told
}

/// Else a run that was resumed would be told by what was taken back, or without what that had overtaken.
#[test]
fn a_long_run_that_went_back_is_read_as_if_what_came_to_nothing_had_not_been() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let Opened {
        mut writer,
        mut state,
        ..
    } = EventWriter::open(&path).unwrap();
    let mut give = |event: Event, writer: &mut EventWriter| {
        state.apply(&writer.append(event).unwrap());
        state.clone()
    };
    give(fixture::events().remove(0), &mut writer);
    let check = |when: &str| {
        let follow = Follow::quickly(&path).unwrap();
        assert_eq!(told(&follow.state), told(&whole(&path)), "{when}");
        follow
    };
    for step in 0..2000 {
        give(long_evaluation(step, 0), &mut writer);
    }
    let index = dir.path().join("events.index");
    assert!(check("without an index").state.arms[0].evaluations.len() < 1200);
    let state = give(log("so far"), &mut writer);
    writer.index(&state, true);
    assert!(index::read(&path, Part::Whole).is_some());
    let mut follow = check("with an index");
    // It goes back behind the index, to other luck.
    let back = Event::Rewound {
        arm: 0,
        step: 1200,
        reason: "resumed".into(),
    };
    give(back, &mut writer);
    assert_eq!(follow.poll().unwrap().len(), 1);
    check("gone back");
    for step in 1201..2600 {
        give(long_evaluation(step, 5), &mut writer);
    }
    check("gone on");
    let state = give(log("more"), &mut writer);
    writer.index(&state, true);
    check("with an index from behind it");
    std::fs::remove_file(index).unwrap();
    check("without any");
}

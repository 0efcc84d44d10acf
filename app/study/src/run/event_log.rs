//! `events.jsonl`: one writer appends, any number of readers follow.
//!
//! A line counts once its newline is written. A crash may leave a torn last line: readers wait for its
//! end, and the next writer ends it with a newline, after which readers skip it as unreadable. What is
//! already written is never changed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{EVENT_SCHEMA, Event, Record, RunError, RunState};

/// Appends to `events.jsonl`. Only the holder of the run's lock may have one.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    len: u64,
    next_seq: u64,
}

impl EventWriter {
    /// Opens (or creates) the events at `path`, ends a torn last line, and continues the numbering.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        let mut reader = EventReader::new(path);
        let mut next_seq = 0;
        for record in reader.poll()? {
            next_seq = record.seq + 1;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path)
            .map_err(RunError::io("open", path))?;
        let len = file.metadata().map_err(RunError::io("read", path))?.len();
        if len > reader.offset {
            file.write_all(b"\n").map_err(RunError::io("write", path))?;
            // The line may have lacked only its newline.
            for record in reader.poll()? {
                next_seq = record.seq + 1;
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            len: reader.offset,
            next_seq,
        })
    }

    /// Appends an event with the current time. On an error, e.g. a full disk, the half-written line is
    /// removed.
    pub fn append(&mut self, event: Event) -> Result<Record, RunError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.append_at(now.as_secs_f64(), event)
    }

    /// Appends an event with a given time, in seconds since the Unix epoch.
    pub fn append_at(&mut self, time: f64, event: Event) -> Result<Record, RunError> {
        let record = Record {
            v: EVENT_SCHEMA,
            seq: self.next_seq,
            time,
            event,
        };
        let line = serde_json::to_vec(&record)
            .map_err(io::Error::from)
            .map(|mut line| {
                line.push(b'\n');
                line
            });
        match line.and_then(|line| self.file.write_all(&line).map(|()| line.len())) {
            Ok(bytes) => {
                self.len += bytes as u64;
                self.next_seq += 1;
                Ok(record)
            }
            Err(error) => {
                // If even this fails, the next writer ends the line.
                let _ = self.file.set_len(self.len);
                Err(RunError::io("write", &self.path)(error))
            }
        }
    }

    /// Syncs everything appended so far to disk.
    pub fn sync(&self) -> Result<(), RunError> {
        self.file
            .sync_data()
            .map_err(RunError::io("sync", &self.path))
    }
}

/// Reads `events.jsonl` as it grows.
#[derive(Debug)]
pub struct EventReader {
    path: PathBuf,
    /// End of the last whole line that was read.
    offset: u64,
    unreadable: u64,
}

impl EventReader {
    /// A reader at the beginning; the file need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            offset: 0,
            unreadable: 0,
        }
    }

    /// Everything written since the last call, up to the last whole line.
    pub fn poll(&mut self) -> Result<Vec<Record>, RunError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(RunError::io("read", &self.path)(error)),
        };
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.offset))
            .and_then(|_| file.read_to_end(&mut bytes))
            .map_err(RunError::io("read", &self.path))?;
        let whole = bytes
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |at| at + 1);
        self.offset += whole as u64;
        let mut records = Vec::new();
        for line in bytes[..whole].split(|&b| b == b'\n') {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match serde_json::from_slice(line) {
                Ok(record) => records.push(record),
                Err(_) => self.unreadable += 1,
            }
        }
        Ok(records)
    }

    /// Number of lines skipped as unreadable; one for each crash is usual.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

/// A reader that keeps a run's state up to date with its events.
#[derive(Debug)]
pub struct Follow {
    reader: EventReader,
    /// State derived from the events read so far.
    pub state: RunState,
}

impl Follow {
    /// Follows the events at `path` from the beginning.
    pub fn new(path: &Path) -> Self {
        Self {
            reader: EventReader::new(path),
            state: RunState::default(),
        }
    }

    /// Applies new events to `state` and returns them; empty when nothing happened.
    pub fn poll(&mut self) -> Result<Vec<Record>, RunError> {
        let records = self.reader.poll()?;
        for record in &records {
            self.state.apply(record);
        }
        Ok(records)
    }

    /// See [`EventReader::unreadable`].
    pub fn unreadable(&self) -> u64 {
        self.reader.unreadable()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
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
        let mut writer = EventWriter::open(&path).unwrap();
        writer.append(log("one")).unwrap();
        writer.append(log("two")).unwrap();
        drop(writer);
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut reader = EventReader::new(&path);
            let before = reader.poll().unwrap().len() as u64;
            let mut writer = EventWriter::open(&path).unwrap();
            writer.append(log("after")).unwrap();
            let more = reader.poll().unwrap();
            let last = more.last().unwrap();
            assert_eq!(messages(&more).last(), Some(&"after"), "cut at {cut}");
            // A line that lacked only its newline counts; any other torn one is passed over.
            assert_eq!(last.seq, before + more.len() as u64 - 1, "cut at {cut}");
            assert!(reader.unreadable() <= 1);
        }
    }

    /// `attach` and the lab would show half an event, or miss one, while the worker writes it.
    #[test]
    fn a_reader_waits_for_the_end_of_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut reader = EventReader::new(&path);
        assert!(reader.poll().unwrap().is_empty());
        let mut writer = EventWriter::open(&path).unwrap();
        writer.append(log("one")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(reader.poll().unwrap().is_empty());
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(messages(&reader.poll().unwrap()), ["one"]);
        assert!(reader.poll().unwrap().is_empty());
        assert_eq!(reader.unreadable(), 0);
    }

    /// One spoilt line must not cost the rest, and an older program reads a newer run.
    #[test]
    fn spoilt_lines_are_counted_and_newer_events_pass() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut writer = EventWriter::open(&path).unwrap();
        writer.append(log("one")).unwrap();
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"v\":1,\"seq\n\u{0}\u{0}\n");
        text.push_str(r#"{"v":7,"seq":1,"time":1.0,"event":"from_the_future","x":[1]}"#);
        text.push('\n');
        std::fs::write(&path, text).unwrap();
        EventWriter::open(&path)
            .unwrap()
            .append(log("two"))
            .unwrap();
        let mut reader = EventReader::new(&path);
        let records = reader.poll().unwrap();
        assert_eq!(messages(&records), ["one", "two"]);
        assert_eq!(records[1].event, Event::Unknown);
        assert_eq!(records[2].seq, 2);
        assert_eq!(reader.unreadable(), 2);
    }

    /// A full disk must be an error with a path, not a panic or a silent gap.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut writer = EventWriter::open(&path).unwrap();
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
        let mut writer = EventWriter::open(&path).unwrap();
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
        assert_eq!(reader.unreadable(), 0);
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
}

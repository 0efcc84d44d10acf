//! What TensorBoard reads, read here by other means.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use forgetlab_tests::{Lab, Table};

/// CRC-32C, a bit at a time, masked as in TFRecord.
fn masked_crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let low = crc & 1 == 1;
            crc >>= 1;
            if low {
                crc ^= 0x82f6_3b78;
            }
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Takes bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = bytes.split_at(count);
    *bytes = rest;
    front
}

/// The records of a file, their checksums checked.
fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let length = take(&mut bytes, 8);
        let crc = take(&mut bytes, 4);
        assert_eq!(crc, masked_crc(length).to_le_bytes());
        let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
        let record = take(&mut bytes, length as usize);
        assert_eq!(take(&mut bytes, 4), masked_crc(record).to_le_bytes());
        records.push(record);
    }
    records
}

/// The fields of a message: number, and content.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let byte = take(bytes, 1)[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let content = match key & 7 {
            0 => varint(&mut bytes).to_le_bytes().to_vec(),
            1 => take(&mut bytes, 8).to_vec(),
            2 => {
                let length = varint(&mut bytes);
                take(&mut bytes, length as usize).to_vec()
            }
            5 => take(&mut bytes, 4).to_vec(),
            other => panic!("type {other}"),
        };
        fields.push((key >> 3, content));
    }
    fields
}

fn field(message: &[u8], number: u64) -> Option<Vec<u8>> {
    let mut fields = fields(message).into_iter();
    fields
        .find(|(n, _)| *n == number)
        .map(|(_, content)| content)
}

/// Time and value of each tag and step of a file.
fn scalars(path: &Path) -> BTreeMap<(String, u64), (f64, f32)> {
    let bytes = fs::read(path).expect("file");
    let records = records(&bytes);
    let version = field(records[0], 3).expect("version");
    assert_eq!(version, b"brain.Event:2");
    let mut scalars = BTreeMap::new();
    for event in &records[1..] {
        let time = field(event, 1).expect("time").try_into().expect("f64");
        let step = field(event, 2).expect("step").try_into().expect("u64");
        let summary = field(event, 5).expect("summary");
        for (_, value) in fields(&summary) {
            let tag = String::from_utf8(field(&value, 1).expect("tag")).expect("UTF-8");
            let number = field(&value, 2).expect("number").try_into().expect("f32");
            let key = (tag, u64::from_le_bytes(step));
            let known = scalars.insert(key, (f64::from_le_bytes(time), f32::from_le_bytes(number)));
            assert_eq!(known, None, "a step is there once");
        }
    }
    scalars
}

/// Every event file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

/// A group that keeps its curves in TensorBoard must see there what the CSVs say.
#[test]
fn every_evaluation_is_in_the_event_files() {
    let lab = Lab::new();
    let args = [
        "--arms",
        "none,true-data:kl",
        "--seed",
        "3",
        "--seed",
        "5",
        "--out",
        "run",
    ];
    lab.smoke(&args).exits(0);
    let told = lab
        .forgetlab(&["export", "run", "--tensorboard", "board"])
        .exits(0);
    let files = files(&lab.path("board"));
    assert_eq!((files.len(), told.out.lines().count()), (4, 4));
    let text = fs::read_to_string(lab.path("run/metrics.csv")).expect("metrics.csv");
    let table = Table::parse(&text);
    let mut checked = 0;
    for file in &files {
        let folder = file.parent().expect("folder");
        assert_eq!(folder.parent(), Some(&*lab.path("board/run")));
        assert!(
            file.file_name()
                .expect("name")
                .to_string_lossy()
                .contains("tfevents")
        );
        let scalars = scalars(file);
        let slug = folder
            .file_name()
            .expect("slug")
            .to_string_lossy()
            .into_owned();
        for row in &table.rows {
            let cell = |column: &str| row[column].as_str();
            let arm = cell("arm").replace(':', "-");
            let own = slug.starts_with(&arm) && slug.ends_with(&format!("seed{}", cell("seed")));
            if !own {
                continue;
            }
            let step: u64 = cell("step").parse().expect("step");
            for column in [
                "accuracy",
                "ntp",
                "kl",
                "forgetting_ntp",
                "forgetting_accuracy",
            ] {
                let found = scalars.get(&(format!("{column}/{}", cell("dataset")), step));
                let expected = cell(column).parse::<f64>().ok();
                assert_eq!(
                    found.map(|found| found.1),
                    expected.map(|x| x as f32),
                    "{slug} {step}"
                );
                // Within an hour of now, in seconds.
                assert!(found.is_none_or(|found| found.0 > 1.7e9));
                checked += usize::from(expected.is_some());
            }
            let tokens = scalars[&("cost/tokens_trained".to_owned(), step)].1;
            assert_eq!(
                tokens,
                cell("tokens_trained").parse::<f32>().expect("tokens")
            );
        }
    }
    assert!(checked > 100, "{checked}");
    // Again, in place of what is there.
    lab.forgetlab(&["export", "run", "--tensorboard", "board"])
        .exits(0);
    assert_eq!(self::files(&lab.path("board")), files);
    // Of CSVs alone, and without being told where to.
    fs::create_dir(lab.path("kept")).expect("folder");
    fs::copy(lab.path("run/metrics.csv"), lab.path("kept/metrics.csv")).expect("copy");
    lab.forgetlab(&["export", "kept", "--tensorboard", "board"])
        .exits(0);
    assert_eq!(self::files(&lab.path("board/kept")).len(), 4);
    lab.forgetlab(&["export", "run"])
        .exits(2)
        .says(&["--tensorboard"]);
}

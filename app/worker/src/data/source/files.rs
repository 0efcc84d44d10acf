//! Which files a source is made of, and how they are opened.
//!
//! A folder is read as Hugging Face's `datasets` reads one: what is hidden is no data, nor what tools leave
//! beside data (`.ipynb_checkpoints`, macOS's `._x` and `__MACOSX`, the `~$x` of an open table).

use std::collections::HashSet;
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use forgetlab_engine::pretrained::{Hub, builtin};

use super::kinds::{PACKED, is_data, is_hidden, kind, packing};
use super::{SourceError, is_remote, remote};

/// The file itself, or the known files of a folder or data set, in order of their names.
pub(in crate::data) fn files(path: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let failed = |source| SourceError::Io {
        path: path.into(),
        source,
    };
    if builtin::is_builtin(path) {
        builtin::read(path).map_err(failed)?;
        return Ok(vec![path.into()]);
    }
    if is_remote(path) {
        return remote::files(path, &Hub::from_env());
    }
    let found = fs::metadata(path).map_err(failed)?;
    if !found.is_dir() {
        return match kind(path) {
            Some(_) => Ok(vec![path.into()]),
            None => Err(SourceError::Kind { path: path.into() }),
        };
    }
    let mut walk = Walk::default();
    walk.folder(path, &found)?;
    Ok(walk.files)
}

/// A walk through a folder and those below it.
#[derive(Default)]
struct Walk {
    files: Vec<PathBuf>,
    /// Device and inode of the folders that were met: each is read once, however many links lead to it.
    met: HashSet<(u64, u64)>,
}

impl Walk {
    fn folder(&mut self, path: &Path, found: &Metadata) -> Result<(), SourceError> {
        if !self.met.insert((found.dev(), found.ino())) {
            return Ok(());
        }
        let failed = |path: &Path, source| SourceError::Io {
            path: path.into(),
            source,
        };
        let entries = fs::read_dir(path).and_then(|entries| {
            let names = entries.map(|entry| Ok(entry?.file_name()));
            names.collect::<io::Result<Vec<_>>>()
        });
        let mut names = entries.map_err(|source| failed(path, source))?;
        names.sort();
        for name in names {
            let (name, entry) = (name.to_string_lossy(), path.join(&name));
            if is_hidden(&name) {
                continue;
            }
            match fs::metadata(&entry) {
                Ok(found) if found.is_dir() && name.starts_with("__") => {}
                Ok(found) if found.is_dir() => self.folder(&entry, &found)?,
                // Of links that lead nowhere, and the like, only those to data matter.
                Err(source) if is_data(Path::new(&*name)) => return Err(failed(&entry, source)),
                _ if is_data(Path::new(&*name)) => self.files.push(entry),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Refuses what is no regular file, which could be without end, or never answer.
pub(in crate::data) fn regular(path: &Path) -> io::Result<Metadata> {
    let found = fs::metadata(path)?;
    match found.is_file() {
        true => Ok(found),
        false => Err(io::Error::other(format!(
            "it is {}, and only regular files are read; write its content to a file first",
            in_words(found.file_type())
        ))),
    }
}

fn in_words(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Opens a file, built in or on disk; its bytes, and how many there are.
pub(in crate::data) fn open(path: &Path) -> Result<(Box<dyn BufRead>, u64), SourceError> {
    let opened = match builtin::is_builtin(path) {
        true => builtin::read(path).map(|bytes| {
            (
                bytes.len() as u64,
                Box::new(io::Cursor::new(bytes)) as Box<_>,
            )
        }),
        false => open_on_disk(path)
            .map(|(file, bytes)| (bytes, Box::new(BufReader::new(file)) as Box<dyn BufRead>)),
    };
    match opened {
        Ok((bytes, reader)) => Ok((reader, bytes)),
        Err(source) => Err(SourceError::Io {
            path: path.into(),
            source,
        }),
    }
}

/// Bytes of files that were read so far, as they lie on disk; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// The bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts some more.
    pub(super) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A reader that counts what is read.
struct Metered {
    inner: Box<dyn BufRead>,
    meter: Meter,
}

impl Read for Metered {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.meter.add(read as u64);
        Ok(read)
    }
}

impl BufRead for Metered {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
        self.meter.add(amount as u64);
    }
}

/// Opens a file, built in or on disk; its content, unpacked where its name says that it is packed.
pub(super) fn open_unpacked(path: &Path, meter: &Meter) -> Result<Box<dyn BufRead>, SourceError> {
    let (inner, _) = open(path)?;
    let packed: Box<dyn BufRead> = Box::new(Metered {
        inner,
        meter: meter.clone(),
    });
    let content: Box<dyn Read> = match packing(path) {
        None => return Ok(packed),
        Some("gz") => Box::new(MultiGzDecoder::new(packed)),
        Some("zst") => {
            let unpacked = zstd::Decoder::with_buffer(packed);
            Box::new(unpacked.map_err(|source| SourceError::Io {
                path: path.into(),
                source,
            })?)
        }
        Some(way) => {
            let ways = PACKED.join(" and ");
            let problem =
                format!("packed by {way}, and only {ways} are unpacked here; unpack it first");
            return Err(SourceError::Malformed {
                path: path.into(),
                problem,
            });
        }
    };
    Ok(Box::new(BufReader::with_capacity(1 << 16, content)))
}

/// Opens a regular file on disk; how many bytes it has.
pub(super) fn open_on_disk(path: &Path) -> io::Result<(File, u64)> {
    let bytes = regular(path)?.len();
    Ok((File::open(path)?, bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::super::{Content, Fields, read};
    use super::*;

    /// Else a model would train on copies that an editor keeps, or not at all because of what a Mac leaves behind.
    #[test]
    fn what_tools_leave_in_a_folder_is_no_data() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let record = br#"{"text":"the kettle sings"}"#;
        for name in ["train.jsonl", "part/_1.jsonl"] {
            write(name, record);
        }
        for name in [
            ".ipynb_checkpoints/train-checkpoint.jsonl",
            ".git/x.txt",
            "__MACOSX/train.jsonl",
            "part/__pycache__/x.csv",
            ".hidden.jsonl",
            "dataset_infos.json",
            "part/state.json",
        ] {
            write(name, record);
        }
        for name in ["._train.jsonl", "part/~$table.csv", ".~lock.train.csv#"] {
            write(name, b"\x00\x05\x16\x07");
        }
        let found = files(dir.path()).unwrap();
        assert_eq!(
            found,
            ["part/_1.jsonl", "train.jsonl"].map(|name| dir.path().join(name))
        );
        // Whoever names it means it.
        for named in [".hidden.jsonl", ".ipynb_checkpoints", "dataset_infos.json"] {
            assert_eq!(files(&dir.path().join(named)).unwrap().len(), 1, "{named}");
        }
        for (path, data) in [
            ("data/x.json", true),
            ("data/.x/y.csv", false),
            ("config.json", false),
        ] {
            assert_eq!(is_data(Path::new(path)), data, "{path}");
        }
    }

    /// Folders that lead to themselves and to each other would be read without end.
    #[test]
    fn a_folder_that_leads_to_itself_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.txt"), "one").unwrap();
        for name in ["a", "b"] {
            symlink(dir.path(), dir.path().join(name)).unwrap();
        }
        for i in 0..12 {
            fs::create_dir(dir.path().join(format!("d{i}"))).unwrap();
            fs::write(dir.path().join(format!("d{i}/y.txt")), "two").unwrap();
        }
        for (i, j) in (0..12).flat_map(|i| (0..12).map(move |j| (i, j))) {
            let link = dir.path().join(format!("d{i}/to{j}"));
            symlink(dir.path().join(format!("d{j}")), link).unwrap();
        }
        assert_eq!(files(dir.path()).unwrap().len(), 13);
    }

    /// A pipe never ends or never answers; a device has no end; a hole of terabytes fills the memory.
    #[test]
    fn what_is_no_regular_file_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let _socket = UnixListener::bind(path("s.jsonl")).unwrap();
        symlink("/dev/zero", path("z.csv")).unwrap();
        symlink("/dev/zero", path("z.parquet")).unwrap();
        symlink(path("nowhere.txt"), path("n.txt")).unwrap();
        let says = |name: &str| {
            read(&path(name), &Fields::default())
                .unwrap_err()
                .to_string()
        };
        assert!(says("s.jsonl").ends_with("s.jsonl: it is a socket, and only regular files are read; write its content to a file first"));
        for name in ["z.csv", "z.parquet"] {
            assert!(says(name).contains("it is a device"), "{}", says(name));
        }
        assert!(says("n.txt").contains("No such file"));
        assert!(says("").contains("n.txt: No such file"), "{}", says(""));
        for name in ["h.txt", "h.jsonl", "h.json", "h.csv"] {
            File::create(path(name)).unwrap().set_len(1 << 42).unwrap();
            let error = says(name);
            assert!(error.contains("line 1 holds a byte 0"), "{error}");
        }
        File::create(path("h.parquet"))
            .unwrap()
            .set_len(1 << 42)
            .unwrap();
        assert!(says("h.parquet").contains("not Parquet"));
    }

    /// Large sets are packed as a rule; left out of a folder in silence, a model would train on the rest of it.
    #[test]
    fn packed_files_are_unpacked_or_named() {
        let dir = tempfile::tempdir().unwrap();
        let texts = |name: &str| -> Result<Vec<Content>, String> {
            let documents = read(&dir.path().join(name), &Fields::default());
            let documents = documents.map_err(|error| error.to_string())?;
            Ok(documents
                .into_iter()
                .map(|document| document.content)
                .collect())
        };
        let gz = |text: &str| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(text.as_bytes()).unwrap();
            packer.finish().unwrap()
        };
        let zst = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        write(
            "a.jsonl.gz",
            &[gz("{\"text\":\"one\"}\n"), gz("{\"text\":\"two\"}\n")].concat(),
        );
        write("b.txt.zst", &zst("three\n\nfour\n"));
        write("c.csv.GZ", &gz("text\nfive\n"));
        let all = ["one", "two", "three", "four", "five"];
        assert_eq!(
            texts("").unwrap(),
            all.map(|text| Content::Text(text.into()))
        );
        write("c.csv.GZ", &gz("text\n\"five\n"));
        let error = texts("c.csv.GZ").unwrap_err();
        assert!(error.contains("a quote is opened"), "{error}");
        let whole = zst(&"six ".repeat(100));
        write("b.txt.zst", &whole[..whole.len() / 2]);
        assert!(texts("b.txt.zst").unwrap_err().contains("b.txt.zst"));
        write("c.csv.GZ", b"text\nfive\n");
        assert!(texts("c.csv.GZ").unwrap_err().contains("c.csv.GZ"));
        write("0.json.xz", b"");
        let error = texts("").unwrap_err();
        assert!(
            error.ends_with(
                "0.json.xz: packed by xz, and only gz and zst are unpacked here; unpack it first"
            ),
            "{error}"
        );
        write("0.parquet.gz", b"");
        assert!(texts("0.parquet.gz").unwrap_err().contains("not Parquet"));
    }
}

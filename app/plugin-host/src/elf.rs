//! A check of a shared library's ELF headers before the system's loader maps it.
//!
//! The loader trusts the headers: a file that is shorter than they say kills the process (SIGBUS)
//! instead of giving an error. So they are compared with the file's length first.

use super::LoadError;

const HEADER: usize = 64;
const SHARED_OBJECT: u16 = 3;
const LOADED_SEGMENT: u32 = 1;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const MACHINE: u16 = 0;

/// Checks that `file` is a whole 64-bit shared object for this machine.
pub(super) fn check(file: &[u8]) -> Result<(), LoadError> {
    let not = |why: &str| Err(LoadError::NotALibrary(why.into()));
    if file.is_empty() {
        return not("it is empty");
    }
    if !b"\x7fELF".starts_with(&file[..file.len().min(4)]) {
        return not("it is no ELF file");
    }
    if file.len() < HEADER {
        return truncated(HEADER as u64, file);
    }
    if file[4] != 2 || file[5] != 1 {
        return not("it is not a 64-bit little-endian ELF file");
    }
    if u16_at(file, 16) != SHARED_OBJECT {
        return not(
            "it is an ELF file, but no shared object; build it as a cdylib or with -shared",
        );
    }
    let machine = u16_at(file, 18);
    if MACHINE != 0 && machine != MACHINE {
        return not(&format!(
            "it was built for another processor (ELF machine {machine}, here {MACHINE})"
        ));
    }
    let (segments, sections) = (u64_at(file, 32), u64_at(file, 40));
    let (segment_size, segment_count) = (u16_at(file, 54), u16_at(file, 56));
    let (section_size, section_count) = (u16_at(file, 58), u16_at(file, 60));
    if segment_count > 0 && segment_size < 56 {
        return not("its program headers have an unknown size");
    }
    let table = |offset: u64, size: u16, count: u16| {
        offset.saturating_add(u64::from(size) * u64::from(count))
    };
    let tables = table(segments, segment_size, segment_count).max(table(
        sections,
        section_size,
        section_count,
    ));
    // Section headers come last in most files: a length below them is the sign of a cut.
    if tables > file.len() as u64 {
        return truncated(tables, file);
    }
    for i in 0..u64::from(segment_count) {
        let at = (segments + i * u64::from(segment_size)) as usize;
        let end = u64_at(file, at + 8).saturating_add(u64_at(file, at + 32));
        if u32_at(file, at) == LOADED_SEGMENT && end > file.len() as u64 {
            return truncated(end, file);
        }
    }
    Ok(())
}

fn truncated(expected: u64, file: &[u8]) -> Result<(), LoadError> {
    Err(LoadError::Truncated {
        expected,
        actual: file.len() as u64,
    })
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    if let Some(from) = file.get(at..).and_then(|rest| rest.get(..N)) {
        value.copy_from_slice(from);
    }
    value
}

fn u16_at(file: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(file, at))
}

fn u32_at(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(file, at))
}

fn u64_at(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(file, at))
}

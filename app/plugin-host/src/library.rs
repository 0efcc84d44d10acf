//! Loading a library file and checking its descriptor, before any function of the plugin is called.

use std::{ffi::c_void, path::Path};

use forgetlab_plugin_api::abi::{self, Descriptor};
use serde::{Deserialize, Serialize};

use super::{LoadError, Schema, float::FloatMode};

/// Minor ABI versions that this host accepts.
const ACCEPTED_MINORS: std::ops::RangeInclusive<u32> = 0..=abi::ABI_MINOR;

/// The largest library file that is read.
const MAX_FILE: u64 = 1 << 30;

/// What a library says of itself, in plain values: it may come from another process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) summary: String,
    pub(super) schema_json: String,
    /// Capability bits.
    pub(super) capabilities: u64,
    /// BLAKE3 of the file, hexadecimal.
    pub(super) hash: String,
}

impl Description {
    /// Checks what the library says of itself; the schema of its settings.
    pub(super) fn check(&self) -> Result<Schema, LoadError> {
        let name = &self.name;
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            return bad(format!(
                "its name {name:?} must be 1 to 64 lower-case letters, digits and `-`"
            ));
        }
        let unknown = self.capabilities & !abi::ALL_CAPABILITIES;
        if unknown != 0 {
            return bad(format!(
                "it declares capabilities unknown to ABI {}.{} (bits {unknown:#x})",
                abi::ABI_MAJOR,
                abi::ABI_MINOR
            ));
        }
        Schema::parse(&self.schema_json)
    }
}

/// A library that passed the handshake.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) description: Description,
    pub(super) calls: Calls,
}

/// The functions of a plugin, all present.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calls {
    pub(super) state_version: u32,
    pub(super) create: abi::CreateFn,
    pub(super) phase_started: abi::PhaseStartedFn,
    pub(super) next_batch: abi::NextBatchFn,
    pub(super) observe: abi::ObserveFn,
    pub(super) save: abi::SaveFn,
    pub(super) load: abi::LoadFn,
    pub(super) destroy: abi::DestroyFn,
}

/// Loads a library into this process and checks its descriptor. It stays loaded until the process ends.
pub(super) fn load(path: &Path) -> Result<Library, LoadError> {
    let file = read(path)?;
    if cfg!(target_os = "linux") {
        super::elf::check(&file)?;
    }
    let hash = blake3::hash(&file).to_hex().to_string();
    drop(file);
    // A bare file name would be looked up in the system's library path.
    let path =
        std::path::absolute(path).map_err(|error| LoadError::Unreadable(error.to_string()))?;
    // Initialisers may set the mode of this thread's arithmetic, and go to another folder.
    let (float, here) = (FloatMode::now(), std::env::current_dir());
    let descriptor = entry(&path);
    float.restore();
    if let Ok(here) = here {
        // Where that folder is gone, nobody was in it.
        let _ = std::env::set_current_dir(here);
    }
    // SAFETY: it comes from the library's own symbol.
    unsafe { handshake(descriptor?, hash) }
}

/// Loads a library and calls its entry point.
fn entry(path: &Path) -> Result<*const Descriptor, LoadError> {
    // SAFETY: loading runs the library's initialisers, which is what the user asked for by placing it
    // in the search path and naming its strategy.
    let library = unsafe { libloading::Library::new(path) }.map_err(|error| {
        let reason = std::error::Error::source(&error).map_or(error.to_string(), |s| s.to_string());
        LoadError::Refused(reason)
    })?;
    // SAFETY: the symbol's type is fixed for every version of the ABI.
    let entry = unsafe { library.get::<abi::Entry>(abi::SYMBOL) };
    let entry = entry.map(|symbol| *symbol);
    // Descriptor, functions and threads of the plugin live in the library; if it is no plugin, its initialisers
    // may have started threads all the same.
    std::mem::forget(library);
    let entry = entry.map_err(|_| LoadError::NotAPlugin)?;
    // SAFETY: the function takes nothing and returns a pointer in every version.
    Ok(unsafe { entry() })
}

/// The bytes of a library file. Pipes, devices and files beyond all measure are refused unread.
fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |error: std::io::Error| LoadError::Unreadable(error.to_string());
    let data = std::fs::metadata(path).map_err(unreadable)?;
    let not = |why: String| Err(LoadError::NotALibrary(why));
    if !data.is_file() {
        return not("it is no regular file".into());
    }
    if data.len() > MAX_FILE {
        let len = data.len();
        return not(format!("it has {len} bytes; at most {MAX_FILE} are read"));
    }
    std::fs::read(path).map_err(unreadable)
}

/// Checks a descriptor field by field, without calling any of its functions.
///
/// # Safety
/// `raw` must be null or point to a descriptor, whatever its version.
pub(super) unsafe fn handshake(raw: *const Descriptor, hash: String) -> Result<Library, LoadError> {
    // SAFETY: the caller vouches for the pointer.
    let raw = unsafe { current_version(raw)? };
    let read = |what: &str, ptr, len, cap| {
        // SAFETY: the descriptor's texts are static, with the lengths it gives.
        unsafe { static_text(ptr, len, cap) }
            .map_err(|why| LoadError::BadDescriptor(format!("its {what} {why}")))
    };
    let schema = (raw.settings_schema, raw.settings_schema_len);
    let description = Description {
        name: read("name", raw.name, raw.name_len, abi::MAX_TEXT)?,
        version: read("version", raw.version, raw.version_len, abi::MAX_TEXT)?,
        summary: read("summary", raw.summary, raw.summary_len, abi::MAX_TEXT)?.replace('\n', " "),
        schema_json: read("settings schema", schema.0, schema.1, abi::MAX_SETTINGS)?,
        capabilities: raw.capabilities,
        hash,
    };
    description.check()?;
    let Some(calls) = calls(raw) else {
        return bad("one of its functions is null; all seven are mandatory");
    };
    Ok(Library { description, calls })
}

fn bad<T>(why: impl Into<String>) -> Result<T, LoadError> {
    Err(LoadError::BadDescriptor(why.into()))
}

/// The descriptor, if its magic, version and size are those of this ABI.
///
/// # Safety
/// As for [`handshake`].
unsafe fn current_version<'a>(raw: *const Descriptor) -> Result<&'a Descriptor, LoadError> {
    if raw.is_null() || !raw.is_aligned() {
        return bad("its descriptor is a null or misaligned pointer");
    }
    // SAFETY: the first four fields keep their place in every version.
    let (size, magic, major, minor) = unsafe {
        (
            (*raw).struct_size,
            (*raw).magic,
            (*raw).abi_major,
            (*raw).abi_minor,
        )
    };
    if magic != abi::MAGIC {
        return bad(format!(
            "its descriptor begins with {magic:#018x} where {:#018x} belongs",
            abi::MAGIC
        ));
    }
    if major != abi::ABI_MAJOR || !ACCEPTED_MINORS.contains(&minor) {
        let (from, to) = (ACCEPTED_MINORS.start(), ACCEPTED_MINORS.end());
        let accepted = if from == to {
            format!("{}.{to}", abi::ABI_MAJOR)
        } else {
            format!("{0}.{from} to {0}.{to}", abi::ABI_MAJOR)
        };
        return Err(LoadError::AbiMismatch {
            plugin: format!("{major}.{minor}"),
            host: accepted,
        });
    }
    let needed = size_of::<Descriptor>() as u64;
    if size < needed {
        return bad(format!(
            "its descriptor has {size} bytes, ABI {major}.{minor} needs {needed}"
        ));
    }
    // SAFETY: magic, version and size were checked, so all fields are there; a descriptor is static.
    Ok(unsafe { &*raw })
}

/// The plugin's functions, if none is null.
fn calls(raw: &Descriptor) -> Option<Calls> {
    Some(Calls {
        state_version: raw.state_version,
        create: raw.create?,
        phase_started: raw.phase_started?,
        next_batch: raw.next_batch?,
        observe: raw.observe?,
        save: raw.save?,
        load: raw.load?,
        destroy: raw.destroy?,
    })
}

/// Copies a text of the descriptor; an error says what the text is or has.
///
/// # Safety
/// `ptr` must be null or lead to `len` bytes.
unsafe fn static_text(ptr: *const u8, len: u64, cap: u64) -> Result<String, String> {
    if len > cap {
        return Err(format!("has {len} bytes; {cap} are allowed"));
    }
    if ptr.is_null() && len > 0 {
        return Err("is a null pointer".into());
    }
    // SAFETY: the caller vouches for pointer and length.
    let bytes = unsafe { super::raw::slice(ptr, len) };
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_string())?;
    Ok(text.into())
}

/// A plugin's own pointer to its instance.
pub(super) type Handle = *mut c_void;

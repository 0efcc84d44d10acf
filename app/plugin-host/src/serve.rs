//! What this program does as the child that a [`super::Helper`] starts.

use std::{ffi::OsString, io, path::Path};

use super::{
    child::Voice,
    look::{self, LOOK},
    trial::{self, TRY},
};

/// Does what the arguments after [`super::CHILD_COMMAND`] say, and tells of it on standard output.
///
/// # Errors
/// Where there is no such task, or standard output cannot be used.
pub fn serve(arguments: &[OsString]) -> io::Result<()> {
    let [task, library, rest @ ..] = arguments else {
        return Err(no_task());
    };
    let library = Path::new(library);
    let mut voice = Voice::take()?;
    match (task.to_str(), rest) {
        (Some(LOOK), []) => look::answer(library, &mut voice),
        (Some(TRY), [settings]) => trial::answer(library, &settings.to_string_lossy(), voice),
        _ => return Err(no_task()),
    }
    Ok(())
}

fn no_task() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "there is no such task for a child",
    )
}

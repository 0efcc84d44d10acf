//! Who could have put code into a file or folder: a library is loaded only if that is this user, the system's
//! administrator or whoever installed the lab.

use std::{fs::Metadata, os::unix::fs::MetadataExt, path::Path};

use super::LoadError;

/// Environment variable that, set to `1`, has libraries loaded that anybody could have put there.
pub const ALLOW_VARIABLE: &str = "FORGETLAB_ALLOW_UNSAFE_PLUGINS";

const WRITABLE_BY_ALL: u32 = 0o002;
/// In a folder with this bit only its owner replaces a file.
const STICKY: u32 = 0o1000;

/// Whose files are loaded.
#[derive(Debug)]
pub(super) struct Trust {
    /// User ids; `None`: everybody's.
    users: Option<Vec<u32>>,
}

impl Trust {
    /// As the user's environment says: everybody, or this user, root, and whoever owns the program that is running
    /// anyway.
    pub(super) fn from_env() -> Self {
        let everybody = std::env::var_os(ALLOW_VARIABLE).is_some_and(|value| value == "1");
        let me = rustix::process::geteuid().as_raw();
        let program = std::env::current_exe().and_then(std::fs::metadata);
        let users = [0, me]
            .into_iter()
            .chain(program.ok().map(|data| data.uid()));
        Self {
            users: (!everybody).then(|| users.collect()),
        }
    }

    /// Checks a file or folder, and says what to do where it is not to be trusted.
    pub(super) fn check(&self, path: &Path) -> Result<(), LoadError> {
        let data =
            std::fs::metadata(path).map_err(|error| LoadError::Unreadable(error.to_string()))?;
        match self.doubt(&data) {
            Some(doubt) => Err(LoadError::Untrusted(doubt)),
            None => Ok(()),
        }
    }

    fn doubt(&self, data: &Metadata) -> Option<String> {
        let users = self.users.as_ref()?;
        let (mode, owner) = (data.mode(), data.uid());
        let guarded = data.is_dir() && mode & STICKY != 0;
        if mode & WRITABLE_BY_ALL != 0 && !guarded {
            return Some(format!(
                "every user of this machine may write to it; `chmod o-w` ends that, {ALLOW_VARIABLE}=1 allows it"
            ));
        }
        (!users.contains(&owner)).then(|| {
            format!(
                "it belongs to another user (uid {owner}); copy it to a folder of your own, or, if you trust \
                 that user, set {ALLOW_VARIABLE}=1"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    /// Else whoever shares the machine could run code in somebody's name.
    #[test]
    fn what_others_may_write_or_own_is_named_and_not_trusted() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("library.so");
        std::fs::write(&file, "code").expect("write");
        let me = rustix::process::geteuid().as_raw();
        let of = |user| Trust {
            users: Some(vec![user]),
        };
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("mode");
        };
        // Group-writable is how many systems make every file.
        for (path, mode, trusted) in [
            (file.as_path(), 0o664, true),
            (&file, 0o666, false),
            (&file, 0o1666, false),
            (dir.path(), 0o775, true),
            (dir.path(), 0o777, false),
            (dir.path(), 0o1777, true),
        ] {
            set(path, mode);
            assert_eq!(of(me).check(path).is_ok(), trusted, "{mode:o}");
            assert!(Trust { users: None }.check(path).is_ok(), "{mode:o}");
        }
        set(&file, 0o644);
        let error = of(me + 1).check(&file).expect_err("foreign").to_string();
        assert!(error.contains(&format!("uid {me}")), "{error}");
        assert!(error.contains(ALLOW_VARIABLE), "{error}");
    }
}

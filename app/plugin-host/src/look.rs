//! A library looked at in a child process, which is named if the library crashes, hangs or ends it.

use std::{path::Path, time::Duration};

use super::{
    Helper, LoadError,
    child::{Heard, Voice, Word},
    library::{self, Description},
};

/// The child's task.
pub(super) const LOOK: &str = "look";
/// Time after which a library is told to be slow.
const SLOW: Duration = Duration::from_secs(1);
/// Time the child is given to end.
const GRACE: Duration = Duration::from_secs(1);

/// Looks at a library in a child, so that nothing of it gets into this process; what it says of itself, and the
/// beginning of what it printed.
pub(super) fn look_at(path: &Path, helper: &Helper) -> Result<(Description, String), LoadError> {
    let mut child = match helper.start(LOOK, path, &[]) {
        Ok(child) => child,
        Err(error) => return Err(LoadError::NotLookedAt(error.to_string())),
    };
    let heard = match child.next(SLOW.min(helper.limit)) {
        Heard::Nothing => {
            (helper.on_slow)(path, helper.limit);
            child.next(helper.limit.saturating_sub(SLOW))
        }
        heard => heard,
    };
    let word = match heard {
        Heard::Nothing => return Err(LoadError::Hung(helper.limit.as_secs())),
        Heard::End => return Err(LoadError::Crashed(child.end(GRACE).words())),
        Heard::Word(word) => *word,
    };
    let Word::Looked(looked) = word else {
        let why = "the process started for it is not of this version".into();
        return Err(LoadError::NotLookedAt(why));
    };
    Ok((looked?, child.end(GRACE).printed))
}

/// The child's side: loads the library and says what it is.
pub(super) fn answer(path: &Path, voice: &mut Voice) {
    let looked = library::load(path).map(|library| library.description);
    voice.say(&Word::Looked(looked));
}

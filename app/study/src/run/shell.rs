//! Words of a command that somebody can paste into a shell.

use std::borrow::Cow;
use std::path::Path;

use shlex::Quoter;

use crate::printed::one_line;

/// A word as a shell takes it: in quotes where it has to be, and on one line that does nothing to a terminal.
pub fn shell_word(word: &str) -> String {
    if matches!(one_line(word), Cow::Owned(_)) {
        return ansi_c_quoted(word);
    }
    let quoted = Quoter::new().allow_nul(true).quote(word);
    // Only a NUL could be refused, and these are allowed.
    quoted.map_or_else(|_| word.to_owned(), |quoted| quoted.into_owned())
}

/// `$'a\x1bb'`, which bash, zsh, ksh and newer shells take, with every byte by its code that is not ASCII and visible.
fn ansi_c_quoted(word: &str) -> String {
    let mut quoted = String::from("$'");
    for byte in word.bytes() {
        match byte {
            b'\'' | b'\\' => quoted.extend(['\\', byte.into()]),
            b' '..=b'~' => quoted.push(byte.into()),
            _ => quoted += &format!("\\x{byte:02x}"),
        }
    }
    quoted + "'"
}

/// A path as a shell takes it; never to be mistaken for an option.
pub fn shell_path(path: &Path) -> String {
    let path = path.to_string_lossy();
    if path.starts_with('-') {
        return shell_word(&format!("./{path}"));
    }
    shell_word(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command that was printed for pasting must name the same run when pasted.
    #[test]
    fn a_word_comes_out_of_the_shell_as_it_went_in() {
        for word in [
            "results/runs/20261123T130507Z-toy-continual-ab12",
            "none:kl:10",
        ] {
            assert_eq!(shell_word(word), word, "no quotes where none are needed");
        }
        for word in [
            "my run",
            "it's",
            "a\"b",
            "$HOME",
            "a`b`",
            "",
            "x+prompt=\"a/b c\"",
            "über",
        ] {
            assert_eq!(shlex::split(&shell_word(word)), Some(vec![word.to_owned()]));
        }
        assert_eq!(shell_path(Path::new("-v")), "./-v");
    }

    /// A folder's name must be able to be pasted, and not to clear the screen where the command is printed.
    #[test]
    fn a_word_that_a_terminal_would_obey_is_quoted_by_its_codes() {
        for word in ["a\u{1b}[2J", "it's\n\\new", "\u{202e}é\u{9b}1"] {
            let quoted = shell_word(word);
            assert!(quoted.bytes().all(|b| matches!(b, b' '..=b'~')), "{quoted}");
            let echo = std::process::Command::new("bash")
                .args(["-c", &format!("printf %s {quoted}")])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(echo.stdout).unwrap(), word, "{quoted}");
        }
    }
}

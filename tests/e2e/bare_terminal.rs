//! The lab on a terminal that can do nothing: it answers no query and never tells of a new size.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use forgetlab_tests::{Lab, binary, wait_for};

/// The lab on a terminal that `script` makes, whose other end only passes bytes on.
struct Bare {
    script: Child,
    /// Everything that the lab has written.
    written: Arc<Mutex<Vec<u8>>>,
}

impl Bare {
    fn open(lab: &Lab, variables: &str) -> Self {
        let lab_on_it = format!(
            "stty cols 80 rows 24; {variables} TERM=xterm exec {}",
            binary().display()
        );
        let mut command = Command::new("script");
        let model = lab.command(&[]);
        command.envs(model.get_envs().filter_map(|(k, v)| Some((k, v?))));
        command.current_dir(lab.path(""));
        command.args(["-qfec", &lab_on_it, "/dev/null"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = command.spawn().expect("script");
        let mut reader = script.stdout.take().expect("a pipe");
        let written = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&written);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = reader.read(&mut bytes) {
                if count == 0 {
                    return;
                }
                kept.lock().expect("bytes").extend(&bytes[..count]);
            }
        });
        Self { script, written }
    }

    fn press(&mut self, keys: &str) {
        let keyboard = self.script.stdin.as_mut().expect("a pipe");
        let pressed = keyboard.write_all(keys.as_bytes());
        pressed.and_then(|()| keyboard.flush()).expect("keys");
    }

    fn has_written(&self, text: &str) -> bool {
        let written = self.written.lock().expect("bytes");
        written
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    }

    #[track_caller]
    fn writes(&self, text: &str) {
        wait_for(text, || self.has_written(text));
    }

    /// Waits for the lab to end well, and for all of its last words.
    #[track_caller]
    fn ends(&mut self) {
        self.writes("\u{1b}[?1049l");
        let code = self.script.wait().expect("its end");
        assert!(code.success(), "{code}");
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// On a serial line, or under a program that only passes bytes on, the lab must open, show, and leave the terminal as
/// it was.
#[test]
fn a_terminal_that_answers_nothing_shows_the_lab_and_is_left_as_it_was() {
    let lab = Lab::new();
    lab.smoke(&["--arms", "none"]).exits(0);
    let mut bare = Bare::open(&lab, "");
    // Whole words only: what stands already is not written again.
    bare.writes("forgetlab");
    bare.writes("finished");
    bare.press("3");
    bare.writes("toy-continual");
    bare.press("?");
    bare.writes("Help");
    bare.press("q");
    bare.press("q");
    bare.ends();
    for left in ["\u{1b}[?1000l", "\u{1b}[?25h"] {
        assert!(bare.has_written(left), "{left:?}");
    }
    assert!(bare.has_written("\u{1b}[?1000h"), "clicks are asked for");
    // Every move of the mouse would be a message over the link.
    assert!(!bare.has_written("\u{1b}[?1003h"));
}

/// Who selects text with the mouse must be able to keep it.
#[test]
fn the_mouse_is_left_alone_where_it_is_not_wanted() {
    let lab = Lab::new();
    let mut bare = Bare::open(&lab, "FORGETLAB_MOUSE=0");
    bare.writes("experiment");
    bare.press("q");
    bare.ends();
    assert!(!bare.has_written("\u{1b}[?1000h"));
}

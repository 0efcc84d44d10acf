//! A terminal with the lab on it, for tests to press keys and read the screen: tmux.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use forgetlab_tests::{Lab, binary};
use rustix::process::Pid;

/// A tmux server of its own with the lab in its only window.
pub struct Terminal<'a> {
    lab: &'a Lab,
    /// Name of the server's socket, in the lab's folder.
    socket: &'static str,
}

impl<'a> Terminal<'a> {
    /// `None` only where tmux is missing on somebody's own machine; CI has it.
    pub fn open(lab: &'a Lab, width: u16, height: u16) -> Option<Self> {
        Self::open_with(lab, width, height, "")
    }

    /// Another one beside the first.
    pub fn open_beside(lab: &'a Lab, width: u16, height: u16) -> Option<Self> {
        Self::start(lab, "tmux-beside", width, height, "")
    }

    /// The same with arguments of the binary.
    pub fn open_with(lab: &'a Lab, width: u16, height: u16, args: &str) -> Option<Self> {
        Self::start(lab, "tmux", width, height, args)
    }

    fn start(
        lab: &'a Lab,
        socket: &'static str,
        width: u16,
        height: u16,
        args: &str,
    ) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "CI needs tmux");
            eprintln!("skipped: there is no tmux");
            return None;
        }
        let terminal = Self { lab, socket };
        let mut new = terminal.tmux(&["-f", "/dev/null", "new-session", "-d"]);
        let size = [("-x", width), ("-y", height)];
        for (flag, cells) in size {
            new.arg(flag).arg(cells.to_string());
        }
        new.arg(format!(
            "{} {args}; printf '\\r\\nleft with %s' $?; sleep 1000",
            binary().display()
        ));
        forgetlab_tests::run(&mut new);
        Some(terminal)
    }

    /// A command to the server.
    pub fn tmux(&self, args: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        let model = self.lab.command(&[]);
        command.envs(model.get_envs().filter_map(|(k, v)| Some((k, v?))));
        for name in ["TMUX", "FORGETLAB_PLUGINS", "LC_ALL", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.current_dir(self.lab.path(""));
        command.arg("-u").arg("-S").arg(self.lab.path(self.socket));
        command.args(args);
        command
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p"]).output().expect("tmux");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Presses keys, named as tmux names them.
    pub fn press(&self, keys: &[&str]) {
        forgetlab_tests::run(self.tmux(&["send-keys"]).args(keys));
    }

    /// Waits for the screen to be as it should.
    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if holds(&screen) {
                return screen;
            }
            let waited = start.elapsed().as_secs();
            assert!(waited < 120, "{what} never came to be on:\n{screen}");
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits for texts to be on the screen together.
    #[track_caller]
    pub fn shows(&self, texts: &[&str]) -> String {
        self.until(&format!("{texts:?}"), |screen| {
            texts.iter().all(|text| screen.contains(text))
        })
    }

    /// Chooses a preset in the form of a new run.
    pub fn choose_preset(&self, name: &str) {
        self.shows(&["experiment", "toy-continual", "Start"]);
        self.press(&["Down"]);
        self.shows(&["▸ preset"]);
        self.choose("▸ preset", name);
    }

    /// Turns to a choice in the row under the cursor.
    pub fn choose(&self, row: &str, name: &str) {
        let chosen = |screen: &str| {
            let line = screen.lines().find(|line| line.contains(row));
            let (_, choice) = line?.split_once('◂')?;
            Some(choice.split_once('▸')?.0.trim().to_owned())
        };
        for _ in 0..20 {
            let before = chosen(&self.screen());
            if before.as_deref() == Some(name) {
                return;
            }
            self.press(&["Right"]);
            // Only this key changes it, whatever else on the screen is still being read.
            self.until("another choice", |screen| {
                chosen(screen).is_some_and(|now| Some(now) != before)
            });
        }
        panic!("no {name} on:\n{}", self.screen());
    }

    /// What tmux knows of the pane, in its format.
    pub fn told(&self, format: &str) -> String {
        let mut tmux = self.tmux(&["display-message", "-p", format]);
        let told = tmux.output().expect("tmux").stdout;
        String::from_utf8_lossy(&told).trim().to_owned()
    }

    /// The process of the lab, which the pane's shell waits for.
    pub fn lab_pid(&self) -> Pid {
        let shell = self.told("#{pane_pid}");
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
        let children = children.expect("the shell's children");
        let child = children.split_whitespace().next().expect("the lab");
        Pid::from_raw(child.parse().expect("a process")).expect("a process")
    }

    /// Ends the server with everything in it.
    pub fn kill(&self) {
        let server = self.tmux(&["display-message", "-p", "#{pid}"]).output();
        let _ = self.tmux(&["kill-server"]).output();
        // A new one on the same socket must not meet it while it ends.
        let pid = server.map(|told| String::from_utf8_lossy(&told.stdout).trim().to_owned());
        let Ok(pid) = pid.unwrap_or_default().parse::<u32>() else {
            return;
        };
        let process = PathBuf::from(format!("/proc/{pid}"));
        let start = Instant::now();
        while process.exists() && start.elapsed() < Duration::from_secs(5) {
            sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

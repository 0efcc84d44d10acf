//! What the end-to-end tests share: the real binary and strategy libraries, and a lab of one's own.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) {
    let output = command.output().expect("start the command");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{errors}");
}

/// The folder of the profile this test was built in, e.g. `target/debug`.
fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    test.ancestors()
        .nth(2)
        .expect("target/PROFILE/deps/TEST")
        .to_owned()
}

/// Cargo without what `cargo test` tells its tests of their package: build scripts would take it for a change, and
/// all that depends on them be compiled again, here and by the next `cargo test`.
fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&*name);
        }
    }
    cargo
}

/// Builds the binary, the built-in strategies and the hostile one, once a process; their folder.
pub fn built() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = profile_dir();
        // First what a user's plain `cargo build` makes, with the same features.
        for packages in [&[][..], &["-p", "forgetlab-hostile"]] {
            let mut cargo = cargo();
            cargo.current_dir(root()).arg("build").args(packages);
            if dir.ends_with("release") {
                cargo.arg("--release");
            }
            let target = dir.parent().expect("target folder");
            #[cfg(feature = "stand-in")]
            if packages.is_empty() {
                cuda::build(&mut cargo, target);
            }
            run(cargo.arg("--target-dir").arg(target));
        }
        dir
    })
}

/// A build with CUDA, where neither CUDA nor a GPU is.
#[cfg(feature = "stand-in")]
pub mod cuda {
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::OnceLock;

    use super::{library, profile_dir, root, run};

    /// Lets Cargo build with CUDA: no kernel is compiled, and CUDA's libraries are looked for when they are called.
    pub(crate) fn build(cargo: &mut Command, target: &Path) {
        static LATE: OnceLock<PathBuf> = OnceLock::new();
        let late = LATE.get_or_init(|| {
            let late = target.join("cuda-late");
            let script = root().join("app/scripts/cuda_late.py");
            run(Command::new("python3").arg(script).arg(&late));
            late
        });
        let nvcc = root().join(".ci/fake-nvcc").canonicalize();
        cargo
            .args(["--features", "forgetlab/cuda"])
            .env("NVCC", nvcc.expect(".ci/fake-nvcc"))
            .env("CUDA_HOME", late)
            .env("CUDA_COMPUTE_CAP", "90")
            .env("CUDARC_CUDA_VERSION", "13000");
    }

    /// Names that CUDA's libraries are looked for by.
    pub const LIBRARIES: [&str; 5] = [
        "libcuda.so.1",
        "libcublas.so.13",
        "libcublasLt.so.13",
        "libcurand.so.10",
        "libnvrtc.so.13",
    ];

    /// Puts the stand-in for some of CUDA's libraries into a folder, for `CUDA_LIB_DIR`.
    pub fn stand_in(folder: &Path, libraries: &[&str]) {
        let stand_in = profile_dir()
            .join("deps")
            .join(library("forgetlab_cuda_stand_in"));
        std::fs::create_dir_all(folder).expect("folder");
        for name in libraries {
            std::os::unix::fs::symlink(&stand_in, folder.join(name)).expect("link");
        }
    }
}

/// The real binary.
pub fn binary() -> PathBuf {
    built().join(format!("forgetlab{}", std::env::consts::EXE_SUFFIX))
}

/// File name of a library.
pub fn library(name: &str) -> String {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    format!("{DLL_PREFIX}{name}{DLL_SUFFIX}")
}

/// Compiles a C file against the header.
pub fn compile_c(source: &Path, library: &Path, variant: Option<u32>) {
    let mut cc = Command::new("cc");
    cc.args([
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-cast-function-type",
    ]);
    cc.args(["-shared", "-fPIC", "-I"])
        .arg(root().join("plugin-api/include"));
    cc.args(variant.map(|variant| format!("-DVARIANT={variant}")));
    run(cc.arg("-o").args([library, source]));
}

/// Compiles the template in C into a folder, with texts of it changed and `more` behind it; the library.
pub fn altered_template(folder: &Path, changes: &[(&str, &str)], more: &str) -> PathBuf {
    let template = root().join("plugin-api/templates/strategy.c");
    let mut source = std::fs::read_to_string(template).expect("template");
    for (from, to) in changes {
        assert!(source.contains(from), "{from:?} is in the template");
        source = source.replace(from, to);
    }
    std::fs::create_dir_all(folder).expect("folder");
    let (file, built) = (folder.join("altered.c"), folder.join(library("altered")));
    std::fs::write(&file, source + more).expect("write");
    compile_c(&file, &built, None);
    built
}

/// Code that runs when a library is loaded.
pub fn when_loaded(code: &str) -> String {
    format!("__attribute__((constructor)) static void when_loaded(void) {{ {code} }}\n")
}

/// Builds the Rust template as a crate outside the workspace, in `folder`; its library.
pub fn build_crate_outside(folder: &Path) -> PathBuf {
    let write = |path: &str, text: &str| {
        std::fs::write(folder.join(path), text).expect("write");
    };
    std::fs::create_dir(folder.join("src")).expect("folder");
    let api = root()
        .join("plugin-api")
        .canonicalize()
        .expect("plugin-api");
    write(
        "Cargo.toml",
        &format!(
            "[package]\nname = \"mine\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
             [lib]\ncrate-type = [\"cdylib\"]\n\n\
             [dependencies]\nforgetlab-plugin-api = {{ path = {api:?} }}\n\n[workspace]\n"
        ),
    );
    let template = root().join("plugin-api/templates/strategy.rs");
    std::fs::copy(template, folder.join("src/lib.rs")).expect("copy");
    // The same versions as the workspace's, so that nothing need be looked up.
    std::fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).expect("copy");
    let target = profile_dir().join("../tmp/outside");
    let mut cargo = cargo();
    cargo
        .current_dir(folder)
        .args(["build", "--target-dir"])
        .arg(&target);
    run(&mut cargo);
    target.join("debug").join(library("mine"))
}

/// How a command of the lab ended.
pub struct Done {
    /// Exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exit code {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.code, self.out, self.err
        )
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Done {
    /// Demands an exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Demands texts somewhere in what was printed, and that nothing panicked.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            let said = self.out.contains(text) || self.err.contains(text);
            assert!(said, "{text:?} is not in:\n{self}");
        }
        assert!(!self.err.contains("bug in forgetlab"), "{self}");
        self
    }
}

/// A folder of results and a current folder of one's own.
pub struct Lab {
    dir: TempDir,
    /// Variables set for every command.
    set: BTreeMap<&'static str, String>,
}

/// Variables of whoever runs the tests, which would change what they find.
const FOREIGN: [&str; 19] = [
    "ALL_PROXY",
    "FORGETLAB_ALLOW_UNSAFE_PLUGINS",
    "FORGETLAB_PLUGINS",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_DOWNLOAD_TIMEOUT",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LC_ALL",
    "LC_CTYPE",
    "NO_COLOR",
    "XDG_CACHE_HOME",
    "all_proxy",
    "http_proxy",
    "https_proxy",
];

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// An empty lab.
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("temporary folder"),
            set: BTreeMap::new(),
        }
    }

    /// Sets a variable for the commands to come.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.set.insert(name, value.into());
    }

    /// A path in the lab's current folder.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// The binary with arguments, its environment made the same everywhere.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).current_dir(self.dir.path());
        for name in FOREIGN {
            command.env_remove(name);
        }
        command
            .env("FORGETLAB_RESULTS", self.path("results"))
            .env("HOME", self.dir.path())
            .env("LANG", "C.UTF-8")
            .envs(&self.set)
            .stdin(Stdio::null());
        command
    }

    /// The same, started by a shell that has run `script` before, e.g. `ulimit -n 24`.
    pub fn command_after(&self, script: &str, args: &[&str]) -> Command {
        let model = self.command(args);
        let mut command = Command::new("bash");
        for (name, value) in model.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
            .args(["-c", &format!("{script}; exec \"$0\" \"$@\"")])
            .arg(binary())
            .args(args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end, started by a shell that has run `script` before.
    pub fn after(&self, script: &str, args: &[&str]) -> Done {
        let output = self.command_after(script, args).output();
        output.expect("start bash").into()
    }

    /// Runs the binary to its end.
    pub fn forgetlab(&self, args: &[&str]) -> Done {
        self.command(args).output().expect("start forgetlab").into()
    }

    /// `forgetlab run toy-continual --preset smoke --threads 1` and more, to its end.
    pub fn smoke(&self, more: &[&str]) -> Done {
        self.forgetlab(&[SMOKE, more].concat())
    }

    /// Starts the binary; what it prints is kept for [`Live::end`].
    pub fn start(&self, args: &[&str]) -> Live {
        Live::start(&mut self.command(args))
    }

    /// Run directories under `results/runs`, oldest first.
    pub fn runs(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.path("results/runs")) else {
            return Vec::new();
        };
        let mut runs: Vec<PathBuf> = entries.map(|e| e.expect("entry").path()).collect();
        runs.sort();
        runs
    }
}

/// Whatever was started in the lab ends with it, also where the test failed: workers are in
/// sessions of their own, and would go on.
impl Drop for Lab {
    fn drop(&mut self) {
        use rustix::process::{Pid, Signal, kill_process};
        let mark = format!("FORGETLAB_RESULTS={}\0", self.path("results").display());
        let start = Instant::now();
        // Again, until none is left that could have started another.
        while start.elapsed() < Duration::from_secs(10) {
            let here: Vec<Pid> = processes()
                .filter(|pid| {
                    let path = format!("/proc/{}/environ", pid.as_raw_nonzero());
                    let environment = std::fs::read(path).unwrap_or_default();
                    let mut parts = environment.windows(mark.len());
                    parts.any(|part| part == mark.as_bytes())
                })
                .collect();
            if here.is_empty() {
                return;
            }
            for pid in here {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Every process there is; none where there is no `/proc`.
fn processes() -> impl Iterator<Item = rustix::process::Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(rustix::process::Pid::from_raw)
}

/// A small run in one thread.
pub const SMOKE: &[&str] = &[
    "run",
    "toy-continual",
    "--preset",
    "smoke",
    "--threads",
    "1",
];

/// A process that is killed when the test is over, whatever became of it.
pub struct Live(Option<Child>);

impl Live {
    /// Starts a command; what it prints is kept for [`Live::end`].
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(child.spawn().expect("start forgetlab")))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("not ended yet")
    }

    /// Its process.
    pub fn pid(&mut self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.child())
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: rustix::process::Signal) {
        let pid = self.pid();
        // It may have come to its end meanwhile.
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child().try_wait().expect("wait").is_none()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Done {
        let child = self.0.take().expect("not ended yet");
        child.wait_with_output().expect("wait").into()
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) -> Done {
        self.signal(rustix::process::Signal::KILL);
        self.end()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until something holds; far longer than any machine should need.
#[track_caller]
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "waited two minutes for {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Lines of a run's events so far.
pub fn events(run: &Path) -> usize {
    let bytes = std::fs::read(run.join("events.jsonl")).unwrap_or_default();
    bytes.iter().filter(|&&b| b == b'\n').count()
}

/// Whether a run's events hold a text.
pub fn events_say(run: &Path, text: &str) -> bool {
    let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
    events.contains(text)
}

/// A CSV file read whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// A row's fields by column.
    pub rows: Vec<BTreeMap<String, String>>,
}

impl Table {
    /// Reads a file.
    #[track_caller]
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::parse(&text)
    }

    /// Reads a text.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().expect("header");
        let columns: Vec<String> = header.iter().map(str::to_owned).collect();
        let row = |record: csv::StringRecord| {
            let fields = record.iter().map(str::to_owned);
            columns.iter().cloned().zip(fields).collect()
        };
        let rows = reader.records().map(|r| row(r.expect("row"))).collect();
        Self { columns, rows }
    }

    /// Without the columns that tell wall-clock time.
    pub fn timeless(mut self) -> Self {
        self.columns.retain(|c| !c.starts_with("seconds"));
        for row in &mut self.rows {
            row.retain(|c, _| !c.starts_with("seconds"));
        }
        self
    }

    /// The different values of a column, in order of appearance.
    pub fn values(&self, column: &str) -> Vec<&str> {
        let mut values: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !values.contains(&row[column].as_str()) {
                values.push(&row[column]);
            }
        }
        values
    }

    /// The rows of an arm.
    pub fn arm(&self, name: &str) -> Vec<&BTreeMap<String, String>> {
        self.rows.iter().filter(|r| r["arm"] == name).collect()
    }
}

/// Everything in a run's CSVs, and of its training, that must not depend on when and where it ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    metrics: Table,
    summary: Table,
    plugin_metrics: String,
    training: BTreeMap<String, Vec<Value>>,
}

impl Figures {
    /// Reads them from a run directory.
    #[track_caller]
    pub fn of(run: &Path) -> Self {
        let plugin_metrics = run.join("plugin_metrics.csv");
        Self {
            metrics: Table::read(&run.join("metrics.csv")).timeless(),
            summary: Table::read(&run.join("summary.csv")).timeless(),
            plugin_metrics: std::fs::read_to_string(plugin_metrics).expect("plugin_metrics.csv"),
            training: training(run),
        }
    }

    /// The same whatever order the arms have.
    pub fn in_any_order(mut self) -> Self {
        self.metrics.rows.sort();
        self.summary.rows.sort();
        let mut lines: Vec<&str> = self.plugin_metrics.lines().collect();
        lines.sort_unstable();
        self.plugin_metrics = lines.join("\n");
        self
    }

    /// Those of one arm with one seed, what strategies reported apart.
    pub fn of_arm(&self, name: &str, seed: &str) -> Self {
        let mut own = self.clone();
        let is_own = |row: &BTreeMap<String, String>| row["arm"] == name && row["seed"] == seed;
        own.metrics.rows.retain(&is_own);
        own.summary.rows.retain(&is_own);
        own.plugin_metrics.clear();
        let slug = format!("{}-seed{seed}", name.replace(':', "-"));
        own.training.retain(|arm, _| *arm == slug);
        assert_eq!(own.training.len(), 1, "{slug}");
        own
    }

    /// Demands that both be equal, telling only the first difference.
    #[track_caller]
    pub fn must_equal(&self, other: &Self, why: &str) {
        for (a, b) in [
            (&self.metrics, &other.metrics),
            (&self.summary, &other.summary),
        ] {
            assert_eq!(a.columns, b.columns, "{why}");
            for (a, b) in a.rows.iter().zip(&b.rows) {
                assert_eq!(a, b, "{why}");
            }
            assert_eq!(a.rows.len(), b.rows.len(), "{why}");
        }
        assert_eq!(self.plugin_metrics, other.plugin_metrics, "{why}");
        assert_eq!(self.training, other.training, "{why}");
    }
}

/// Figures of training of every arm, by its slug, as a run's events have them in the end.
#[track_caller]
pub fn training(run: &Path) -> BTreeMap<String, Vec<Value>> {
    let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
    let mut arms: Vec<(String, Vec<Value>)> = Vec::new();
    for line in events.lines() {
        // A line that a kill has torn is none.
        let Ok(mut event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let slug = |arm: &Value| arm["slug"].as_str().expect("a slug").to_owned();
        let step = event["step"].as_u64();
        let arm = event["arm"].as_u64().map(|arm| arm as usize);
        match (event["event"].as_str(), arm, step) {
            (Some("run_started"), ..) => {
                let all = event["arms"].as_array().into_iter().flatten();
                arms = all.map(|arm| (slug(arm), Vec::new())).collect();
            }
            (Some("arm_added"), ..) => {
                let more = event["arms"].as_array().into_iter().flatten();
                arms.extend(more.map(|arm| (slug(arm), Vec::new())));
            }
            (Some("rewound"), Some(arm), Some(step)) => {
                arms[arm]
                    .1
                    .retain(|point| point["step"].as_u64() <= Some(step));
            }
            (Some("trained"), Some(arm), Some(_)) => {
                let fields = event.as_object_mut().expect("an object");
                fields.retain(|key, _| !["v", "seq", "time", "arm", "c"].contains(&&**key));
                arms[arm].1.push(event);
            }
            _ => {}
        }
    }
    arms.into_iter().collect()
}

/// A small random stream, the same every time.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }
}

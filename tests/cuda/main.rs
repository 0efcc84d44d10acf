//! The binary that users of a GPU have, with a stand-in for CUDA's libraries: every call of it is checked, and the
//! engine's kernels run as C.
//!
//! `cargo test --workspace --features forgetlab-tests/stand-in --test cuda`; it builds with CUDA first.

mod faults;
mod full;
mod launches;
mod memory;
mod resumes;
mod runs;
mod without;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use forgetlab_tests::Lab;
use forgetlab_tests::cuda::{LIBRARIES, stand_in};
use serde_json::Value;

/// Fixtures of families of models near Llama.
const FAMILIES: [&str; 8] = [
    "gemma3",
    "granite",
    "mistral",
    "mistral_window",
    "olmo2",
    "qwen2",
    "qwen3",
    "smollm3",
];

/// A lab with a GPU, as far as the binary can tell; every process there leaves a report.
fn lab() -> Lab {
    let mut lab = Lab::new();
    let (libraries, reports) = (lab.path("cuda"), lab.path("reports"));
    stand_in(&libraries, &LIBRARIES);
    fs::create_dir(&reports).expect("folder");
    lab.set("CUDA_LIB_DIR", libraries.to_str().expect("UTF-8"));
    lab.set("STAND_IN_REPORT", reports.to_str().expect("UTF-8"));
    lab
}

/// What all processes of a lab asked of the card.
struct Asked(Vec<Value>);

impl Asked {
    fn of(lab: &Lab) -> Self {
        let entries = fs::read_dir(lab.path("reports")).expect("reports");
        let read = |path: &Path| fs::read_to_string(path).expect("a report");
        let reports = entries.map(|entry| read(&entry.expect("entry").path()));
        // A process that never waited for the card wrote nothing.
        let reports = reports.filter(|text| !text.is_empty());
        Self(
            reports
                .map(|text| serde_json::from_str(&text).expect("JSON"))
                .collect(),
        )
    }

    /// Numbers by name under a key, summed over the processes.
    fn by_name(&self, key: &str) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for report in &self.0 {
            for (name, n) in report[key].as_object().expect("numbers by name") {
                *sums.entry(name.clone()).or_default() += n.as_u64().expect("a number");
            }
        }
        sums
    }

    /// A number, of the process that has the largest.
    fn largest(&self, pointer: &str) -> u64 {
        let number = |report: &Value| report.pointer(pointer)?.as_u64();
        let numbers = self.0.iter().filter_map(number);
        numbers.max().expect("a report")
    }

    /// A number, summed over the processes.
    fn sum(&self, pointer: &str) -> u64 {
        let number = |report: &Value| report.pointer(pointer)?.as_u64();
        self.0
            .iter()
            .map(|report| number(report).expect("a number"))
            .sum()
    }
}

//! The environment of a run: versions, device, strategy libraries.

use serde::{Deserialize, Serialize};

use crate::experiment::Precision;

/// A run's `environment.json`: everything outside the configuration that may decide its numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of forgetlab.
    pub forgetlab: String,
    /// Version of the engine's numerics: changes when the same settings would give other bits.
    pub numerics: String,
    /// Operating system and architecture, e.g. `linux x86_64`.
    pub platform: String,
    /// Device, e.g. `cpu` or `cuda:0 (NVIDIA H100 80GB HBM3)`.
    pub device: String,
    /// Instruction set of the kernels, e.g. `avx512f`.
    pub instruction_set: String,
    /// CPU threads of the engine.
    pub threads: usize,
    /// Format of the matrix products' inputs.
    #[serde(default)]
    pub precision: Precision,
    /// Strategy libraries of the arms.
    pub plugins: Vec<PluginRecord>,
    /// Commit the binary was built from, `-dirty` behind it where the sources were changed, or words where it is
    /// not known; `None` in runs of older versions.
    #[serde(default)]
    pub commit: Option<String>,
    /// Model of the CPU, where the system tells.
    #[serde(default)]
    pub cpu: Option<String>,
    /// Version of the GPU's driver, on a GPU, where the system tells.
    #[serde(default)]
    pub driver: Option<String>,
    /// Newest version of CUDA that the driver is made for, on a GPU.
    #[serde(default)]
    pub cuda: Option<String>,
    /// Version of cuBLAS, which makes the products of matrices on a GPU.
    #[serde(default)]
    pub cublas: Option<String>,
    /// Most bytes of the machine's memory that a worker of the run has used so far, where the system tells.
    #[serde(default)]
    pub peak_memory_bytes: Option<u64>,
}

/// A strategy library as it was when the run used it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRecord {
    /// Name of the strategy.
    pub name: String,
    /// Version the library states.
    pub version: String,
    /// blake3 of the library file, in hex.
    pub hash: String,
    /// Where it was loaded from.
    pub path: String,
}

impl Environment {
    /// The differences between the environment a run was started in (`self`) and the one it resumes in
    /// that may change its numbers, in words. Libraries are compared by their hash, not their path; CPU models
    /// are told where their instruction sets differ. Commits and memory are not compared.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, then: &str, now: &str| {
            if then != now {
                differences.push(format!("{what} was `{then}`, is `{now}`"));
            }
        };
        compare("forgetlab version", &self.forgetlab, &now.forgetlab);
        compare("numerics version", &self.numerics, &now.numerics);
        compare("platform", &self.platform, &now.platform);
        compare("device", &self.device, &now.device);
        compare(
            "instruction set",
            &self.instruction_set,
            &now.instruction_set,
        );
        if let (Some(then), Some(now_cpu)) = (&self.cpu, &now.cpu)
            && self.instruction_set != now.instruction_set
        {
            compare("CPU", then, now_cpu);
        }
        // The driver compiles the kernels.
        for (what, then, now) in [
            ("driver", &self.driver, &now.driver),
            ("CUDA of the driver", &self.cuda, &now.cuda),
            ("cuBLAS", &self.cublas, &now.cublas),
        ] {
            if let (Some(then), Some(now)) = (then, now) {
                compare(what, then, now);
            }
        }
        compare(
            "threads",
            &self.threads.to_string(),
            &now.threads.to_string(),
        );
        compare("precision", self.precision.name(), now.precision.name());
        for then in &self.plugins {
            match now.plugins.iter().find(|p| p.name == then.name) {
                None => {
                    differences.push(format!("strategy `{}` is not loaded any more", then.name));
                }
                Some(now) if now.hash != then.hash => differences.push(format!(
                    "strategy `{}` is another library now (version {}, was {})",
                    then.name, now.version, then.version
                )),
                Some(_) => {}
            }
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Someone who resumes on another machine must hear that bits may differ, and why.
    #[test]
    fn another_instruction_set_and_library_are_named() {
        let plugin = |hash: &str, path: &str| PluginRecord {
            name: "none".into(),
            version: "0.1.0".into(),
            hash: hash.into(),
            path: path.into(),
        };
        let then = Environment {
            instruction_set: "avx512f".into(),
            cpu: Some("one".into()),
            commit: Some("a1".into()),
            plugins: vec![plugin("aa", "/a")],
            ..Environment::default()
        };
        let mut now = then.clone();
        now.plugins[0].path = "/elsewhere".into();
        assert!(then.differences(&now).is_empty());
        // What is only to be known, not to be warned of.
        now.commit = Some("b2-dirty".into());
        now.peak_memory_bytes = Some(1 << 30);
        now.cpu = Some("another of the same kind".into());
        assert!(then.differences(&now).is_empty());
        now.instruction_set = "avx2".into();
        now.plugins[0].hash = "bb".into();
        now.cublas = Some("13.0.2".into());
        assert!(!then.differences(&now).join("\n").contains("cuBLAS"));
        let then = Environment {
            cublas: Some("12.8.4".into()),
            ..then
        };
        let differences = then.differences(&now).join("\n");
        assert!(
            differences.contains("avx512f") && differences.contains("another library"),
            "{differences}"
        );
        assert!(differences.contains("CPU was `one`"), "{differences}");
        assert!(
            differences.contains("cuBLAS was `12.8.4`, is `13.0.2`"),
            "{differences}"
        );
    }

    /// Else no run from before could be resumed.
    #[test]
    fn environments_of_older_runs_are_read() {
        let now = Environment {
            commit: Some("a1".into()),
            cpu: Some("one".into()),
            peak_memory_bytes: Some(5),
            driver: Some("580.65.06".into()),
            cuda: Some("13.0".into()),
            cublas: Some("13.0.2".into()),
            ..Environment::default()
        };
        let mut older = serde_json::to_value(&now).unwrap();
        for key in [
            "commit",
            "cpu",
            "peak_memory_bytes",
            "driver",
            "cuda",
            "cublas",
        ] {
            assert!(older.as_object_mut().unwrap().remove(key).is_some());
        }
        let older: Environment = serde_json::from_value(older).unwrap();
        assert_eq!(older, Environment::default());
        assert!(older.differences(&now).is_empty());
    }
}

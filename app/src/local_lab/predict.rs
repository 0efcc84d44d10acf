//! What a run to come will take, as `run --dry-run` tells it.

use anyhow::Context;
use forgetlab_tui::lab::{Prediction, StartRequest};
use serde_json::Value;

use super::{LocalLab, Scratch, config, sweeps};

impl LocalLab {
    /// What a run, or all points of a sweep, will take.
    pub(super) fn predicted(&self, request: &StartRequest) -> anyhow::Result<Prediction> {
        let output = if sweeps::is_sweep(request)? {
            let mut arguments = sweeps::arguments(request)?;
            arguments.extend(["--dry-run".to_owned(), "--json".to_owned()]);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            self.call_self(&arguments)?
        } else {
            let scratch = Scratch::new()?;
            let file = scratch.path("run.toml");
            std::fs::write(&file, toml::to_string(&config(request)?)?)?;
            let file = file
                .to_str()
                .context("the temporary folder's name is not UTF-8")?;
            self.call_self(&["run", file, "--dry-run", "--json"])?
        };
        let mut all = Prediction {
            seconds: Some(0.0),
            ..Prediction::default()
        };
        for line in output.lines().filter(|line| !line.trim().is_empty()) {
            add(
                &mut all,
                &serde_json::from_str(line).context("what `run --dry-run` said is no JSON")?,
            );
        }
        Ok(all)
    }
}

/// Adds what one run will take.
fn add(all: &mut Prediction, run: &Value) {
    let number = |key: &str| run.get(key).and_then(Value::as_f64);
    all.tokens += number("tokens").unwrap_or(0.0) as u64;
    all.generated += number("tokens_generated").unwrap_or(0.0) as u64;
    all.flops += number("flops").unwrap_or(0.0);
    all.at_most |= run.get("at_most").and_then(Value::as_bool).unwrap_or(false);
    all.memory = all
        .memory
        .max(number("memory_bytes").map(|bytes| bytes as u64));
    all.seconds = all.seconds.zip(number("seconds")).map(|(a, b)| a + b);
    if let Some(from) = run.get("seconds_from").and_then(Value::as_str) {
        from.clone_into(&mut all.seconds_from);
    }
    let warnings = run
        .get("warnings")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let notes = warnings.chain(run.get("problem")).filter_map(Value::as_str);
    for note in notes {
        if !all.notes.iter().any(|known| known == note) {
            all.notes.push(note.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A sweep that is said to take what one point takes would be started before a weekend by mistake.
    #[test]
    fn the_points_of_a_sweep_add_up_and_what_is_not_known_stays_so() {
        let mut all = Prediction {
            seconds: Some(0.0),
            ..Prediction::default()
        };
        let point = |seconds: Value, memory: u64| {
            json!({
                "tokens": 100, "tokens_generated": 20, "flops": 1e6, "memory_bytes": memory, "seconds": seconds,
                "seconds_from": "past runs", "warnings": ["slow"], "problem": null, "at_most": false,
            })
        };
        add(&mut all, &point(json!(2.5), 10));
        add(&mut all, &point(json!(4.0), 30));
        assert_eq!(
            (all.tokens, all.generated, all.memory, all.seconds),
            (200, 40, Some(30), Some(6.5))
        );
        assert_eq!(all.notes, ["slow"]);
        add(&mut all, &point(Value::Null, 20));
        assert_eq!(all.seconds, None);
    }
}

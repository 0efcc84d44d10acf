//! The content hash of the shared first phase.

use serde_json::{Value, json};

use super::{GENERATION_BYTES, PhaseSpec, RunConfig};

/// What a phase in the cache has besides evaluations; phases of versions that recorded less are trained again.
const RECORDS: [&str; 1] = ["training"];

/// Content hash of the first phase of a seed: equal exactly when the phase would give the same
/// weights and the same evaluations. `numerics` names the version of the engine's numerics and
/// the instruction set.
pub fn first_phase_hash(config: &RunConfig, seed: u64, numerics: &str) -> String {
    // Every dataset is evaluated in the first phase, so all their names are hashed. Checkpoint intervals
    // and activation recomputation do not change the result and are not.
    let RunConfig {
        model,
        data,
        optimizer,
        training,
        phases,
        device,
        threads,
        precision,
        ..
    } = config;
    if let Some((model, data)) = config.regression() {
        // Settings of the second phase decide nothing of the first, nor do threads.
        let inputs = json!({
            "model": model,
            "data": data,
            "eval_every": config.in_phase(0).eval_every,
            "seed": seed,
            "numerics": numerics,
            "records": RECORDS,
        });
        return hex(&inputs);
    }
    let datasets: Vec<&str> = phases
        .iter()
        .map(|PhaseSpec { dataset, .. }| &**dataset)
        .collect();
    let mut inputs = json!({
        "model": model,
        "data": data,
        "optimizer": optimizer,
        "batch_size": training.batch_size,
        "micro_batch": training.micro_batch,
        "eval_every": training.eval_every,
        "eval_rows": training.eval_rows,
        "first": phases.first(),
        "datasets": datasets,
        "seed": seed,
        "device": device,
        "threads": threads,
        "precision": precision,
        "numerics": numerics,
        // What the cost of an evaluation counts: phases of versions that counted less are trained again.
        "costs": ["tokens", "seconds", "flops"],
        "records": RECORDS,
    });
    if training.eval_growth != 0.0 {
        inputs["eval_growth"] = json!(training.eval_growth);
    }
    // Decides no weight, but what is recorded and what evaluations cost.
    if let Some(samples) = training.samples.filter(|samples| *samples > 0) {
        inputs["samples"] = json!(samples);
        // Rows beside others may have other last bits there.
        if device != "cpu" && training.generation_bytes != GENERATION_BYTES {
            inputs["generation_bytes"] = json!(training.generation_bytes);
        }
    }
    // Says which of its rows are of the dataset that is mixed in.
    if phases.first().is_some_and(|first| first.mix.is_some()) {
        inputs["fractions"] = json!(config.replay.fractions);
    }
    hex(&inputs)
}

fn hex(inputs: &Value) -> String {
    blake3::hash(inputs.to_string().as_bytes())
        .to_hex()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::super::{Fractions, MixSpec, Overrides, Precision, resolve};
    use super::*;

    /// A stale cache hit would be a wrong result that nobody notices.
    #[test]
    fn the_hash_follows_what_matters_and_nothing_else() {
        let config = resolve("toy-continual", &Overrides::default()).unwrap();
        let hash = first_phase_hash(&config, 0, "1");
        let changed = |change: fn(&mut RunConfig)| {
            let mut config = config.clone();
            change(&mut config);
            first_phase_hash(&config, 0, "1") != hash
        };
        assert!(changed(|c| c.optimizer.lr *= 2.0));
        assert!(changed(|c| c.phases[0].steps += 1));
        assert!(changed(|c| c.phases[3].dataset = "add".into()));
        assert!(changed(|c| c.threads += 1));
        assert!(changed(|c| c.precision = Precision::Bf16));
        assert!(changed(|c| c.training.eval_rows += 1));
        assert!(changed(|c| c.training.micro_batch = 1));
        assert!(changed(|c| c.training.eval_growth = 0.1));
        assert!(changed(|c| c.training.samples = Some(2)));
        assert!(
            !changed(|c| c.training.samples = Some(0)),
            "phases of older versions have none"
        );
        let on_gpu = |bytes| {
            let mut config = config.clone();
            (config.device, config.training.samples) = ("cuda".into(), Some(2));
            config.training.generation_bytes = bytes;
            first_phase_hash(&config, 0, "1")
        };
        assert_ne!(on_gpu(1), on_gpu(GENERATION_BYTES));
        assert!(!changed(|c| c.training.generation_bytes = 1));
        assert!(changed(|c| c.phases[0].target_loss = Some(1.0)));
        assert_ne!(first_phase_hash(&config, 1, "1"), hash);
        assert_ne!(first_phase_hash(&config, 0, "2"), hash);
        let mixed = |fractions| {
            let mut config = config.clone();
            let dataset = config.phases[1].dataset.clone();
            config.phases[0].mix = Some(MixSpec {
                dataset,
                share: 0.1,
            });
            config.replay.fractions = fractions;
            first_phase_hash(&config, 0, "1")
        };
        assert_ne!(mixed(Fractions::Drop), mixed(Fractions::Carry));
        assert!(!changed(|c| c.replay.fractions = Fractions::Drop));
        assert!(!changed(|c| c.phases[3].steps += 1));
        assert!(!changed(|c| c.arms.truncate(1)));
        assert!(!changed(|c| c.replay.coeff = 1.0));
        assert!(!changed(|c| c.training.checkpoint_seconds = 1.0));
        assert!(!changed(|c| c.training.recompute = true));
    }
}

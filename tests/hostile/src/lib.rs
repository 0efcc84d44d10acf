//! A strategy that misbehaves in the way its setting `mode` names, from step `from_step` of the arm.

use std::{thread, time::Duration};

use forgetlab_plugin_api::{
    Batch, Capabilities, Error, Generate, Host, Level, Model, Observation, Phase, RowObjective,
    Sequences, Settings, Step, Strategy, Teacher, export_strategy,
};

struct Hostile {
    mode: String,
    from_step: u64,
    batches: u64,
}

impl Strategy for Hostile {
    const NAME: &'static str = "hostile";
    const SUMMARY: &'static str = "misbehaves in the way a setting names";
    const SETTINGS: &'static str = r#"{
        "type": "object",
        "properties": {
            "mode": {
                "type": "string", "default": "none",
                "enum": [
                    "none", "panic-create", "fail-create", "panic-phase", "panic", "panic-observe",
                    "panic-save", "fail", "retry", "cancel", "abort", "loop", "slow",
                    "loop-save", "waits",
                    "ids", "padding-ids", "zero-length", "long-length", "nan-weight",
                    "negative-weight", "padding-weight", "many-rows", "long-rows", "no-rows",
                    "lengths-differ", "nan-coeff", "undeclared-teacher", "own-objectives",
                    "bad-prompt", "unsupported", "forgets-state", "huge-text", "raves",
                    "draws-without-end"
                ],
                "description": "how it misbehaves"
            },
            "from_step": {
                "type": "integer", "minimum": 0, "default": 0,
                "description": "step of the arm from which it misbehaves in next_batch"
            }
        }
    }"#;
    const CAPABILITIES: Capabilities = Capabilities::NEEDS_OLD_DATA;

    fn create(settings: &Settings, _: &mut Host) -> Result<Self, Error> {
        let mode = settings.text("mode")?.to_owned();
        match mode.as_str() {
            "panic-create" => panic!("told to panic in create"),
            "fail-create" => Err("told to fail in create".into()),
            _ => Ok(Hostile {
                mode,
                from_step: settings.integer("from_step")?,
                batches: 0,
            }),
        }
    }

    fn phase_started(&mut self, _: &Phase, _: &mut Host) -> Result<(), Error> {
        assert_ne!(self.mode, "panic-phase", "told to panic in phase_started");
        Ok(())
    }

    fn next_batch(&mut self, step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
        self.batches += 1;
        if step.phase.old_tasks.is_empty() {
            return Ok(None);
        }
        let mode = if step.step < self.from_step {
            "none"
        } else {
            self.mode.as_str()
        };
        if mode == "forgets-state" && self.batches > 6 {
            return Ok(None);
        }
        let vocab = step.phase.vocab_size;
        let mut batch: Batch = host.draw_old(step.rows)?.into();
        let rows = &mut batch.sequences;
        let seq_len = rows.seq_len;
        let mut weights = vec![1.0; rows.tokens.len()];
        match mode {
            "panic" => panic!("told to panic in next_batch"),
            "fail" => return Err("told to fail".into()),
            "huge-text" => return Err(format!("\u{1b}[31m{}", "long ".repeat(10_000)).into()),
            "retry" => return Err(Error::Retry("told to retry for ever".into())),
            "cancel" => return Err(Error::Cancelled),
            "abort" => {
                host.log(Level::Warn, "about to abort")?;
                std::process::abort()
            }
            "raves" => {
                for line in 0..1000 {
                    host.log(Level::Info, &format!("line {line}"))?;
                    host.metric("wandering", f64::from(line))?;
                }
            }
            "loop" => loop {
                thread::sleep(Duration::from_millis(50));
            },
            "waits" => return wait_until_cancelled(host),
            "slow" => thread::sleep(Duration::from_millis(300)),
            "ids" => rows.tokens[seq_len + 1] = vocab,
            "padding-ids" => {
                rows.lengths[0] -= 1;
                rows.tokens[seq_len - 1] = u32::MAX;
            }
            "zero-length" => rows.lengths[1] = 0,
            "long-length" => rows.lengths[1] = seq_len as u32 + 1,
            "nan-weight" => weights[1] = f32::NAN,
            "negative-weight" => weights[1] = -1.0,
            "padding-weight" => rows.lengths[0] -= 1,
            "many-rows" => {
                let row = rows.row(0).to_vec();
                *rows = Sequences::from_rows(&vec![row; step.phase.max_rows + 1], 0);
                weights = vec![1.0; rows.tokens.len()];
            }
            "long-rows" => {
                let row = vec![1; step.phase.max_seq_len + 1];
                *rows = Sequences::from_rows(&[row], 0);
                weights = vec![1.0; rows.tokens.len()];
            }
            "no-rows" => {
                *rows = Sequences::default();
                weights.clear();
            }
            "lengths-differ" => drop(rows.lengths.pop()),
            "nan-coeff" => batch.coeff = Some(f64::NAN),
            "undeclared-teacher" => batch.teacher = Teacher::Snapshot(1),
            "own-objectives" => {
                batch.row_objectives = Some(vec![RowObjective::Ntp; rows.rows()]);
            }
            "bad-prompt" => drop(host.generate(&Generate::new(vec![vec![vocab]], 4))?),
            "draws-without-end" => loop {
                host.draw_old(step.phase.max_rows * 100)?;
            },
            "unsupported" => drop(host.keep_snapshot(Model::Student)?),
            _ => {}
        }
        if mode.ends_with("weight") {
            batch.sequences.weights = Some(weights);
        }
        Ok(Some(batch))
    }

    fn observe(&mut self, _: &Observation, _: &mut Host) -> Result<(), Error> {
        assert_ne!(self.mode, "panic-observe", "told to panic in observe");
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>, Error> {
        assert_ne!(self.mode, "panic-save", "told to panic in save");
        match self.mode.as_str() {
            "loop-save" => loop {
                thread::sleep(Duration::from_millis(50));
            },
            "forgets-state" => Ok(Vec::new()),
            _ => Ok(self.batches.to_le_bytes().to_vec()),
        }
    }

    fn load(&mut self, _: u32, state: &[u8], _: Option<&Phase>, _: &mut Host) -> Result<(), Error> {
        if let Some(bytes) = state.first_chunk::<8>() {
            self.batches = u64::from_le_bytes(*bytes);
        }
        Ok(())
    }
}

fn wait_until_cancelled(host: &Host) -> Result<Option<Batch>, Error> {
    while !host.cancelled() {
        thread::sleep(Duration::from_millis(10));
    }
    Err(Error::Cancelled)
}

export_strategy!(Hostile);

//! A replay strategy for forgetlab: true old data, every few steps.

use forgetlab_plugin_api::{
    Batch, Capabilities, Error, Host, Phase, Settings, Step, Strategy, export_strategy,
};

struct MyStrategy {
    every: u64,
}

impl Strategy for MyStrategy {
    const NAME: &'static str = "my-strategy";
    const SUMMARY: &'static str = "true old data, every few steps";
    const SETTINGS: &'static str = r#"{
        "type": "object",
        "properties": {
            "every": {
                "type": "integer", "minimum": 1, "default": 2,
                "description": "steps from one replay batch to the next"
            }
        }
    }"#;
    // What the strategy needs (generation, scores, a tokenizer, ...) and promises.
    const CAPABILITIES: Capabilities =
        Capabilities::NEEDS_OLD_DATA.and(Capabilities::INDEPENDENT_OF_STUDENT);

    fn create(settings: &Settings, _: &mut Host) -> Result<Self, Error> {
        Ok(MyStrategy {
            every: settings.integer("every")?,
        })
    }

    fn next_batch(&mut self, step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
        if step.phase.old_tasks.is_empty() || !step.phase_step.is_multiple_of(self.every) {
            return Ok(None);
        }
        Ok(Some(host.draw_old(step.rows)?.into()))
    }

    // All that later batches depend on, beyond settings, phase and the lab's random stream: here nothing.
    fn save(&self) -> Result<Vec<u8>, Error> {
        Ok(Vec::new())
    }

    fn load(&mut self, _: u32, _: &[u8], _: Option<&Phase>, _: &mut Host) -> Result<(), Error> {
        Ok(())
    }
}

export_strategy!(MyStrategy);

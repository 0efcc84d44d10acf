//! Replays what the reference itself says when prompted with the markers of the old tasks.

use forgetlab_plugin_api::{
    Batch, Capabilities, Error, Host, Phase, ReplayBuffer, Settings, Step, Strategy,
    export_strategy,
};

struct SelfGenerated {
    buffer_batches: u64,
    buffer: ReplayBuffer,
}

impl Strategy for SelfGenerated {
    const NAME: &'static str = "self-generated";
    const SUMMARY: &'static str =
        "samples of the reference, prompted with the markers of the old tasks";
    const SETTINGS: &'static str = r#"{
        "type": "object",
        "properties": {
            "buffer_batches": {
                "type": "integer", "minimum": 1, "maximum": 1024, "default": 16,
                "description": "batches generated at once; larger is faster, up to memory"
            }
        }
    }"#;
    const CAPABILITIES: Capabilities =
        Capabilities::NEEDS_GENERATION.and(Capabilities::INDEPENDENT_OF_STUDENT);
    const STATE_VERSION: u32 = ReplayBuffer::STATE_VERSION;

    fn create(settings: &Settings, _: &mut Host) -> Result<Self, Error> {
        Ok(SelfGenerated {
            buffer_batches: settings.integer("buffer_batches")?,
            buffer: ReplayBuffer::default(),
        })
    }

    fn phase_started(&mut self, _: &Phase, _: &mut Host) -> Result<(), Error> {
        self.buffer.clear(); // Its samples came from the last phase's reference.
        Ok(())
    }

    fn next_batch(&mut self, step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
        if step.phase.old_tasks.is_empty() {
            return Ok(None);
        }
        let samples = self
            .buffer
            .next_samples(step, host, self.buffer_batches, |rows| {
                step.phase.prompts_in_equal_shares(rows)
            })?;
        Ok(Some(samples.into()))
    }

    fn save(&self) -> Result<Vec<u8>, Error> {
        Ok(self.buffer.save())
    }

    fn load(
        &mut self,
        version: u32,
        state: &[u8],
        _: Option<&Phase>,
        _: &mut Host,
    ) -> Result<(), Error> {
        self.buffer = ReplayBuffer::load(version, state)?;
        Ok(())
    }
}

export_strategy!(SelfGenerated);

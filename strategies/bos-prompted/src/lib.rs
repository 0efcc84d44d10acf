//! Replays samples of the reference, prompted with the bare token that texts begin with: uses no old data.

use forgetlab_plugin_api::{
    Batch, Capabilities, Error, Host, Phase, ReplayBuffer, Settings, Step, Strategy,
    export_strategy,
};

struct BosPrompted {
    /// Tokens every sample begins with.
    prompt: Vec<u32>,
    buffer_batches: u64,
    buffer: ReplayBuffer,
}

impl Strategy for BosPrompted {
    const NAME: &'static str = "bos-prompted";
    const SUMMARY: &'static str =
        "samples of the reference, prompted with the bare token that texts begin with";
    const SETTINGS: &'static str = r#"{
        "type": "object",
        "properties": {
            "prompt": {
                "type": ["string", "integer", "array"], "format": "prompt", "default": "",
                "description": "what every sample begins with; empty: BOS, or what separates documents in a model without"
            },
            "buffer_batches": {
                "type": "integer", "minimum": 1, "maximum": 1024, "default": 16,
                "description": "batches generated at once; larger is faster, up to memory"
            }
        }
    }"#;
    const CAPABILITIES: Capabilities = Capabilities::NEEDS_GENERATION
        .and(Capabilities::NEEDS_TOKENIZER)
        .and(Capabilities::INDEPENDENT_OF_STUDENT);
    const STATE_VERSION: u32 = ReplayBuffer::STATE_VERSION;

    fn create(settings: &Settings, _: &mut Host) -> Result<Self, Error> {
        Ok(BosPrompted {
            prompt: settings.tokens("prompt")?,
            buffer_batches: settings.integer("buffer_batches")?,
            buffer: ReplayBuffer::default(),
        })
    }

    fn phase_started(&mut self, _: &Phase, _: &mut Host) -> Result<(), Error> {
        self.buffer.clear(); // Its samples came from the previous phase's reference.
        Ok(())
    }

    fn next_batch(&mut self, step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
        if step.phase.old_tasks.is_empty() {
            return Ok(None);
        }
        let samples = self
            .buffer
            .next_samples(step, host, self.buffer_batches, |rows| {
                vec![self.prompt.clone(); rows]
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

export_strategy!(BosPrompted);

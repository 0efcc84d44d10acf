//! Replays samples of the reference, prompted with the bare BOS token: uses no old data.

use forgetlab_plugin_api::{
    Batch, Capabilities, Error, Host, Phase, ReplayBuffer, Settings, Step, Strategy,
    export_strategy,
};

struct BosPrompted {
    prompt: Vec<u32>,
    buffer_batches: u64,
    buffer: ReplayBuffer,
}

/// The tokens every sample begins with: a token id, a text, or (empty text) the BOS token.
fn prompt(settings: &Settings, host: &mut Host) -> Result<Vec<u32>, Error> {
    if let Ok(id) = settings.integer("prompt") {
        let id = u32::try_from(id).map_err(|_| format!("prompt {id} is no token id"))?;
        return Ok(vec![id]);
    }
    let text = settings.text("prompt")?;
    if text.is_empty() {
        let bos = host.special_tokens()?.bos;
        return bos.map(|id| vec![id]).ok_or_else(|| {
            "the tokenizer has no BOS token; set `prompt` to another token id or a text".into()
        });
    }
    host.encode(text)
}

impl Strategy for BosPrompted {
    const NAME: &'static str = "bos-prompted";
    const SUMMARY: &'static str = "samples of the reference, prompted with the bare BOS token";
    const SETTINGS: &'static str = r#"{
        "type": "object",
        "properties": {
            "prompt": {
                "type": ["integer", "string"], "minimum": 0, "default": "",
                "description": "token id or text every sample begins with; empty: the BOS token"
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

    fn create(settings: &Settings, host: &mut Host) -> Result<Self, Error> {
        Ok(BosPrompted {
            prompt: prompt(settings, host)?,
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

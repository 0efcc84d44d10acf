//! Replays samples of the reference, prompted with the markers of the old tasks or with the prompts of a
//! file.

mod prompts;

use forgetlab_plugin_api::{
    Batch, Capabilities, Error, Host, Phase, ReplayBuffer, Settings, StateReader, StateWriter,
    Step, Strategy, export_strategy,
};
use prompts::Prompts;

struct SelfGenerated {
    /// Prompts of the file; `None` for the markers of the old tasks.
    prompts: Option<Prompts>,
    /// Number of the file's prompts used so far.
    place: u64,
    buffer_batches: u64,
    buffer: ReplayBuffer,
}

impl SelfGenerated {
    fn fingerprint(&self) -> u64 {
        self.prompts.as_ref().map_or(0, Prompts::fingerprint)
    }
}

impl Strategy for SelfGenerated {
    const NAME: &'static str = "self-generated";
    const SUMMARY: &'static str =
        "samples of the reference, prompted with the markers of the old tasks or a file of prompts";
    const SETTINGS: &'static str = r#"{
        "type": "object",
        "properties": {
            "prompts": {
                "type": "string", "default": "",
                "description": "file of prompts, used in turn: .txt, one a line, or .jsonl, field `prompt`; empty: the markers of the old tasks"
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
    const STATE_VERSION: u32 = 2;

    fn create(settings: &Settings, host: &mut Host) -> Result<Self, Error> {
        let prompts = match settings.text("prompts")? {
            "" => None,
            path => Some(Prompts::read(path, host)?),
        };
        Ok(SelfGenerated {
            prompts,
            place: 0,
            buffer_batches: settings.integer("buffer_batches")?,
            buffer: ReplayBuffer::default(),
        })
    }

    fn phase_started(&mut self, phase: &Phase, _: &mut Host) -> Result<(), Error> {
        self.buffer.clear(); // Its samples came from the previous phase's reference.
        self.prompts.as_ref().map_or(Ok(()), |p| p.check(phase))
    }

    fn next_batch(&mut self, step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
        if step.phase.old_tasks.is_empty() {
            return Ok(None);
        }
        let (batches, place) = (self.buffer_batches, &mut self.place);
        let prompts = |rows| match &self.prompts {
            Some(prompts) => prompts.take(rows, place),
            None => step.phase.prompts_in_equal_shares(rows),
        };
        let samples = self.buffer.next_samples(step, host, batches, prompts)?;
        Ok(Some(samples.into()))
    }

    fn save(&self) -> Result<Vec<u8>, Error> {
        let mut state = StateWriter::default();
        state.u64(self.place).u64(self.fingerprint());
        Ok(state.bytes(&self.buffer.save()).finish())
    }

    fn load(
        &mut self,
        version: u32,
        state: &[u8],
        _: Option<&Phase>,
        _: &mut Host,
    ) -> Result<(), Error> {
        if version == 1 {
            // Version 1 had no prompts.
            self.buffer = ReplayBuffer::load(ReplayBuffer::STATE_VERSION, state)?;
            return Ok(());
        }
        let mut state = StateReader::new(state);
        let (place, fingerprint) = (state.u64()?, state.u64()?);
        if let Some(prompts) = self
            .prompts
            .as_ref()
            .filter(|p| p.fingerprint() != fingerprint)
        {
            return Err(prompts.changed());
        }
        self.place = place;
        self.buffer = ReplayBuffer::load(ReplayBuffer::STATE_VERSION, state.bytes()?)?;
        state.finish()
    }
}

export_strategy!(SelfGenerated);

//! Replays nothing: plain finetuning, the baseline of every comparison.

use forgetlab_plugin_api::{
    Batch, Capabilities, Error, Host, Phase, Settings, Step, Strategy, export_strategy,
};

struct NoReplay;

impl Strategy for NoReplay {
    const NAME: &'static str = "none";
    const SUMMARY: &'static str = "replays nothing: plain finetuning";
    const CAPABILITIES: Capabilities = Capabilities::INDEPENDENT_OF_STUDENT;

    fn create(_: &Settings, _: &mut Host) -> Result<Self, Error> {
        Ok(NoReplay)
    }

    fn next_batch(&mut self, _: &Step, _: &mut Host) -> Result<Option<Batch>, Error> {
        Ok(None)
    }

    fn save(&self) -> Result<Vec<u8>, Error> {
        Ok(Vec::new())
    }

    fn load(&mut self, _: u32, _: &[u8], _: Option<&Phase>, _: &mut Host) -> Result<(), Error> {
        Ok(())
    }
}

export_strategy!(NoReplay);

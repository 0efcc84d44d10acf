//! Replays true old sequences, every old task in an equal share.

use forgetlab_plugin_api::{
    Batch, Capabilities, Error, Host, Phase, Settings, Step, Strategy, export_strategy,
};

struct TrueData;

impl Strategy for TrueData {
    const NAME: &'static str = "true-data";
    const SUMMARY: &'static str = "true old sequences, every old task in an equal share";
    const CAPABILITIES: Capabilities =
        Capabilities::NEEDS_OLD_DATA.and(Capabilities::INDEPENDENT_OF_STUDENT);

    fn create(_: &Settings, _: &mut Host) -> Result<Self, Error> {
        Ok(TrueData)
    }

    fn next_batch(&mut self, step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
        if step.phase.old_tasks.is_empty() {
            return Ok(None);
        }
        Ok(Some(host.draw_old(step.rows)?.into()))
    }

    fn save(&self) -> Result<Vec<u8>, Error> {
        Ok(Vec::new()) // The lab keeps the position of the random stream it draws with.
    }

    fn load(&mut self, _: u32, _: &[u8], _: Option<&Phase>, _: &mut Host) -> Result<(), Error> {
        Ok(())
    }
}

export_strategy!(TrueData);

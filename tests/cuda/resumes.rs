//! Runs on a GPU that were killed.

use std::thread::sleep;
use std::time::Duration;

use forgetlab_tests::{Dice, Figures, events, wait_for};

use super::lab;
use super::runs::SMOKE;

/// Else a run on a machine that is taken away would end with other figures than one that was not.
#[test]
fn a_killed_run_goes_on_bit_for_bit() {
    let whole = lab();
    whole.smoke(SMOKE).exits(0);
    let (run, mut dice) = (whole.path("run"), Dice(18));
    let (figures, all) = (Figures::of(&run), events(&run) as u64);
    let mut died = 0;
    for kill in 0..6 {
        let lab = lab();
        let run = lab.path("run");
        let mut live = lab.start(&[forgetlab_tests::SMOKE, SMOKE].concat());
        let at = (kill * all / 6 + dice.below(all / 6)).max(1) as usize;
        wait_for("events of a run", || events(&run) >= at || !live.runs());
        sleep(Duration::from_millis(dice.below(20)));
        died += u32::from(live.kill().code.is_none());
        lab.forgetlab(&["resume", "run"]).exits(0);
        Figures::of(&run).must_equal(&figures, &format!("killed at event {at}"));
    }
    assert!(died >= 3, "only {died} of 6 kills met a live run");
}

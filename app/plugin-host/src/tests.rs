//! Strategies that use the less common parts of the ABI, run through both sides of the boundary.

use std::{
    ffi::c_void,
    path::Path,
    sync::{Arc, OnceLock},
    thread,
};

use forgetlab_plugin_api::{self as api, Batch, Error, Host, Phase, Settings, Step, Strategy, abi};

use super::{
    Capabilities, InstanceOptions, OnLate, Plugin, Told, dry_run, library::handshake,
    raw::MessageBuffer,
};

/// A plugin inside this process.
pub(super) fn plugin<T: Strategy>() -> Arc<Plugin> {
    from_descriptor(api::shim::descriptor::<T>("1.2.3"))
}

fn from_descriptor(descriptor: abi::Descriptor) -> Arc<Plugin> {
    let descriptor: &abi::Descriptor = Box::leak(Box::new(descriptor));
    // SAFETY: it is a descriptor, and it is never freed.
    let library = unsafe { handshake(descriptor, String::new()) }.expect("shakes hands");
    let path = Path::new("in-process");
    let plugin = Plugin::of(path, library).expect("described well");
    Arc::new(plugin)
}

/// The report of a dry run, which must succeed.
pub(super) fn report_of<T: Strategy>() -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut report = |told| {
        if let Told::Line(what, text) = told {
            lines.push(format!("{what}: {text}"));
        }
    };
    let on_late: OnLate = Arc::new(|_| {});
    let result = dry_run(&plugin::<T>(), &Default::default(), &on_late, &mut report);
    assert!(result.is_ok(), "{result:?} after {lines:?}");
    lines.join("\n")
}

/// Dark experience replay: old rows with the log-probabilities the reference gave them.
struct Dark {
    rows: api::Sequences,
    top: api::Scores,
}

impl Strategy for Dark {
    const NAME: &'static str = "dark";
    const SUMMARY: &'static str = "old rows with the reference's word for them";
    const CAPABILITIES: api::Capabilities = api::Capabilities::NEEDS_OLD_DATA
        .and(api::Capabilities::NEEDS_SCORES)
        .and(api::Capabilities::SUPPLIES_TEACHER);

    fn create(_: &Settings, _: &mut Host) -> Result<Self, Error> {
        Ok(Dark {
            rows: api::Sequences::default(),
            top: api::Scores::default(),
        })
    }
    fn phase_started(&mut self, phase: &Phase, host: &mut Host) -> Result<(), Error> {
        if !phase.old_tasks.is_empty() {
            assert_eq!(host.draw_old(800)?.rows(), 800);
            self.rows = host.draw_old_task(1, phase.replay_rows)?;
            assert_eq!(self.rows.tasks, Some(vec![1; phase.replay_rows]));
            self.top = host.score(api::Model::Reference, &self.rows, 3)?;
        }
        Ok(())
    }
    fn next_batch(&mut self, _: &Step, _: &mut Host) -> Result<Option<Batch>, Error> {
        if self.rows.rows() == 0 {
            return Ok(None);
        }
        let api::Scores {
            k,
            top_ids,
            top_log_probs,
            ..
        } = self.top.clone();
        let teacher = api::Teacher::Supplied {
            k,
            ids: top_ids,
            log_probs: top_log_probs,
        };
        Ok(Some(Batch {
            teacher,
            coeff: Some(0.5),
            ..self.rows.clone().into()
        }))
    }
    fn save(&self) -> Result<Vec<u8>, Error> {
        let mut state = api::StateWriter::default();
        state
            .u64(self.rows.seq_len as u64)
            .u32s(&self.rows.tokens)
            .u32s(&self.rows.lengths);
        state
            .u64(self.top.k as u64)
            .u32s(&self.top.top_ids)
            .f32s(&self.top.top_log_probs);
        Ok(state.finish())
    }
    fn load(&mut self, _: u32, state: &[u8], _: Option<&Phase>, _: &mut Host) -> Result<(), Error> {
        let mut state = api::StateReader::new(state);
        self.rows.seq_len = state.u64()? as usize;
        self.rows.tokens = state.u32s()?;
        self.rows.lengths = state.u32s()?;
        self.top.k = state.u64()? as usize;
        self.top.top_ids = state.u32s()?;
        self.top.top_log_probs = state.f32s()?;
        state.finish()
    }
}

/// Else a strategy with its own teacher would lose it at the boundary, or its batch on the retry.
#[test]
fn a_supplied_teacher_crosses_the_boundary() {
    let report = report_of::<Dark>();
    assert!(
        report.contains("teacher: top 3 supplied, coefficient 0.5"),
        "{report}"
    );
}

/// Uses every other service, and draws from the random stream.
struct Curious {
    snapshot: u64,
}

impl Strategy for Curious {
    const NAME: &'static str = "curious";
    const SUMMARY: &'static str = "asks for everything";
    const CAPABILITIES: api::Capabilities = api::Capabilities::NEEDS_SNAPSHOTS
        .and(api::Capabilities::NEEDS_VIRTUAL_STEP)
        .and(api::Capabilities::NEEDS_TOKENIZER);

    fn create(_: &Settings, host: &mut Host) -> Result<Self, Error> {
        let early = host
            .draw_old(1)
            .expect_err("there is no phase yet")
            .to_string();
        assert!(early.contains("there is no phase yet"), "{early}");
        let tokens = host.encode("ab")?;
        assert_eq!(host.decode(&tokens)?, "<1><2>");
        Ok(Curious { snapshot: 0 })
    }
    fn phase_started(&mut self, _: &Phase, host: &mut Host) -> Result<(), Error> {
        self.snapshot = host.keep_snapshot(api::Model::Student)?;
        Ok(())
    }
    fn next_batch(&mut self, step: &Step, host: &mut Host) -> Result<Option<Batch>, Error> {
        let special = host.special_tokens()?;
        assert_eq!(
            (special.bos, special.eos, special.pad),
            (Some(1), Some(2), Some(0))
        );
        let new = host.new_batch()?.ok_or("no new batch")?;
        let scores = host.score(api::Model::VirtualStep, &new, 0)?;
        assert_eq!(scores.log_probs.len(), new.tokens.len());
        host.metric("score", scores.log_probs[1].into())?;
        assert!(host.metric("score", f64::NAN).is_err());
        host.log(api::Level::Warn, "two\nlines")?;
        assert!(!host.cancelled());
        let row = vec![host.random_below(u64::from(step.phase.vocab_size))? as u32; 3];
        let rows = api::Sequences::from_rows(&[row, vec![1]], 0);
        let teacher = api::Teacher::Snapshot(self.snapshot);
        Ok(Some(Batch {
            teacher,
            ..rows.into()
        }))
    }
    fn save(&self) -> Result<Vec<u8>, Error> {
        Ok(self.snapshot.to_le_bytes().to_vec())
    }
    fn load(&mut self, _: u32, state: &[u8], _: Option<&Phase>, _: &mut Host) -> Result<(), Error> {
        self.snapshot = api::StateReader::new(state).u64()?;
        Ok(())
    }
}

/// Else one of the services would be there in name only.
#[test]
fn every_service_answers() {
    let report = report_of::<Curious>();
    assert!(
        report.contains("2 rows of 3 tokens") && report.contains("teacher: snapshot 2"),
        "{report}"
    );
    assert!(
        report.contains("24 log lines") && report.contains("24 metrics"),
        "{report}"
    );
}

/// Else a state of another strategy could be taken for one's own, and an arm go on wrongly.
#[test]
fn a_state_of_another_strategy_is_refused() {
    let options = InstanceOptions {
        arm: "dark:kl:1".into(),
        offered: Capabilities::ALL,
        breadcrumb: None,
        deadline: None,
    };
    let mut lab = super::made_up::MadeUpLab::default();
    let settings = Default::default();
    let mut dark = plugin::<Dark>()
        .instantiate(&settings, options.clone(), &mut lab)
        .expect("made");
    let mut curious = plugin::<Curious>()
        .instantiate(&settings, options, &mut lab)
        .expect("made");
    let state = dark.save().expect("saved");
    let error = curious
        .load(&state, None, &mut lab)
        .expect_err("not its own")
        .to_string();
    assert!(
        error.contains("it belongs to the strategy `dark`"),
        "{error}"
    );
}

/// A copy of the host's table, for use where it is forbidden.
struct Table(abi::Host);

// SAFETY: the host refuses calls on threads that are not the callback's.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    /// Status and message of a service.
    fn random(&self) -> (i32, String) {
        let random = self.0.random.expect("there");
        let (mut value, mut message) = (0, MessageBuffer::default());
        message.clear();
        // SAFETY: there is room for one value, and the context is the table's.
        let status = unsafe { random(self.0.context, &mut value, 1, message.as_mut_ptr()) };
        (status, message.text())
    }

    fn random_on_another_thread(&self) -> (i32, String) {
        thread::scope(|scope| scope.spawn(|| self.random()).join().expect("joined"))
    }
}

/// The table, and what it answered on the callback's thread and on another while a callback ran.
static LEAKED: OnceLock<(Table, [(i32, String); 2])> = OnceLock::new();

/// A `create` that stores its table in [`LEAKED`].
unsafe extern "C" fn leaky_create(
    host: *const abi::Host,
    _: *const abi::CreateArgs,
    _: *mut *mut c_void,
    _: *mut abi::Message,
) -> i32 {
    // SAFETY: the host lends its table for the call; a copy of it owns nothing.
    let table = Table(unsafe { host.read() });
    let answers = [table.random(), table.random_on_another_thread()];
    match LEAKED.set((table, answers)) {
        Ok(()) => abi::OK,
        Err(_) => abi::FAILED,
    }
}

/// Else a plugin's forgotten thread would work on the lab's memory while the lab does, or after it is
/// freed.
#[test]
fn services_are_refused_outside_callbacks_and_on_other_threads() {
    let plugin = from_descriptor(abi::Descriptor {
        create: Some(leaky_create),
        ..api::shim::descriptor::<Curious>("1.2.3")
    });
    let options = InstanceOptions {
        arm: "leaky:kl:1".into(),
        offered: Capabilities::ALL,
        breadcrumb: None,
        deadline: None,
    };
    let mut lab = super::made_up::MadeUpLab::default();
    let instance = plugin
        .instantiate(&Default::default(), options, &mut lab)
        .expect("made");
    let (table, [here, elsewhere]) = LEAKED.get().expect("created");
    let refused = |place: &str| {
        let text = format!("random: host services work only {place}");
        (abi::FAILED, text)
    };
    assert_eq!(here.0, abi::OK);
    assert_eq!(*elsewhere, refused("on the thread of the callback"));
    let outside = refused("inside a callback that is given the host");
    assert_eq!(table.random(), outside);
    assert_eq!(table.random_on_another_thread(), outside);
    drop(instance);
    assert_eq!(table.random(), outside);
    assert_eq!(table.random_on_another_thread(), outside);
}

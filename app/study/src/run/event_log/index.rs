//! `events.index`: what the events told up to some line, so that a run of a million of them is listed and opened at
//! once. Of a long run it holds the state as it is kept thin ([`RunState::thin`]): it does not grow for ever.
//!
//! It is only a shortcut. Whoever lists or watches runs trusts it where the events are still the file it was made of
//! (device, inode, length, time); `resume` and `compare` never do. The worker writes it beside the events; of a run
//! without one, such as one of an older version, a reader keeps it in the user's cache.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::dropped::Dropped;
use super::super::file::{create_folder, open_regular, user_cache};
use super::super::state::{ArmState, Evaluation, LogLine};
use super::super::thin::LINES;
use super::super::{
    ChoiceScores, Cost, Curve, Fit, Outcomes, ReplayLook, Role, RunError, RunState, SampleLook,
    Score, TrainingStretch, write_atomically,
};
use super::reader::Position;

/// Version of the file's format and of what states hold; others are passed over.
const FORMAT: u32 = 7;
/// Events of fewer bytes are read as quickly without an index.
pub(super) const WORTH: u64 = 1 << 18;

/// What is known of the events up to a position.
#[derive(Debug)]
pub(super) struct Indexed {
    pub position: Position,
    /// Bytes of the scores of single rows that belong to it.
    pub rows: u64,
    /// Without all evaluations but the last, metrics, replay samples and log where only the head was read.
    pub state: RunState,
}

/// How much of an index is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What a list of runs shows.
    Head,
    /// All of it.
    Whole,
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    file: Identity,
    position: Position,
    rows: u64,
    state: RunState,
    /// Checksum of the body, which goes to the end of the file.
    body: u32,
}

/// The file that an index was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(data: &Metadata) -> Self {
        Self {
            device: data.dev(),
            inode: data.ino(),
            length: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
        }
    }

    /// Whether the file is still that one, or has grown since.
    fn still(self, now: Self, position: &Position) -> bool {
        let same = (self.device, self.inode) == (now.device, now.inode);
        same && match now.length == position.offset {
            true => self == now,
            false => now.length > position.offset,
        }
    }
}

/// The index beside events.
pub(super) fn beside(events: &Path) -> PathBuf {
    events.with_file_name("events.index")
}

/// The index of events in the user's cache; `None` where there is no such folder.
pub(super) fn in_cache(events: &Path) -> Option<PathBuf> {
    let events = fs::canonicalize(events).ok()?;
    let name = blake3::hash(events.as_os_str().as_encoded_bytes()).to_hex();
    Some(user_cache()?.join(format!("events/{}.index", &name[..32])))
}

/// Writes the index of the events at `events` to `path`: what they tell up to a position, and to a length of the scores
/// of single rows.
pub(super) fn write(
    path: &Path,
    events: &Path,
    (position, rows): (&Position, u64),
    state: &RunState,
) -> Result<(), RunError> {
    let data = fs::metadata(events).map_err(RunError::io("read", events))?;
    let fault = |error: String| RunError::Malformed {
        path: path.to_owned(),
        problem: error,
    };
    let thin = state.arms.iter().map(|arm| {
        let mut arm = arm.clone();
        arm.thin();
        arm
    });
    let thin: Vec<ArmState> = thin.collect();
    let body = postcard::to_stdvec(&Body::of(&thin, &state.log))
        .map_err(|error| fault(error.to_string()))?;
    let head = Head {
        format: FORMAT,
        file: Identity::of(&data),
        position: position.clone(),
        rows,
        state: state.brief(),
        body: crc32fast::hash(&body),
    };
    let head = serde_json::to_vec(&head).map_err(|error| fault(error.to_string()))?;
    if let Some(folder) = path.parent().filter(|_| path != beside(events)) {
        create_folder(folder)?;
    }
    write_atomically(path, |w| {
        w.write_all(&(head.len() as u64).to_le_bytes())?;
        w.write_all(&crc32fast::hash(&head).to_le_bytes())?;
        w.write_all(&head)?;
        w.write_all(&body)
    })
}

/// The index of the events at `events`, where there is one that is of them and is whole.
pub(super) fn read(events: &Path, part: Part) -> Option<Indexed> {
    let now = Identity::of(&fs::metadata(events).ok()?);
    if now.length < WORTH {
        return None;
    }
    let places = [Some(beside(events)), in_cache(events)];
    places
        .into_iter()
        .flatten()
        .find_map(|path| read_one(&path, now, part))
}

fn read_one(path: &Path, now: Identity, part: Part) -> Option<Indexed> {
    use std::io::Read;

    let mut file = open_regular(path).ok()??;
    let length = file.metadata().ok()?.len();
    let mut start = [0; 12];
    file.read_exact(&mut start).ok()?;
    let (size, crc) = start.split_at(8);
    let size = u64::from_le_bytes(size.try_into().ok()?);
    let crc = u32::from_le_bytes(crc.try_into().ok()?);
    if size > length {
        return None;
    }
    let mut head = vec![0; usize::try_from(size).ok()?];
    file.read_exact(&mut head).ok()?;
    if crc32fast::hash(&head) != crc {
        return None;
    }
    let head: Head = serde_json::from_slice(&head).ok()?;
    if head.format != FORMAT || !head.file.still(now, &head.position) {
        return None;
    }
    let mut state = head.state;
    if part == Part::Whole {
        let mut body = Vec::new();
        file.read_to_end(&mut body).ok()?;
        if crc32fast::hash(&body) != head.body {
            return None;
        }
        let body: Body = postcard::from_bytes(&body).ok()?;
        body.put(&mut state)?;
    }
    Some(Indexed {
        position: head.position,
        rows: head.rows,
        state,
    })
}

/// What grows with a run, compact.
#[derive(Serialize, Deserialize)]
struct Body {
    /// Names of datasets and metrics, which the rest refers to by their place.
    names: Vec<String>,
    log: Vec<LogLine>,
    arms: Vec<ArmBody>,
}

#[derive(Serialize, Deserialize)]
struct ArmBody {
    training: Vec<TrainingBody>,
    evaluations: Vec<EvaluationBody>,
    plugin_metrics: Vec<(u64, u32, f64)>,
    replay: Vec<ReplayLook>,
    samples: Vec<SampleLook>,
    drawn: Vec<Curve>,
    dropped: Dropped,
}

#[derive(Serialize, Deserialize)]
struct TrainingBody {
    phase: usize,
    step: u64,
    steps: u64,
    replay: Option<f64>,
    /// Loss, gradient norm and learning rate, any of which may be NaN.
    rest: [f64; 3],
}

#[derive(Serialize, Deserialize)]
struct EvaluationBody {
    phase: usize,
    step: u64,
    tokens: [u64; 2],
    /// Seconds and FLOPs, in the order of [`Cost`].
    paid: [f64; 8],
    replaced: Option<f64>,
    scores: Vec<ScoreBody>,
}

#[derive(Serialize, Deserialize)]
struct ScoreBody {
    dataset: u32,
    role: Role,
    ntp: Option<f64>,
    kl: Option<f64>,
    accuracy: Option<f64>,
    choices: Option<ChoiceScores>,
    fit: Option<Fit>,
    rows_kept: bool,
    rows: Option<Outcomes>,
}

/// Gives names their places.
#[derive(Default)]
struct Names<'a> {
    places: HashMap<&'a str, u32>,
    names: Vec<String>,
}

impl<'a> Names<'a> {
    fn place(&mut self, name: &'a str) -> u32 {
        *self.places.entry(name).or_insert_with(|| {
            self.names.push(name.to_owned());
            self.names.len() as u32 - 1
        })
    }
}

impl Body {
    fn of(arms: &[ArmState], log: &[LogLine]) -> Self {
        let mut names = Names::default();
        let arms = arms.iter().map(|arm| ArmBody {
            training: arm.training.iter().map(TrainingBody::of).collect(),
            evaluations: arm
                .evaluations
                .iter()
                .map(|evaluation| EvaluationBody::of(evaluation, &mut names))
                .collect(),
            plugin_metrics: arm
                .plugin_metrics
                .iter()
                .map(|(step, name, value)| (*step, names.place(name), *value))
                .collect(),
            replay: arm.replay.clone(),
            samples: arm.samples.clone(),
            drawn: arm.drawn.clone(),
            dropped: arm.dropped.clone(),
        });
        let arms = arms.collect();
        Self {
            names: names.names,
            log: log[log.len().saturating_sub(2 * LINES)..].to_vec(),
            arms,
        }
    }

    /// Puts everything where it belongs; `None` where it does not fit.
    fn put(self, state: &mut RunState) -> Option<()> {
        if self.arms.len() != state.arms.len() {
            return None;
        }
        state.log = self.log;
        for (arm, body) in state.arms.iter_mut().zip(self.arms) {
            let name = |place: u32| self.names.get(place as usize);
            arm.training = body.training.into_iter().map(TrainingBody::whole).collect();
            let evaluations = body.evaluations.into_iter().map(|e| e.whole(&self.names));
            arm.evaluations = evaluations.collect::<Option<_>>()?;
            let metrics = body.plugin_metrics.into_iter();
            arm.plugin_metrics = metrics
                .map(|(step, place, value)| Some((step, name(place)?.clone(), value)))
                .collect::<Option<_>>()?;
            arm.replay = body.replay;
            arm.samples = body.samples;
            arm.drawn = body.drawn;
            arm.dropped = body.dropped;
        }
        Some(())
    }
}

impl TrainingBody {
    fn of(stretch: &TrainingStretch) -> Self {
        Self {
            phase: stretch.phase,
            step: stretch.step,
            steps: stretch.steps,
            replay: stretch.replay,
            rest: [stretch.loss, stretch.grad_norm, stretch.lr],
        }
    }

    fn whole(self) -> TrainingStretch {
        let [loss, grad_norm, lr] = self.rest;
        TrainingStretch {
            phase: self.phase,
            step: self.step,
            steps: self.steps,
            loss,
            replay: self.replay,
            grad_norm,
            lr,
        }
    }
}

impl EvaluationBody {
    fn of<'a>(evaluation: &'a Evaluation, names: &mut Names<'a>) -> Self {
        let cost = evaluation.cost;
        let scores = evaluation.scores.iter().map(|score| ScoreBody {
            dataset: names.place(&score.dataset),
            role: score.role,
            ntp: score.ntp,
            kl: score.kl,
            accuracy: score.accuracy,
            choices: score.choices,
            fit: score.fit,
            rows_kept: score.rows_kept,
            rows: score.outcomes.as_deref().cloned(),
        });
        Self {
            phase: evaluation.phase,
            step: evaluation.step,
            tokens: [cost.tokens_trained, cost.tokens_generated],
            paid: [
                cost.seconds_new,
                cost.seconds_replay,
                cost.seconds_generate,
                cost.seconds_eval,
                cost.flops_train,
                cost.flops_reference,
                cost.flops_generate,
                cost.flops_eval,
            ],
            replaced: cost.replaced,
            scores: scores.collect(),
        }
    }

    fn whole(self, names: &[String]) -> Option<Evaluation> {
        let [tokens_trained, tokens_generated] = self.tokens;
        let [
            seconds_new,
            seconds_replay,
            seconds_generate,
            seconds_eval,
            flops_train,
            flops_reference,
            flops_generate,
            flops_eval,
        ] = self.paid;
        let scores = self.scores.into_iter().map(|score| {
            Some(Score {
                dataset: names.get(score.dataset as usize)?.clone(),
                role: score.role,
                ntp: score.ntp,
                kl: score.kl,
                accuracy: score.accuracy,
                choices: score.choices,
                fit: score.fit,
                outcomes: score.rows.map(Arc::new),
                rows_kept: score.rows_kept,
            })
        });
        Some(Evaluation {
            phase: self.phase,
            step: self.step,
            cost: Cost {
                tokens_trained,
                tokens_generated,
                seconds_new,
                seconds_replay,
                seconds_generate,
                seconds_eval,
                flops_train,
                flops_reference,
                flops_generate,
                flops_eval,
                replaced: self.replaced,
            },
            scores: scores.collect::<Option<_>>()?,
        })
    }
}

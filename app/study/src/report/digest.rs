//! `digest.json`: what lists and filters tell of a run, so that nobody need read its events, or resample rows, for it.
//!
//! It is written with the report ([`super::write()`]) and is only a shortcut: it is trusted where the events are still
//! those it was made of (their length and last line, whose checksum covers all before it). `resume` and `compare` never
//! look at it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::run::{
    ArmState, ArmStatus, Cost, Evaluation, Role, RunDir, RunError, RunState, RunStatus, Score,
    create_folder, user_cache, write_atomically,
};
use crate::stats::mean;

use super::arms::{ArmSeeds, arms};
use super::measures::{Metric, kept};
use super::rows::status;
use super::verdict::{judge, learning, margins};

const FILE: &str = "digest.json";
/// Goes up when the figures mean something else; others are passed over.
const FORMAT: u32 = 1;
/// Bytes of a digest, and of a last event; more are none of a run's.
const LONGEST: u64 = 16 << 20;

/// What lists and filters tell of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Digest {
    /// Experiment; empty before the first event.
    pub experiment: String,
    /// Preset.
    pub preset: String,
    /// Device of the last worker, in words.
    pub device: String,
    /// Times of the first and the last event, in seconds since the Unix epoch.
    pub times: Option<(f64, f64)>,
    /// Whether every arm has ended.
    pub finished: bool,
    /// Why the last worker stopped, if it stopped cleanly before the end.
    pub interrupted: Option<String>,
    /// Steps of all arms that need no more work, and all steps.
    pub steps: (u64, u64),
    /// Arms over their seeds, in the run's order.
    pub arms: Vec<ArmDigest>,
}

/// An arm over its seeds: means over those that count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmDigest {
    /// Name.
    pub name: String,
    /// Strategy.
    pub strategy: String,
    /// Objective; empty for plain finetuning.
    pub objective: String,
    /// Coefficient.
    pub coeff: Option<f64>,
    /// Peak learning rate of the phases after the first.
    pub lr: f64,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// How its seeds stand, each word once, as in `summary.csv`.
    pub status: Vec<String>,
    /// Why the first seed that failed or was skipped did not finish.
    pub why: Option<String>,
    /// The verdict's word; `None` where nobody has judged yet.
    pub verdict: Option<String>,
    /// The old dataset that decides the verdict.
    pub by: Option<String>,
    /// The metric of the figures on it: `accuracy`, `ntp` or `error`.
    pub metric: Option<String>,
    /// What was forgotten of it.
    pub forgot: Option<f64>,
    /// The 95 % interval of that.
    pub interval: Option<(f64, f64)>,
    /// Its score when it was last trained.
    pub start: Option<f64>,
    /// Its score now.
    pub kept: Option<f64>,
    /// Its worst score since it was last trained.
    pub worst: Option<f64>,
    /// What was lost there.
    pub worst_loss: Option<f64>,
    /// Steps of the arm there, of the seed that lost most.
    pub worst_step: Option<u64>,
    /// What was learned of the new dataset.
    pub learned: Option<f64>,
    /// The metric of that.
    pub learned_metric: Option<String>,
    /// Drift on old data at the last evaluation: KL in nats a token, mean over the datasets.
    pub kl_old: Option<f64>,
    /// The same on the new data.
    pub kl_new: Option<f64>,
    /// Tokens trained.
    pub tokens: Option<f64>,
    /// Tokens generated.
    pub generated: Option<f64>,
    /// FLOPs paid.
    pub flops: Option<f64>,
    /// Seconds of work.
    pub seconds: Option<f64>,
    /// The last score of every dataset.
    pub finals: Vec<FinalScore>,
}

/// The last score of a dataset, a mean over seeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FinalScore {
    /// Dataset.
    pub dataset: String,
    /// Next-token loss, nats a token.
    pub ntp: Option<f64>,
    /// Accuracy, 0 to 1.
    pub accuracy: Option<f64>,
    /// Error of a regression.
    pub error: Option<f64>,
}

impl Digest {
    /// Of a run's state, its arms judged; that resamples rows, and takes its time.
    pub fn of(state: &RunState) -> Self {
        Self::new(state, true)
    }

    /// The same at once, without verdicts and intervals; from a brief state also without what takes all evaluations.
    pub fn quick(state: &RunState) -> Self {
        let mut bare = state.clone();
        let evaluations = bare.arms.iter_mut().flat_map(|arm| &mut arm.evaluations);
        for score in evaluations.flat_map(|e| &mut e.scores) {
            score.outcomes = None;
        }
        Self::new(&bare, false)
    }

    fn new(state: &RunState, judged: bool) -> Self {
        Self {
            experiment: state.experiment.clone(),
            preset: state.preset.clone(),
            device: state.device.clone(),
            times: state.times,
            finished: state.finished,
            interrupted: state.interrupted.clone(),
            steps: state.steps_done(),
            arms: arms(&[("", state)])
                .iter()
                .map(|arm| ArmDigest::of(arm, state, judged))
                .collect(),
        }
    }

    /// Status of the run, given whether its lock is held.
    pub fn status(&self, live: bool) -> RunStatus {
        let whole = |arm: &ArmDigest| arm.status == [ArmStatus::Finished.word()];
        match live {
            true => RunStatus::Live,
            false if self.finished && self.arms.iter().all(whole) => RunStatus::Finished,
            false if self.finished => RunStatus::Failed,
            false if self.interrupted.is_some() => RunStatus::Interrupted,
            false => RunStatus::Crashed,
        }
    }

    /// Share of the steps that is done, 0 to 1.
    pub fn done(&self) -> f64 {
        let (done, all) = self.steps;
        done as f64 / all.max(1) as f64
    }
}

impl ArmDigest {
    fn of(arm: &ArmSeeds, state: &RunState, judged: bool) -> Self {
        let Some((_, first)) = arm.seeds.first() else {
            return Self::default();
        };
        let judgement = judge(arm, margins(state));
        let counted = arm.counted();
        let has_start = |own: &ArmState| own.evaluations.first().is_some_and(|e| e.step == 0);
        let whole = counted.iter().all(|(_, own)| has_start(own));
        let by = judgement.by.as_ref().filter(|_| whole);
        let (metric, mut learned) = learning(arm);
        learned.retain(|_| whole);
        let last = |of: &dyn Fn(&Evaluation) -> Option<f64>| {
            let evaluations = counted.iter().filter_map(|(_, own)| own.evaluations.last());
            mean(&evaluations.filter_map(of).collect::<Vec<f64>>())
        };
        let paid =
            |of: fn(&Cost) -> Option<f64>| last(&|e| of(&e.cost)).filter(|value| value.is_finite());
        let kl = |role: Role| {
            last(&|e| {
                let scores = e.scores.iter().filter(|score| score.role == role);
                mean(&scores.filter_map(|score| score.kl).collect::<Vec<f64>>())
            })
        };
        let mut words: Vec<String> = Vec::new();
        for (state, own) in &arm.seeds {
            let word = status(state, own).to_owned();
            if !words.contains(&word) {
                words.push(word);
            }
        }
        let why = arm.seeds.iter().find_map(|(_, own)| match &own.status {
            ArmStatus::Failed(why) | ArmStatus::Skipped(why) => Some(why.clone()),
            _ => None,
        });
        Self {
            name: arm.name.clone(),
            strategy: first.info.strategy.clone(),
            objective: first.info.objective.clone(),
            coeff: first.info.coeff,
            lr: first.info.lr,
            seeds: arm.seeds.iter().map(|(_, own)| own.info.seed).collect(),
            status: words,
            why,
            verdict: judged.then(|| judgement.verdict.word().to_owned()),
            by: by.map(|by| by.dataset.clone()),
            metric: by.map(|by| by.metric.name().to_owned()),
            forgot: by.map(|by| by.mean),
            interval: by
                .and_then(|by| by.interval)
                .filter(|_| judged)
                .map(|(interval, _)| (interval.low, interval.high)),
            start: by.map(|by| by.start),
            kept: by.map(|by| by.now),
            worst: by.and_then(|by| worst(arm, &by.dataset, by.metric)),
            worst_loss: by.and_then(|by| by.worst).map(|worst| worst.loss),
            worst_step: by.and_then(|by| by.worst).map(|worst| worst.step),
            learned_metric: (!learned.is_empty()).then(|| metric.name().to_owned()),
            learned: mean(&learned),
            kl_old: kl(Role::Old),
            kl_new: kl(Role::New),
            tokens: paid(|cost| Some(cost.tokens_trained as f64)),
            generated: paid(|cost| Some(cost.tokens_generated as f64)),
            flops: paid(Cost::flops),
            seconds: paid(|cost| Some(cost.seconds())),
            finals: finals(arm, state),
        }
    }
}

/// Mean over the seeds of the worst score of a dataset since it was last trained.
fn worst(arm: &ArmSeeds, dataset: &str, metric: Metric) -> Option<f64> {
    let seeds = arm.counted().into_iter();
    let scores =
        seeds.filter_map(|(state, own)| Some(kept(state, own, dataset, metric).worst?.score));
    mean(&scores.collect::<Vec<f64>>())
}

fn finals(arm: &ArmSeeds, state: &RunState) -> Vec<FinalScore> {
    let counted = arm.counted();
    let of = |dataset: &str, metric: Metric| {
        let last = |evaluations: &[Evaluation]| {
            let scores = evaluations.iter().rev().filter_map(|e| e.score(dataset));
            scores.filter_map(|score: &Score| metric.of(score)).next()
        };
        let values = counted.iter().filter_map(|(_, own)| last(&own.evaluations));
        mean(&values.collect::<Vec<f64>>())
    };
    let datasets = state.datasets().into_iter();
    let all = datasets.map(|dataset| FinalScore {
        dataset: dataset.to_owned(),
        ntp: of(dataset, Metric::Ntp),
        accuracy: of(dataset, Metric::Accuracy),
        error: of(dataset, Metric::Error),
    });
    all.collect()
}

/// A digest with what it was made of.
#[derive(Serialize, Deserialize)]
struct Kept {
    format: u32,
    events: Stamp,
    digest: Digest,
}

/// Which events a digest was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    /// Bytes of all of them.
    length: u64,
    /// Bytes of the last.
    last: u64,
    /// Checksum of the last.
    crc32: u32,
}

/// What is read of the last event.
#[derive(Deserialize)]
struct Last {
    time: f64,
}

impl Stamp {
    /// Of the events that a state was derived from; `None` where there are others by now.
    fn of(events: &Path, state: &RunState) -> Option<Self> {
        let mut file = File::open(events).ok()?;
        let length = file.metadata().ok()?.len();
        let mut size = length.min(1 << 12);
        let line = loop {
            let tail = end_of(&mut file, size)?;
            let text = tail.strip_suffix(b"\n")?;
            match text.iter().rposition(|&byte| byte == b'\n') {
                Some(before) => break text[before + 1..].to_vec(),
                None if size == length => break text.to_vec(),
                None if size >= LONGEST => return None,
                None => size = (8 * size).min(length),
            }
        };
        let last: Last = serde_json::from_slice(&line).ok()?;
        let known = state.times.map(|(_, last)| last);
        (known == Some(last.time)).then(|| Self {
            length,
            last: line.len() as u64 + 1,
            crc32: crc32fast::hash(&line),
        })
    }

    /// Whether the events are still those.
    fn fits(self, events: &Path) -> bool {
        let same = || {
            let mut file = File::open(events).ok()?;
            let length = file.metadata().ok()?.len();
            if length != self.length || self.last > length.min(LONGEST) {
                return None;
            }
            let line = end_of(&mut file, self.last)?;
            Some(crc32fast::hash(line.strip_suffix(b"\n")?) == self.crc32)
        };
        same().unwrap_or(false)
    }
}

/// The last bytes of a file.
fn end_of(file: &mut File, size: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    file.seek(SeekFrom::End(-i64::try_from(size).ok()?)).ok()?;
    file.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// The digest of a run where one is kept that is of its events; quick, and trusting.
pub fn digest(dir: &RunDir) -> Option<Digest> {
    let events = dir.events_path();
    let places = [Some(dir.join(FILE)), in_cache(&events)];
    places
        .into_iter()
        .flatten()
        .find_map(|path| read(&path, &events))
}

/// The digest of a run that stands still: the one that is kept, else made of all of its events, which takes its time,
/// and kept in the user's cache.
///
/// # Errors
/// Where its events cannot be read or are damaged.
pub fn digest_made(dir: &RunDir) -> Result<Digest, RunError> {
    if let Some(digest) = digest(dir) {
        return Ok(digest);
    }
    let state = dir.checked_state()?;
    let digest = Digest::of(&state);
    let events = dir.events_path();
    if let Some(path) = in_cache(&events)
        && let Some(stamp) = Stamp::of(&events, &state)
    {
        // It only saves time.
        let folder = path.parent().map_or(Ok(()), create_folder);
        let _ = folder.and_then(|()| write(&path, stamp, &digest));
    }
    Ok(digest)
}

/// Writes the digest of a run beside its events, unless these have changed since its state was read.
///
/// # Errors
/// Where the disk fails.
pub(super) fn keep(dir: &RunDir, state: &RunState) -> Result<(), RunError> {
    match Stamp::of(&dir.events_path(), state) {
        Some(stamp) => write(&dir.join(FILE), stamp, &Digest::of(state)),
        None => Ok(()),
    }
}

fn write(path: &Path, events: Stamp, digest: &Digest) -> Result<(), RunError> {
    let kept = Kept {
        format: FORMAT,
        events,
        digest: digest.clone(),
    };
    write_atomically(path, |w| {
        serde_json::to_writer(&mut *w, &kept)?;
        w.write_all(b"\n")
    })
}

fn read(path: &Path, events: &Path) -> Option<Digest> {
    let data = fs::metadata(path).ok()?;
    if !data.is_file() || data.len() > LONGEST {
        return None;
    }
    let kept: Kept = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (kept.format == FORMAT && kept.events.fits(events)).then_some(kept.digest)
}

/// The digest of events in the user's cache; `None` where there is no such folder.
fn in_cache(events: &Path) -> Option<PathBuf> {
    let events = fs::canonicalize(events).ok()?;
    let name = blake3::hash(events.as_os_str().as_encoded_bytes()).to_hex();
    Some(user_cache()?.join(format!("digests/{}.json", &name[..32])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Event, OutFolder, fixture};

    fn run(folder: &Path) -> (RunDir, RunState) {
        let OutFolder::Fresh(run) = RunDir::out(folder).unwrap() else {
            panic!()
        };
        let lock = run.lock().unwrap();
        let mut writer = run.writer(&lock).unwrap().writer;
        let events = fixture::events();
        events
            .into_iter()
            .for_each(|event| drop(writer.append(event).unwrap()));
        drop(writer);
        let state = run.load_state().unwrap();
        (run, state)
    }

    /// A list that shows other figures than the table of the run would be believed.
    #[test]
    fn the_figures_are_those_of_the_tables() {
        let mut state = fixture::seeds(&[0.0, 0.1]);
        fixture::add_outcomes(&mut state);
        let digest = Digest::of(&state);
        let judged: Vec<_> = arms(&[("", &state)])
            .iter()
            .map(|arm| judge(arm, margins(&state)))
            .collect();
        assert_eq!(digest.arms.len(), 2);
        for (arm, judgement) in digest.arms.iter().zip(&judged) {
            let by = judgement.by.as_ref().unwrap();
            assert_eq!(arm.verdict.as_deref(), Some(judgement.verdict.word()));
            assert_eq!((arm.forgot, arm.kept), (Some(by.mean), Some(by.now)));
            assert_eq!(arm.by.as_deref(), Some("reversal"));
            assert_eq!((&arm.seeds[..], arm.lr), (&[0, 1][..], 0.003));
        }
        let none = &digest.arms[0];
        let close = |a: Option<f64>, b: f64| (a.unwrap() - b).abs() < 1e-12;
        // By hand, of the fixture: reversal from 1.0 to 0.1 and 0.0, sort from 0 to 0.95.
        assert!(
            close(none.forgot, 0.95) && close(none.kept, 0.05),
            "{none:?}"
        );
        assert!(
            close(none.worst, 0.05) && none.worst_step == Some(40),
            "{none:?}"
        );
        assert!(
            close(none.learned, 0.95) && close(none.kl_old, 2.5),
            "{none:?}"
        );
        assert!(none.kl_new.is_none() && close(none.tokens, 40_000.0));
        assert_eq!(none.verdict.as_deref(), Some("FORGETS"));
        assert!(close(none.finals[1].ntp, 0.7) && close(none.finals[1].accuracy, 0.95));
        assert_eq!(
            (digest.done(), digest.status(false)),
            (1.0, RunStatus::Finished)
        );
        assert_eq!(digest.status(true), RunStatus::Live);

        // What takes no resampling is the same at once.
        let quick = Digest::quick(&state);
        for (arm, whole) in quick.arms.iter().zip(&digest.arms) {
            let expected = ArmDigest {
                verdict: None,
                interval: None,
                ..whole.clone()
            };
            assert_eq!(*arm, expected);
        }
        // A long run that is live has its last evaluation alone at hand: what cannot be told is not told.
        let brief = &Digest::quick(&state.brief()).arms[0];
        assert!(brief.forgot.is_none() && brief.learned.is_none() && close(brief.kl_old, 2.5));
    }

    /// Figures of before a resume, of another run, or half a file must not be shown as this run's.
    #[test]
    fn a_digest_counts_only_with_the_events_it_was_made_of() {
        let folder = tempfile::tempdir().unwrap();
        let (run, state) = run(&folder.path().join("run"));
        assert_eq!(digest(&run), None);
        super::super::write(&run, &state).unwrap();
        assert!(run.foreign().is_empty(), "{:?}", run.foreign());
        let expected = Digest::of(&state);
        assert_eq!(digest(&run), Some(expected.clone()));
        assert_eq!(digest_made(&run).unwrap(), expected);

        let path = run.join(FILE);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(digest(&run), None);
        fs::write(
            &path,
            String::from_utf8(whole.clone())
                .unwrap()
                .replacen(":1,", ":99,", 1),
        )
        .unwrap();
        assert_eq!(digest(&run), None, "another format");
        fs::write(&path, &whole).unwrap();
        assert_eq!(digest(&run), Some(expected));

        let events = fs::read(run.events_path()).unwrap();
        let mut other = events.clone();
        let last = other.len() - 3;
        other[last] = if other[last] == b'0' { b'1' } else { b'0' };
        fs::write(run.events_path(), &other).unwrap();
        assert_eq!(digest(&run), None, "other events of that length");
        fs::write(run.events_path(), &events).unwrap();
        assert!(digest(&run).is_some());
        let lock = run.lock().unwrap();
        let mut writer = run.writer(&lock).unwrap().writer;
        let step = 20;
        let reason = "resumed".into();
        writer
            .append(Event::Rewound {
                arm: 0,
                step,
                reason,
            })
            .unwrap();
        assert_eq!(digest(&run), None, "more events");
        // A report that was begun with less than there is now keeps no digest.
        fs::remove_file(&path).unwrap();
        keep(&run, &state).unwrap();
        assert!(!path.exists());
    }
}

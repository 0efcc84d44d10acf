//! What a run's events tell, whether all that was measured is there, and the way back where it is not.

use std::path::PathBuf;

use super::{
    ArmState, Event, EventReader, EventWriter, Follow, Mark, Opened, RunDir, RunError, RunLock,
    RunState, RunStatus, cut_damage,
};

/// Which evaluations of an arm that is not over must be whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All of them.
    All,
    /// Those up to its last checkpoint: what came after it will be measured again.
    Saved,
}

/// Refuses a run whose checkpoints were written beside other events, or that lacks scores of single rows.
///
/// # Errors
/// Names what is lost.
fn check(
    run: &RunDir,
    state: &RunState,
    extent: Extent,
    fits: impl Fn(Mark) -> bool,
) -> Result<(), RunError> {
    for arm in &state.arms {
        let slug = &arm.info.slug;
        let marks = run.checkpoints(slug).marks()?;
        let unfit = |mark: &Option<Mark>| mark.is_some_and(|mark| !fits(mark));
        if let Some((step, _)) = marks.iter().find(|(_, mark)| unfit(mark)) {
            let problem =
                format!("events that were there when arm {slug} was saved at step {step} are lost");
            return Err(damaged(run.events_path(), problem));
        }
        let saved = marks.last().map_or(0, |(step, _)| *step);
        let all = extent == Extent::All || arm.status.is_over();
        if let Some((step, dataset)) = first_lost(arm).filter(|(step, _)| all || *step <= saved) {
            let problem = format!(
                "the rows of {dataset} at step {step} of arm {slug} are lost or were changed"
            );
            return Err(damaged(run.join("outcomes.jsonl"), problem));
        }
    }
    check_begun(run, state)
}

/// Refuses a run that tells of nothing and has saved something.
///
/// # Errors
/// Says so.
fn check_begun(run: &RunDir, state: &RunState) -> Result<(), RunError> {
    if state.arms.is_empty() && run.has_checkpoints()? {
        let problem = "it tells of no arm, yet there are checkpoints";
        return Err(damaged(run.events_path(), problem.into()));
    }
    Ok(())
}

/// Step and dataset of the first evaluation of an arm that lacks the scores of its rows.
fn first_lost(arm: &ArmState) -> Option<(u64, &str)> {
    let scores = arm
        .evaluations
        .iter()
        .flat_map(|e| e.scores.iter().map(|score| (e.step, score)));
    let lost = scores.filter(|(_, score)| score.lacks_rows());
    lost.map(|(step, score)| (step, score.dataset.as_str()))
        .next()
}

fn damaged(path: PathBuf, problem: String) -> RunError {
    RunError::Damaged {
        path,
        line: 0,
        problem,
    }
}

impl RunDir {
    /// Opens the events for appending, with what they tell so far; hold the lock first.
    ///
    /// # Errors
    /// Where they cannot be read, are damaged, or are not those that the checkpoints were written beside.
    pub fn writer(&self, _lock: &RunLock) -> Result<Opened, RunError> {
        let opened = EventWriter::open(&self.events_path())?;
        check(self, &opened.state, Extent::Saved, |mark| {
            opened.before.fits(mark)
        })?;
        Ok(opened)
    }

    /// Follows the events from the beginning.
    pub fn follow(&self) -> Follow {
        Follow::new(&self.events_path())
    }

    /// The same, beginning with what the run's index has, and with a state that is kept thin ([`RunState::thin`]).
    ///
    /// # Errors
    /// Where the events cannot be read or are damaged.
    pub fn follow_quickly(&self) -> Result<Follow, RunError> {
        Follow::quickly(&self.events_path())
    }

    /// What a list of runs shows of one, given whether its lock is held: of a long run without all evaluations but
    /// the last, metrics, replay samples and log.
    ///
    /// # Errors
    /// Where its events cannot be read or are damaged.
    pub fn brief_state(&self, live: bool) -> Result<RunState, RunError> {
        let follow = Follow::briefly(&self.events_path())?;
        if !live {
            follow.check_end()?;
            check_begun(self, &follow.state)?;
        }
        Ok(follow.state)
    }

    /// The state derived from all events so far.
    ///
    /// # Errors
    /// Where they cannot be read or are damaged.
    pub fn load_state(&self) -> Result<RunState, RunError> {
        // The lock before the events: what a worker wrote before it ended is whole.
        let live = self.is_live();
        let mut follow = self.follow();
        follow.catch_up()?;
        if !live {
            follow.check_end()?;
        }
        Ok(follow.state)
    }

    /// The same, refused also where something that was measured is lost.
    ///
    /// # Errors
    /// Names what is lost.
    pub fn checked_state(&self) -> Result<RunState, RunError> {
        let live = self.is_live();
        let mut reader = EventReader::with_marks(&self.events_path());
        let mut state = RunState::default();
        // Those of a live run may be written after its events were read.
        let fit = |mark, reader: &EventReader| live || reader.fits(mark);
        reader.read(|record| state.apply(&record))?;
        if !live {
            reader.check_end()?;
        }
        check(self, &state, Extent::All, |mark| fit(mark, &reader))?;
        Ok(state)
    }

    /// Status of the run.
    ///
    /// # Errors
    /// As [`RunDir::brief_state`].
    pub fn status(&self) -> Result<RunStatus, RunError> {
        let live = self.is_live();
        Ok(Self::status_of(live, &self.brief_state(live)?))
    }

    /// Takes a damaged run back to what is whole of it; what was set aside, in words.
    ///
    /// Events from the first damaged one on are kept under another name, checkpoints that were written beside them are
    /// no longer used, and arms are taken back to the last checkpoint before what is lost. A worker then trains again
    /// what is missing.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn go_back(&self, _lock: &RunLock) -> Result<Vec<String>, RunError> {
        let mut told = Vec::new();
        if let Some(aside) = cut_damage(&self.events_path())? {
            told.push(format!(
                "the events from the first damaged one on are kept as {}",
                aside.display()
            ));
        }
        let mut reader = EventReader::with_marks(&self.events_path());
        let mut state = RunState::default();
        reader.read(|record| state.apply(&record))?;
        if !told.is_empty() {
            let gone = self.forget_added(&state)?.into_iter();
            told.extend(
                gone.map(|arm| format!("arm {arm}, which was added later, is no longer the run's")),
            );
        }
        for store in self.all_checkpoints() {
            let arm = state.arms.iter().find(|arm| store.is_of(&arm.info.slug));
            let first = arm.and_then(first_lost).map_or(u64::MAX, |(step, _)| step);
            let reached = arm.map_or(u64::MAX, |arm| arm.step);
            for (step, mark) in store.marks()? {
                // Those of older versions do not tell.
                let known = mark.map_or(step <= reached, |mark| reader.fits(mark));
                if !known || step >= first {
                    store.set_aside(step)?;
                    let folder = store.folder().display();
                    told.push(format!(
                        "the checkpoint at step {step} in {folder} is set aside"
                    ));
                }
            }
        }
        let mut lost = Vec::new();
        for (arm, state) in state.arms.iter().enumerate() {
            if first_lost(state).is_some() {
                let left = self.checkpoints(&state.info.slug).marks()?;
                lost.push((arm, left.last().map_or(0, |(step, _)| *step)));
            }
        }
        if !lost.is_empty() {
            let mut writer = EventWriter::open(&self.events_path())?.writer;
            for (arm, step) in lost {
                let reason = "scores of single rows are lost".to_owned();
                told.push(format!("arm {arm} goes back to step {step}: {reason}"));
                writer.append(Event::Rewound { arm, step, reason })?;
            }
            writer.sync()?;
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::run::{NamedTensor, OutFolder, Outcomes, fixture};

    /// A run of two arms, each saved behind its last evaluation.
    fn finished(path: &std::path::Path) -> RunDir {
        let OutFolder::Fresh(run) = RunDir::out(path).unwrap() else {
            panic!()
        };
        let lock = run.lock().unwrap();
        let mut writer = run.writer(&lock).unwrap().writer;
        for mut event in fixture::events() {
            if let Event::Evaluated { scores, .. } = &mut event {
                scores[0].outcomes = Some(Arc::new(Outcomes {
                    right: vec![1, 0],
                    ..Outcomes::default()
                }));
            }
            if let Event::ArmFinished { arm, step } = event {
                let slug = &fixture::state().arms[arm].info.slug;
                let tensors = [NamedTensor::f32("w", &[1], &[1.0])];
                let mark = Some(writer.sync().unwrap());
                let store = run.checkpoints(slug);
                store.save(step, 1, &tensors, Value::Null, mark).unwrap();
            }
            writer.append(event).unwrap();
        }
        drop(lock);
        // A process that another test starts just now may hold it for a moment.
        while run.is_live() {
            std::thread::yield_now();
        }
        run
    }

    /// The numbers of lines that hold a text.
    fn lines_with(text: &str, what: &str) -> Vec<usize> {
        let lines = text.lines().enumerate();
        lines
            .filter(|(_, line)| line.contains(what))
            .map(|(at, _)| at)
            .collect()
    }

    /// What was cut off would be missing from tables and CSVs as if it had never been measured.
    #[test]
    fn events_cut_below_a_checkpoint_are_missed_and_the_run_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let run = finished(dir.path());
        let whole = run.checked_state().unwrap();
        let text = fs::read_to_string(run.events_path()).unwrap();
        let last = *lines_with(&text, r#""evaluated","arm":1"#).last().unwrap();
        let kept: Vec<&str> = text.split_inclusive('\n').take(last).collect();
        fs::write(run.events_path(), kept.concat()).unwrap();
        let read = run.checked_state().unwrap_err();
        let lock = run.lock().unwrap();
        let errors = [read, run.writer(&lock).unwrap_err()];
        let slug = &whole.arms[1].info.slug;
        for error in errors.map(|error| error.to_string()) {
            assert!(
                error.contains("are lost") && error.contains(slug),
                "{error}"
            );
        }
        let told = run.go_back(&lock).unwrap().join("\n");
        assert!(
            told.contains(slug) && !told.contains(&whole.arms[0].info.slug),
            "{told}"
        );
        drop(lock);
        let state = run.checked_state().unwrap();
        assert_eq!(state.arms[0], whole.arms[0]);
        assert!(!state.arms[1].status.is_over());
        assert!(run.checkpoints(slug).steps().unwrap().is_empty());

        // Emptied, it tells nothing at all.
        fs::write(run.events_path(), "").unwrap();
        let error = run.checked_state().unwrap_err().to_string();
        assert!(error.contains("tells of no arm"), "{error}");
        run.go_back(&run.lock().unwrap()).unwrap();
        assert_eq!(run.checked_state().unwrap(), RunState::default());
    }

    /// An interval over fewer rows than were measured would be a wrong figure in a paper.
    #[test]
    fn lost_rows_are_missed_and_their_arm_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let run = finished(dir.path());
        let file = run.join("outcomes.jsonl");
        let text = fs::read_to_string(&file).unwrap();
        let third = lines_with(&text, r#"{"arm":0"#)[2];
        let kept = text.split_inclusive('\n').enumerate();
        let kept: String = kept
            .filter(|(at, _)| *at != third)
            .map(|(_, line)| line)
            .collect();
        fs::write(&file, kept).unwrap();
        let error = run.checked_state().unwrap_err().to_string();
        assert!(
            error.contains("outcomes.jsonl") && error.contains("at step 20"),
            "{error}"
        );
        let told = run.go_back(&run.lock().unwrap()).unwrap().join("\n");
        assert!(told.contains("goes back to step 0"), "{told}");
        let state = run.checked_state().unwrap();
        assert_eq!(state.arms[0].evaluations.len(), 1);
        assert!(state.arms[1].status.is_over());
    }
}

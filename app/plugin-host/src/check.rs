//! Checks of a strategy's batch before the training loop uses it.

use forgetlab_plugin_api::abi;
use forgetlab_study::experiment::Objective;

use super::{Capabilities, PhaseContext, ReplayBatch, Teacher, lent::Lent};

/// Buffers a plugin writes its batch into; reused from step to step.
#[derive(Debug, Default)]
pub(super) struct BatchBuffers {
    tokens: Lent<u32>,
    weights: Lent<f32>,
    lengths: Lent<u32>,
    row_objectives: Lent<u8>,
    teacher_ids: Lent<u32>,
    teacher_log_probs: Lent<f32>,
}

impl BatchBuffers {
    /// Makes room for the largest batch of the phase. Buffers are filled with values that fail the
    /// checks, so that entries a plugin does not write are noticed.
    pub(super) fn prepare(&mut self, phase: &PhaseContext) -> Result<abi::ReplayBatch, String> {
        let rows = phase.max_rows;
        let cells = rows * phase.max_seq_len;
        let teacher = self.teacher_ids.len();
        self.tokens
            .fill(cells, u32::MAX)
            .and_then(|()| self.weights.fill(cells, f32::NAN))
            .and_then(|()| self.lengths.fill(rows, 0))
            .and_then(|()| self.row_objectives.fill(rows, u8::MAX))
            .and_then(|()| self.teacher_ids.fill(teacher, u32::MAX))
            .and_then(|()| self.teacher_log_probs.fill(teacher, f32::NAN))
            .map_err(|_| no_memory(cells))?;
        Ok(abi::ReplayBatch {
            struct_size: size_of::<abi::ReplayBatch>() as u64,
            tokens: self.tokens.as_mut_ptr(),
            weights: self.weights.as_mut_ptr(),
            tokens_capacity: cells as u64,
            lengths: self.lengths.as_mut_ptr(),
            row_objectives: self.row_objectives.as_mut_ptr(),
            rows_capacity: phase.max_rows as u64,
            teacher_ids: self.teacher_ids.as_mut_ptr(),
            teacher_log_probs: self.teacher_log_probs.as_mut_ptr(),
            teacher_capacity: teacher as u64,
            rows: 0,
            seq_len: 0,
            teacher_k: 0,
            teacher_snapshot: 0,
            coeff: 0.0,
            teacher: abi::TEACHER_REFERENCE,
            has_weights: 0,
            has_row_objectives: 0,
            has_coeff: 0,
            pad8: 0,
            reserved: [0; 8],
        })
    }

    /// Whether the plugin wrote past the end of a buffer; see [`Lent::overrun`].
    pub(super) fn overrun(&self) -> bool {
        self.tokens.overrun()
            | self.weights.overrun()
            | self.lengths.overrun()
            | self.row_objectives.overrun()
            | self.teacher_ids.overrun()
            | self.teacher_log_probs.overrun()
    }

    /// Makes room for a supplied teacher, if a plugin asked to be called again for that.
    pub(super) fn grow(
        &mut self,
        raw: &abi::ReplayBatch,
        phase: &PhaseContext,
    ) -> Result<(), String> {
        check_shape(raw, phase)?;
        let needed = raw.rows * raw.seq_len * raw.teacher_k;
        if raw.teacher == abi::TEACHER_SUPPLIED && needed > self.teacher_ids.len() as u64 {
            if needed > abi::MAX_ELEMENTS {
                return Err(format!(
                    "a teacher of {needed} entries; at most {} are accepted",
                    abi::MAX_ELEMENTS
                ));
            }
            let needed = needed as usize;
            self.teacher_ids
                .fill(needed, u32::MAX)
                .and_then(|()| self.teacher_log_probs.fill(needed, f32::NAN))
                .map_err(|_| no_memory(needed))?;
        }
        Ok(())
    }

    /// Checks and copies the batch a plugin wrote; the error says what is wrong with it.
    pub(super) fn take(
        &self,
        raw: &abi::ReplayBatch,
        phase: &PhaseContext,
        declared: Capabilities,
    ) -> Result<ReplayBatch, String> {
        check_shape(raw, phase)?;
        let (rows, seq_len) = (raw.rows as usize, raw.seq_len as usize);
        if rows == 0 || seq_len == 0 {
            return Err(format!(
                "a batch of {rows} rows of {seq_len} tokens; to replay nothing, answer \"nothing\""
            ));
        }
        let cells = rows * seq_len;
        let lengths = self.lengths[..rows].to_vec();
        if let Some((row, length)) = first(&lengths, |length| {
            *length == 0 || *length as usize > seq_len
        }) {
            return Err(format!(
                "row {row} has length {length}; it must be from 1 to the padded length {seq_len}"
            ));
        }
        let tokens = self.tokens[..cells].to_vec();
        if let Some((cell, id)) = first(&tokens, |id| *id >= phase.vocab_size) {
            return Err(format!(
                "{} is token id {id}; the vocabulary has {} (padding must be a valid id too)",
                place(cell, seq_len),
                phase.vocab_size
            ));
        }
        Ok(ReplayBatch {
            rows,
            seq_len,
            weights: self.weights(raw.has_weights, &lengths, seq_len)?,
            row_objectives: self.row_objectives(raw.has_row_objectives, rows)?,
            teacher: self.teacher(raw, phase, declared)?,
            coeff: coeff(raw)?,
            tokens,
            lengths,
        })
    }

    fn weights(
        &self,
        has_weights: u8,
        lengths: &[u32],
        seq_len: usize,
    ) -> Result<Vec<f32>, String> {
        let cells = lengths.len() * seq_len;
        let has_weights = flag("has_weights", has_weights)?;
        let mut weights = if has_weights {
            self.weights[..cells].to_vec()
        } else {
            vec![1.0; cells]
        };
        for (row, (weights, length)) in weights.chunks_exact_mut(seq_len).zip(lengths).enumerate() {
            let (true_part, padding) = weights.split_at_mut(*length as usize);
            // Token 0 is never predicted.
            true_part[0] = 0.0;
            if let Some((t, weight)) = first(true_part, |w| !(w.is_finite() && *w >= 0.0)) {
                return Err(format!(
                    "token {t} of row {row} has weight {weight}; weights must be finite and ≥ 0"
                ));
            }
            match first(padding, |w| has_weights && *w != 0.0) {
                Some((t, weight)) => {
                    let t = t + *length as usize;
                    return Err(format!(
                        "token {t} of row {row} is padding and has weight {weight}; padding must weigh 0"
                    ));
                }
                None => padding.fill(0.0),
            }
        }
        Ok(weights)
    }

    fn row_objectives(
        &self,
        has_row_objectives: u8,
        rows: usize,
    ) -> Result<Option<Vec<Option<Objective>>>, String> {
        if !flag("has_row_objectives", has_row_objectives)? {
            return Ok(None);
        }
        let objective = |(row, objective): (usize, &u8)| match *objective {
            abi::OBJECTIVE_DEFAULT => Ok(None),
            abi::OBJECTIVE_KL => Ok(Some(Objective::Kl)),
            abi::OBJECTIVE_NTP => Ok(Some(Objective::Ntp)),
            other => Err(format!(
                "row {row} has objective {other}; there are 0 (the arm's), 1 (kl) and 2 (ntp)"
            )),
        };
        let objectives: Result<Vec<_>, _> = self.row_objectives[..rows]
            .iter()
            .enumerate()
            .map(objective)
            .collect();
        objectives.map(Some)
    }

    fn teacher(
        &self,
        raw: &abi::ReplayBatch,
        phase: &PhaseContext,
        declared: Capabilities,
    ) -> Result<Teacher, String> {
        let undeclared = |capability: &str| {
            Err(format!(
                "its teacher needs {capability}, which the plugin does not declare"
            ))
        };
        match raw.teacher {
            abi::TEACHER_REFERENCE => return Ok(Teacher::Reference),
            abi::TEACHER_SNAPSHOT if declared.contains(Capabilities::SNAPSHOTS) => {
                return Ok(Teacher::Snapshot(raw.teacher_snapshot));
            }
            abi::TEACHER_SNAPSHOT => return undeclared("kept snapshots"),
            abi::TEACHER_SUPPLIED if declared.contains(Capabilities::SUPPLIED_TEACHER) => {}
            abi::TEACHER_SUPPLIED => return undeclared("supplied log-probabilities"),
            other => return Err(format!("there is no teacher kind {other}")),
        }
        let entries = (raw.rows * raw.seq_len * raw.teacher_k) as usize;
        if entries == 0 || entries > self.teacher_ids.len() {
            let room = self.teacher_ids.len();
            return Err(format!(
                "a supplied teacher of {entries} entries in a buffer for {room}"
            ));
        }
        let ids = self.teacher_ids[..entries].to_vec();
        let log_probs = self.teacher_log_probs[..entries].to_vec();
        let k = raw.teacher_k as usize;
        let mut at = place_entries(raw.seq_len as usize, k);
        if let Some((entry, id)) = first(&ids, |id| *id >= phase.vocab_size) {
            return Err(format!(
                "{} names token id {id}; the vocabulary has {}",
                at(entry),
                phase.vocab_size
            ));
        }
        if let Some((entry, value)) = first(&log_probs, |v| !(v.is_finite() && *v <= 1e-4)) {
            return Err(format!(
                "{} has log-probability {value}; it must be finite and ≤ 0",
                at(entry)
            ));
        }
        Ok(Teacher::Supplied { k, ids, log_probs })
    }
}

/// The coefficient of the step, if the batch overrides the arm's.
fn coeff(raw: &abi::ReplayBatch) -> Result<Option<f64>, String> {
    if !flag("has_coeff", raw.has_coeff)? {
        return Ok(None);
    }
    if !raw.coeff.is_finite() || raw.coeff < 0.0 {
        return Err(format!(
            "the coefficient is {}; it must be finite and ≥ 0",
            raw.coeff
        ));
    }
    Ok(Some(raw.coeff))
}

fn check_shape(raw: &abi::ReplayBatch, phase: &PhaseContext) -> Result<(), String> {
    if raw.rows > phase.max_rows as u64 {
        return Err(format!(
            "a batch of {} rows; at most {} are accepted",
            raw.rows, phase.max_rows
        ));
    }
    if raw.seq_len > phase.max_seq_len as u64 {
        return Err(format!(
            "a batch of rows of {} tokens; at most {} are accepted",
            raw.seq_len, phase.max_seq_len
        ));
    }
    if raw.teacher_k > abi::MAX_TOP_K {
        return Err(format!(
            "a teacher of {} entries a token; at most {} are accepted",
            raw.teacher_k,
            abi::MAX_TOP_K
        ));
    }
    Ok(())
}

fn no_memory(cells: usize) -> String {
    format!("no memory for a batch of {cells} tokens or teacher entries")
}

/// The first wrong value, with its index.
fn first<T>(values: &[T], wrong: impl Fn(&T) -> bool) -> Option<(usize, &T)> {
    let at = values.iter().position(wrong)?;
    Some((at, &values[at]))
}

fn flag(name: &str, value: u8) -> Result<bool, String> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("{name} is {other}; it must be 0 or 1")),
    }
}

fn place(cell: usize, seq_len: usize) -> String {
    format!("token {} of row {}", cell % seq_len, cell / seq_len)
}

fn place_entries(seq_len: usize, k: usize) -> impl FnMut(usize) -> String {
    move |entry| {
        format!(
            "teacher entry {} of {}",
            entry % k,
            place(entry / k, seq_len)
        )
    }
}

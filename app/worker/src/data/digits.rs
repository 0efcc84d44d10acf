//! Digit tasks in the paper's layout, after a generic `<bos>`.
//!
//! A row is `<bos> <task> x… <sep> y… <eq> r… <eos>`: operands of `n_digits` digits, a result of
//! `n_digits + 1`, zero-padded, most significant first; tasks of one operand have `<null>` in the
//! place of the second. Three digits give the paper's 14 tokens and one more in front.

use forgetlab_engine::{Random, Stream};
#[cfg(doc)]
use forgetlab_study::experiment::DIGIT_TASKS;

use super::{Accuracy, HeldOut, Rows};

/// Token ids: the paper's 19, then the lab's own.
pub mod token {
    /// Padding at the end of a row; digit rows never need it.
    pub const PAD: u32 = 0;
    /// Between the operands.
    pub const SEP: u32 = 5;
    /// Before the result.
    pub const EQ: u32 = 6;
    /// In the place of a missing operand.
    pub const NULL: u32 = 7;
    /// Ends a row.
    pub const EOS: u32 = 8;
    /// The digit 0; the others follow.
    pub const DIGIT: u32 = 9;
    /// Begins a row.
    pub const BOS: u32 = 19;
    /// Ids are smaller than this.
    pub const VOCAB_SIZE: usize = 22;

    /// Name of a token in text, e.g. `<eq>`.
    pub fn name(id: u32) -> String {
        let fixed = match id {
            PAD => "<pad>",
            SEP => "<sep>",
            EQ => "<eq>",
            NULL => "<null>",
            EOS => "<eos>",
            BOS => "<bos>",
            DIGIT..BOS => return (id - DIGIT).to_string(),
            _ => match super::TASK_TABLE.iter().find(|task| task.token == id) {
                Some(task) => task.name,
                None => "<unknown>",
            },
        };
        fixed.into()
    }
}

/// One task: its name, its token, and its operands.
struct Task {
    name: &'static str,
    token: u32,
    operands: u32,
}

const TASK_TABLE: [Task; 6] = [
    Task {
        name: "add",
        token: 1,
        operands: 2,
    },
    Task {
        name: "reversal",
        token: 2,
        operands: 1,
    },
    Task {
        name: "sort",
        token: 3,
        operands: 1,
    },
    Task {
        name: "modadd",
        token: 4,
        operands: 2,
    },
    Task {
        name: "rotate",
        token: 20,
        operands: 1,
    },
    Task {
        name: "complement",
        token: 21,
        operands: 1,
    },
];

/// One digit task with its held-out share.
#[derive(Clone, Debug, PartialEq)]
pub struct Digits {
    /// Name.
    pub name: &'static str,
    task: u32,
    operands: u32,
    n_digits: usize,
    held_out: f64,
}

impl Digits {
    /// The task called `name`, if there is one; see [`DIGIT_TASKS`].
    pub fn new(name: &str, n_digits: usize, held_out: f64) -> Option<Self> {
        let task = TASK_TABLE.iter().find(|task| task.name == name)?;
        let Task {
            name,
            token,
            operands,
        } = *task;
        Some(Self {
            name,
            task: token,
            operands,
            n_digits,
            held_out,
        })
    }

    /// Tokens of a row.
    pub fn seq_len(&self) -> usize {
        3 * self.n_digits + 6
    }

    /// Tokens up to the `<eq>`.
    pub fn prompt_len(&self) -> usize {
        2 * self.n_digits + 4
    }

    /// The tokens every row begins with: `<bos> <task>`.
    pub fn markers(&self) -> [u32; 2] {
        [token::BOS, self.task]
    }

    /// Number of different inputs.
    pub fn inputs(&self) -> u64 {
        10u64.pow(self.n_digits as u32 * self.operands)
    }

    /// Whether an input is never trained on: decided by its hash, the same for every task and seed.
    fn is_held_out(&self, input: u64) -> bool {
        let hash = blake3::hash(&[&b"forgetlab held-out"[..], &input.to_le_bytes()].concat());
        let (head, _) = hash.as_bytes().as_chunks::<8>();
        (u64::from_le_bytes(head[0]) as f64) < self.held_out * 2f64.powi(64)
    }

    /// What the held-out share leaves no inputs for, `train on` or `evaluate on`; `None` where both have some.
    pub fn lacks(&self) -> Option<&'static str> {
        // Of more inputs than these, every sensible share has some.
        let seen = self.inputs().min(10_000);
        let held = (0..seen).filter(|&i| self.is_held_out(i)).count() as u64;
        match held {
            0 => Some("evaluate on"),
            _ if held == seen => Some("train on"),
            _ => None,
        }
    }

    /// Appends `rows` rows of training inputs drawn uniformly; every token but the first is a target.
    pub fn draw(&self, random: &mut Random, rows: usize, out: &mut Rows) {
        for _ in 0..rows {
            let input = loop {
                let input = random.below(self.inputs());
                if !self.is_held_out(input) {
                    break input;
                }
            };
            self.push(input, out);
        }
    }

    /// Up to `most` held-out rows, the same for every run.
    pub fn held_out(&self, most: usize) -> HeldOut {
        let mut rows = Rows::default();
        if self.inputs() <= 100_000 {
            // All there are, in a shuffled order, so that `most` of them are a fair sample.
            let mut inputs: Vec<u64> = (0..self.inputs())
                .filter(|&i| self.is_held_out(i))
                .collect();
            inputs.sort_by_key(|i| *blake3::hash(&i.to_le_bytes()).as_bytes());
            inputs
                .iter()
                .take(most)
                .for_each(|&input| self.push(input, &mut rows));
        } else {
            let mut random = Stream::new(0, "held-out rows").at(0);
            let mut taken = std::collections::HashSet::new();
            // The share is met on average: half of it is surely there.
            let most = most.min((self.inputs() as f64 * self.held_out / 2.0) as usize);
            while taken.len() < most {
                let input = random.below(self.inputs());
                if self.is_held_out(input) && taken.insert(input) {
                    self.push(input, &mut rows);
                }
            }
        }
        HeldOut {
            dataset: self.name.into(),
            batch: rows.all(token::PAD),
            accuracy: Accuracy::Answers {
                prompt_len: self.prompt_len(),
            },
        }
    }

    fn push(&self, input: u64, rows: &mut Rows) {
        let row = self.encode(input);
        rows.push(&row, &vec![true; row.len()]);
    }

    /// The row of one input: its digits, most significant first.
    fn encode(&self, input: u64) -> Vec<u32> {
        let n = self.n_digits;
        let modulus = 10u64.pow(n as u32);
        let (x, y) = match self.operands {
            2 => (input / modulus, Some(input % modulus)),
            _ => (input, None),
        };
        let digits = |value: u64, count: usize| -> Vec<u32> {
            (0..count)
                .rev()
                .map(|i| (value / 10u64.pow(i as u32) % 10) as u32)
                .collect()
        };
        let xs = digits(x, n);
        let result = match (self.name, y) {
            ("add", Some(y)) => digits(x + y, n + 1),
            ("modadd", Some(y)) => digits((x + y) % modulus, n + 1),
            (name, _) => {
                let mut r = xs.clone();
                match name {
                    "reversal" => r.reverse(),
                    "sort" => r.sort_unstable(),
                    "rotate" => r.rotate_left(1),
                    _ => r.iter_mut().for_each(|d| *d = 9 - *d),
                }
                r.insert(0, 0);
                r
            }
        };
        let digit = |d: u32| token::DIGIT + d;
        let mut out = vec![token::BOS, self.task];
        out.extend(xs.into_iter().map(digit));
        out.push(token::SEP);
        match y {
            Some(y) => out.extend(digits(y, n).into_iter().map(digit)),
            None => out.extend(std::iter::repeat_n(token::NULL, n)),
        }
        out.push(token::EQ);
        out.extend(result.into_iter().map(digit));
        out.push(token::EOS);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forgetlab_study::experiment::DIGIT_TASKS;

    /// A configuration that names a task there is none of would fail after it was found good.
    #[test]
    fn the_names_are_those_that_configurations_may_use() {
        assert_eq!(TASK_TABLE.map(|task| task.name), DIGIT_TASKS);
    }

    /// Rows of the paper's tasks are token for token those of the reference implementation.
    #[test]
    fn rows_agree_with_the_reference_implementation() {
        let fixture: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/fixtures/toy-rows.json")).unwrap();
        for (name, rows) in fixture["rows"].as_object().unwrap() {
            let task = Digits::new(name, 3, 0.1).unwrap();
            for row in rows.as_array().unwrap() {
                let row: Vec<u32> = row
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|t| t.as_u64().unwrap() as u32)
                    .collect();
                let value =
                    |digits: &[u32]| digits.iter().fold(0, |n, d| 10 * n + u64::from(d - 9));
                let input = match task.operands {
                    2 => value(&row[1..4]) * 1000 + value(&row[5..8]),
                    _ => value(&row[1..4]),
                };
                let encoded = task.encode(input);
                assert_eq!(encoded[0], token::BOS);
                assert_eq!(encoded[1..], row);
            }
        }
    }

    #[test]
    fn rotate_and_complement_do_what_they_say() {
        let answer = |name| {
            let row = Digits::new(name, 3, 0.1).unwrap().encode(123);
            row[11..14]
                .iter()
                .map(|t| t - token::DIGIT)
                .collect::<Vec<_>>()
        };
        assert_eq!(answer("rotate"), [2, 3, 1]);
        assert_eq!(answer("complement"), [8, 7, 6]);
    }

    #[test]
    fn held_out_rows_are_never_trained_on() {
        for name in DIGIT_TASKS {
            let task = Digits::new(name, 3, 0.1).unwrap();
            let held_out = task.held_out(500);
            let t = task.seq_len();
            let rows = held_out.batch.rows();
            assert!(if task.operands == 1 {
                (70..130).contains(&rows)
            } else {
                rows == 500
            });
            let held: std::collections::HashSet<&[u32]> = held_out.batch.tokens.chunks(t).collect();
            let mut drawn = Rows::default();
            task.draw(&mut Stream::new(1, "test").at(0), 20_000, &mut drawn);
            let drawn = drawn.all(token::PAD).tokens;
            assert!(drawn.chunks(t).all(|row| !held.contains(row)));
            assert!(drawn.iter().all(|&id| (id as usize) < token::VOCAB_SIZE));
        }
    }
}

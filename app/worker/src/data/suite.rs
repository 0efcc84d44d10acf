//! The datasets of one experiment.

use forgetlab_engine::pretrained::Pretrained;
use forgetlab_engine::{Random, Stream};
use forgetlab_plugin_host::{SpecialTokens, Task};
use forgetlab_study::experiment::{ChatSettings, DataSpec, ModelSpec, RunConfig};
use forgetlab_study::run::Role;

use super::corpora::Corpora;
use super::digits::{Digits, token};
use super::new_rows::NewRows;
use super::texts::{QuestionSet, Texts};
use super::{Batch, DataError, HeldOut, Reduction, Rows, Shuffle, Tokenizer};

/// Every dataset of an experiment: those of its phases in order, then what is only measured.
#[derive(Debug)]
pub struct Suite {
    datasets: Datasets,
    held_out: Vec<HeldOut>,
    /// Dataset of each phase.
    phases: Vec<usize>,
    /// Dataset that is mixed into each phase's, if one is.
    mixed: Vec<Option<usize>>,
}

/// Datasets by their kind, and what speaks their language.
#[derive(Debug)]
enum Datasets {
    Digits(Vec<Digits>),
    Texts(Box<Texts>),
    Corpora(Box<Corpora>),
}

impl Suite {
    /// The datasets of a configuration.
    ///
    /// # Errors
    /// [`DataError`] where a phase names none of them, a file cannot be read or was changed, or one has
    /// no rows to train or evaluate on.
    pub fn new(config: &RunConfig) -> Result<Self, DataError> {
        match (&config.data, &config.model) {
            (DataSpec::Text(text), ModelSpec::Pretrained(model)) => {
                Self::texts(config, Texts::open(text, model)?)
            }
            (DataSpec::Text(_), _) => Err(DataError::Unknown("text".into())),
            (DataSpec::Regression(_), _) => Err(DataError::Unknown("regression".into())),
            (DataSpec::Digits { n_digits, held_out }, _) => {
                Self::digits(config, *n_digits, *held_out)
            }
            (DataSpec::Tokens(tokens), _) => Self::corpora(config, Corpora::open(tokens)?),
        }
    }

    fn digits(config: &RunConfig, n_digits: usize, held_out: f64) -> Result<Self, DataError> {
        let (mut datasets, mut phases) = (Vec::<Digits>::new(), Vec::new());
        for phase in &config.phases {
            let known = datasets.iter().position(|d| d.name == phase.dataset);
            let index = match known {
                Some(index) => index,
                None => {
                    let dataset = Digits::new(&phase.dataset, n_digits, held_out)
                        .ok_or_else(|| DataError::Unknown(phase.dataset.clone()))?;
                    if let Some(what) = dataset.lacks() {
                        let (name, inputs) = (dataset.name, dataset.inputs());
                        return Err(DataError::Empty {
                            name,
                            inputs,
                            held_out,
                            what,
                        });
                    }
                    datasets.push(dataset);
                    datasets.len() - 1
                }
            };
            phases.push(index);
        }
        let rows = config.training.eval_rows;
        Ok(Self {
            held_out: datasets.iter().map(|d| d.held_out(rows)).collect(),
            datasets: Datasets::Digits(datasets),
            mixed: vec![None; phases.len()],
            phases,
        })
    }

    fn texts(config: &RunConfig, mut texts: Texts) -> Result<Self, DataError> {
        // In the order of their first phase, which is the order of the screen and the CSVs.
        let first = |name: &str| config.phases.iter().position(|p| p.dataset == name);
        texts
            .sets
            .sort_by_key(|set| first(&set.name).unwrap_or(usize::MAX));
        let phases = config.phases.iter().map(|phase| {
            let found = texts.sets.iter().position(|set| set.name == phase.dataset);
            found.ok_or_else(|| DataError::Unknown(phase.dataset.clone()))
        });
        let phases = phases.collect::<Result<Vec<_>, _>>()?;
        let rows = config.training.eval_rows;
        Ok(Self {
            held_out: texts
                .sets
                .iter()
                .map(|s| s.held_out(rows, texts.pad))
                .collect(),
            datasets: Datasets::Texts(Box::new(texts)),
            mixed: vec![None; phases.len()],
            phases,
        })
    }

    fn corpora(config: &RunConfig, mut corpora: Corpora) -> Result<Self, DataError> {
        let first = |name: &str| config.phases.iter().position(|p| p.dataset == name);
        corpora
            .sets
            .sort_by_key(|set| first(&set.name).unwrap_or(usize::MAX));
        let find = |name: &str| {
            let found = corpora.sets.iter().position(|set| set.name == name);
            found.ok_or_else(|| DataError::Unknown(name.to_owned()))
        };
        let phases = config.phases.iter().map(|phase| find(&phase.dataset));
        let phases = phases.collect::<Result<_, _>>()?;
        let mixed = config.phases.iter().map(|phase| {
            let mix = phase.mix.as_ref().map(|mix| find(&mix.dataset));
            mix.transpose()
        });
        let mixed = mixed.collect::<Result<_, _>>()?;
        let rows = config.training.eval_rows;
        let held_out = (0..corpora.sets.len()).map(|i| corpora.held_out(i, rows));
        let suite = Self {
            held_out: held_out.collect::<Result<_, _>>()?,
            datasets: Datasets::Corpora(Box::new(corpora)),
            phases,
            mixed,
        };
        suite.check_batches(config)?;
        Ok(suite)
    }

    /// Checks that there is a whole batch to train on in every phase of a configuration, the run's or an arm's.
    ///
    /// # Errors
    /// [`DataError`] names the corpus that is too small, with the sizes.
    pub fn check_batches(&self, config: &RunConfig) -> Result<(), DataError> {
        let Datasets::Corpora(corpora) = &self.datasets else {
            return Ok(());
        };
        for (phase, new) in self.phases.iter().enumerate() {
            let rows = config.in_phase(phase).batch_size;
            let joint = self.phases.first().filter(|_| config.phases[phase].joint);
            for &index in [new].into_iter().chain(&self.mixed[phase]).chain(joint) {
                corpora.check(index, rows)?;
            }
        }
        Ok(())
    }

    /// The pretrained model that the student starts from, if it does from one.
    pub fn pretrained(&self) -> Option<&Pretrained> {
        match &self.datasets {
            Datasets::Digits(_) | Datasets::Corpora(_) => None,
            Datasets::Texts(texts) => Some(&texts.pretrained),
        }
    }

    /// Size of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        match &self.datasets {
            Datasets::Digits(_) => token::VOCAB_SIZE,
            Datasets::Corpora(corpora) => corpora.vocab_size,
            Datasets::Texts(texts) => texts.pretrained.config.vocab_size,
        }
    }

    /// The most tokens of a row; rows of digit tasks all have as many.
    pub fn seq_len(&self) -> usize {
        match &self.datasets {
            Datasets::Digits(digits) => digits.first().map_or(0, Digits::seq_len),
            Datasets::Corpora(corpora) => corpora.seq_len,
            Datasets::Texts(texts) => texts.seq_len,
        }
    }

    /// Held-out rows of every dataset.
    pub fn held_out(&self) -> &[HeldOut] {
        &self.held_out
    }

    /// Hash of the files of a dataset or of questions, where they are read from files.
    pub fn hash_of(&self, name: &str) -> Option<String> {
        let texts = match &self.datasets {
            Datasets::Digits(_) => return None,
            Datasets::Texts(texts) => texts,
            Datasets::Corpora(corpora) => {
                let found = corpora.sets.iter().find(|set| set.name == name);
                return found.map(|set| set.hash.clone());
            }
        };
        let sets = texts.sets.iter().map(|set| (&set.name, &set.hash));
        let questions = texts.questions.iter().map(|set| (&set.name, &set.hash));
        let mut hashes = sets.chain(questions);
        hashes
            .find(|(known, _)| *known == name)
            .map(|(_, hash)| hash.clone())
    }

    /// What of its datasets was left out or cut, a sentence each.
    pub fn losses(&self) -> Vec<String> {
        let Datasets::Texts(texts) = &self.datasets else {
            return Vec::new();
        };
        let told = texts.sets.iter().filter_map(|set| {
            let losses = set.losses.as_ref()?;
            Some(format!("dataset `{}`: {losses}", set.name))
        });
        told.collect()
    }

    /// Multiple-choice questions.
    pub fn questions(&self) -> &[QuestionSet] {
        match &self.datasets {
            Datasets::Digits(_) | Datasets::Corpora(_) => &[],
            Datasets::Texts(texts) => &texts.questions,
        }
    }

    /// The tokenizer of a pretrained model, where there is one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        match &self.datasets {
            Datasets::Digits(_) => None,
            Datasets::Corpora(corpora) => corpora.tokenizer.as_ref(),
            Datasets::Texts(texts) => Some(&texts.tokenizer),
        }
    }

    /// Settings of the chat template.
    pub fn chat_settings(&self) -> ChatSettings {
        match &self.datasets {
            Datasets::Digits(_) | Datasets::Corpora(_) => ChatSettings::default(),
            Datasets::Texts(texts) => texts.chat.clone(),
        }
    }

    /// Role of dataset number `index` in a phase; a dataset that no phase trains is old.
    pub fn role(&self, index: usize, phase: usize) -> Role {
        if self.phases[phase] == index {
            Role::New
        } else if self.phases[..phase].contains(&index) || !self.phases.contains(&index) {
            Role::Old
        } else {
            Role::Future
        }
    }

    /// Datasets of the phases before one.
    pub fn old(&self, phase: usize) -> Vec<usize> {
        let trained = |index: &usize| self.phases[..phase].contains(index);
        (0..self.held_out.len())
            .filter(trained)
            .filter(|&i| self.role(i, phase) == Role::Old)
            .collect()
    }

    /// Number of the dataset a phase trains on.
    pub fn new_dataset(&self, phase: usize) -> usize {
        self.phases[phase]
    }

    /// A dataset as strategies see it.
    pub fn task(&self, index: usize) -> Task {
        match &self.datasets {
            Datasets::Digits(digits) => {
                let dataset = &digits[index];
                Task {
                    name: dataset.name.into(),
                    markers: dataset.markers().to_vec(),
                    sequences: dataset.inputs(),
                }
            }
            Datasets::Corpora(corpora) => {
                let set = &corpora.sets[index];
                Task {
                    name: set.name.clone(),
                    markers: vec![set.marker],
                    sequences: corpora.training_len(index),
                }
            }
            Datasets::Texts(texts) => {
                let set = &texts.sets[index];
                Task {
                    name: set.name.clone(),
                    markers: texts.markers.clone(),
                    sequences: set.train.len() as u64,
                }
            }
        }
    }

    /// Rows of a corpus, those held out included.
    pub fn rows_of(&self, name: &str) -> Option<u64> {
        let Datasets::Corpora(corpora) = &self.datasets else {
            return None;
        };
        let index = corpora.sets.iter().position(|set| set.name == name)?;
        Some(corpora.rows(index))
    }

    /// Hash of the tokenizer of corpora.
    pub fn tokenizer_hash(&self) -> Option<String> {
        Some(self.tokenizer()?.hash().to_owned())
    }

    /// A training row of each of these datasets, drawn at random.
    ///
    /// # Errors
    /// [`DataError`] where a file cannot be read any more.
    pub fn draw(&self, datasets: &[usize], random: &mut Random) -> Result<Batch, DataError> {
        let mut out = Rows::default();
        for &index in datasets {
            match &self.datasets {
                Datasets::Digits(digits) => digits[index].draw(random, 1, &mut out),
                Datasets::Texts(texts) => texts.sets[index].draw(random, 1, &mut out),
                Datasets::Corpora(corpora) => {
                    let row = random.below(corpora.training_len(index));
                    let row = corpora.training_rows(index, &[row])?;
                    out.push(&row.tokens, &row.mask);
                }
            }
        }
        Ok(out.all(self.pad()))
    }

    /// The batch of training rows for a step of a phase.
    ///
    /// Digit tasks draw with replacement from inputs without end; of text every row comes once before any comes
    /// again, of corpora in whole batches.
    ///
    /// # Errors
    /// [`DataError`] where a corpus has no whole batch, or its file cannot be read any more.
    pub fn batch(&self, phase: usize, new: NewRows) -> Result<Batch, DataError> {
        let NewRows {
            seed,
            step,
            rows,
            mixed,
            joint,
        } = new;
        let index = self.phases[phase];
        let stream = Stream::new(seed, &format!("new data, phase {phase}"));
        Ok(match &self.datasets {
            Datasets::Digits(digits) => {
                let mut drawn = Rows::default();
                digits[index].draw(&mut stream.at(step), rows, &mut drawn);
                drawn.all(self.pad())
            }
            Datasets::Texts(texts) => {
                let train = &texts.sets[index].train;
                let mut order = Shuffle::of(stream, train.len());
                train.batch(&order.draw(step * rows as u64, rows), texts.pad)
            }
            Datasets::Corpora(corpora) => {
                let mut batch = corpora.begin_of(index, new, rows)?;
                let other = match joint {
                    true => self.phases.first().copied(),
                    false => self.mixed[phase],
                };
                if let Some(other) = other.filter(|_| mixed > 0) {
                    batch.begin_with(&corpora.begin_of(other, new, mixed)?);
                }
                batch
            }
        })
    }

    /// Divisor of losses.
    pub fn reduction(&self) -> Reduction {
        match &self.datasets {
            Datasets::Digits(_) | Datasets::Corpora(_) => Reduction::Positions,
            Datasets::Texts(_) => Reduction::Targets,
        }
    }

    /// Whether all rows have one length, and a loss at every position.
    pub fn rows_are_alike(&self) -> bool {
        match &self.datasets {
            Datasets::Digits(_) | Datasets::Corpora(_) => true,
            Datasets::Texts(_) => false,
        }
    }

    /// Token that pads rows.
    pub fn pad(&self) -> u32 {
        match &self.datasets {
            Datasets::Digits(_) => token::PAD,
            Datasets::Corpora(_) => 0,
            Datasets::Texts(texts) => texts.pad,
        }
    }

    /// Ids of the special tokens.
    pub fn special_tokens(&self) -> SpecialTokens {
        match &self.datasets {
            Datasets::Digits(_) => SpecialTokens {
                bos: Some(token::BOS),
                eos: Some(token::EOS),
                pad: Some(token::PAD),
            },
            Datasets::Corpora(corpora) => corpora.special,
            Datasets::Texts(texts) => texts.special,
        }
    }

    /// Token ids of text; where there is no tokenizer, token names separated by spaces.
    ///
    /// # Errors
    /// [`DataError::Text`] names the first word that is no token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        if let Some(tokenizer) = self.tokenizer() {
            return Ok(tokenizer.encode(text).map_err(Box::new)?);
        }
        let names: Vec<String> = (0..self.vocab_size() as u32)
            .map(|id| self.token_name(id))
            .collect();
        text.split_whitespace()
            .map(|word| match names.iter().position(|name| name == word) {
                Some(id) => Ok(id as u32),
                None => Err(DataError::Text(word.into())),
            })
            .collect()
    }

    /// Text of tokens; where there is no tokenizer, their names, separated by spaces.
    ///
    /// # Errors
    /// Ids that the tokenizer does not know.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        if let Some(tokenizer) = self.tokenizer() {
            return Ok(tokenizer.decode(tokens).map_err(Box::new)?);
        }
        let names: Vec<String> = tokens.iter().map(|&id| self.token_name(id)).collect();
        Ok(names.join(" "))
    }

    /// Text of tokens, and how many of its characters the first so many of them make, for each of these numbers.
    ///
    /// # Errors
    /// Ids that the tokenizer does not know.
    pub fn decode_parts(
        &self,
        tokens: &[u32],
        parts: impl IntoIterator<Item = usize>,
    ) -> Result<(String, Vec<usize>), DataError> {
        let text = self.decode(tokens)?;
        let ends = parts.into_iter().map(|part| {
            // The bytes of a character may be those of several tokens: then it belongs to the last of them.
            let before = self.decode(&tokens[..part])?;
            let same = text.chars().zip(before.chars()).take_while(|(a, b)| a == b);
            Ok(same.count())
        });
        let ends = ends.collect::<Result<_, DataError>>()?;
        Ok((text, ends))
    }

    /// The dataset whose training rows have this one, or, where the beginning of a row tells its dataset, begin like
    /// it; `None` where that is none or several.
    pub fn dataset_of(&self, row: &[u32]) -> Option<usize> {
        let fits = |index: &usize| match &self.datasets {
            Datasets::Texts(texts) => {
                let mut rows = texts.sets[*index].train.iter();
                rows.any(|(tokens, _)| tokens == row)
            }
            Datasets::Digits(_) | Datasets::Corpora(_) => {
                row.starts_with(&self.task(*index).markers)
            }
        };
        let mut all = (0..self.held_out.len()).filter(fits);
        all.next().filter(|_| all.next().is_none())
    }

    /// Name of a token where there is no tokenizer: of files of tokens alone, its id.
    fn token_name(&self, id: u32) -> String {
        match self.datasets {
            Datasets::Digits(_) => token::name(id),
            Datasets::Texts(_) | Datasets::Corpora(_) => id.to_string(),
        }
    }
}

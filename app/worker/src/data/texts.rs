//! Datasets of text, conversations and questions, in the tokens of a pretrained model.

use forgetlab_engine::Random;
use forgetlab_engine::pretrained::{Hub, Pretrained, open};
use forgetlab_plugin_host::SpecialTokens;
use forgetlab_study::experiment::{
    ChatSettings, PretrainedSpec, QuestionStyle, QuestionsSpec, TextSpec, TokenSetSettings, When,
};

use super::{
    Accuracy, Chat, DataError, Fields, HeldOut, Message, Question, Rows, TokenSet, Tokenizer, hash,
    read_questions,
};

/// Datasets and questions of an experiment on text, with its model and tokenizer.
#[derive(Debug)]
pub(super) struct Texts {
    pub pretrained: Pretrained,
    pub tokenizer: Tokenizer,
    pub sets: Vec<TextSet>,
    pub questions: Vec<QuestionSet>,
    /// Settings of the chat template.
    pub chat: ChatSettings,
    /// The most tokens of a row.
    pub seq_len: usize,
    pub pad: u32,
    /// Tokens that begin a user's turn, or a text where there is no chat template.
    pub markers: Vec<u32>,
    /// Special tokens that the model has; BOS is what begins rows of text.
    pub special: SpecialTokens,
}

/// Rows of a dataset.
#[derive(Debug)]
pub(super) struct TextSet {
    pub name: String,
    /// Hash of its files.
    pub hash: String,
    /// What of its documents was left out or cut, in words.
    pub losses: Option<String>,
    pub train: Rows,
    held_out: Rows,
}

impl Texts {
    /// Opens the model and reads the files.
    pub fn open(spec: &TextSpec, model: &PretrainedSpec) -> Result<Self, DataError> {
        let pretrained = open(&model.pretrained, &Hub::from_env(), &()).map_err(Box::new)?;
        if model.hash.is_some() && pretrained.hash().map_err(Box::new)? != model.hash {
            return Err(DataError::Changed {
                name: model.pretrained.clone(),
            });
        }
        let tokenizer = Tokenizer::of(&pretrained).map_err(Box::new)?;
        let seq_len = spec.rows.seq_len;
        if let Some(most) = pretrained.max_positions.filter(|&most| most < seq_len) {
            return Err(DataError::TooLong {
                seq_len,
                model: pretrained.name,
                most,
            });
        }
        let sets = spec.datasets.iter().map(|dataset| {
            let rows = |source| DataError::Rows {
                name: dataset.name.clone(),
                source: Box::new(source),
            };
            let files = &dataset.files;
            // Read first: what is no data is told before all of it is hashed.
            let set = TokenSet::from_files(files, &Fields::default(), &tokenizer, &spec.rows);
            let set = set.map_err(rows)?;
            let hash = set.provenance.hash();
            unchanged(&dataset.name, &hash, dataset.hash.as_deref())?;
            Ok(TextSet {
                name: dataset.name.clone(),
                hash,
                losses: set.counts.losses(),
                train: set.train,
                held_out: set.held_out,
            })
        });
        let sets = sets.collect::<Result<_, DataError>>()?;
        let questions = spec.questions.iter().map(QuestionSet::open);
        let questions = questions.collect::<Result<_, _>>()?;
        // Padding is no data: a token that the model has not may be in its place.
        let known = |id: &u32| tokenizer.known(*id).is_ok();
        let special = tokenizer.special_tokens();
        let special = SpecialTokens {
            bos: match &spec.rows.bos {
                Some(token) => Some(tokenizer.token_id(token).map_err(Box::new)?),
                None => tokenizer.bos().ok(),
            },
            eos: special.eos.filter(known),
            pad: special.pad.filter(known),
        };
        Ok(Self {
            markers: markers(&tokenizer, &spec.rows, special.bos)?,
            pad: special.pad.or(special.eos).or(special.bos).unwrap_or(0),
            special,
            pretrained,
            tokenizer,
            sets,
            questions,
            chat: spec.rows.chat.clone(),
            seq_len,
        })
    }
}

impl TextSet {
    /// Appends training rows drawn with replacement.
    pub fn draw(&self, random: &mut Random, rows: usize, out: &mut Rows) {
        for _ in 0..rows {
            let (tokens, mask) = self
                .train
                .row(random.below(self.train.len() as u64) as usize);
            out.push(tokens, mask);
        }
    }

    /// Up to `most` held-out rows, from all over the dataset, the same for every run.
    pub fn held_out(&self, most: usize, pad: u32) -> HeldOut {
        let all = self.held_out.len();
        let rows = most.min(all);
        let spread: Vec<usize> = (0..rows).map(|i| i * all / rows).collect();
        HeldOut {
            dataset: self.name.clone(),
            batch: self.held_out.batch(&spread, pad),
            accuracy: Accuracy::Tokens,
        }
    }
}

/// The multiple-choice questions of a dataset that are asked.
#[derive(Debug)]
pub struct QuestionSet {
    /// Name of the dataset.
    pub name: String,
    /// Hash of its file.
    pub hash: String,
    /// How they are asked.
    pub style: QuestionStyle,
    /// When they are asked.
    pub when: When,
    /// The questions.
    pub questions: Vec<Question>,
}

impl QuestionSet {
    fn open(spec: &QuestionsSpec) -> Result<Self, DataError> {
        let unread = |source| DataError::Questions {
            name: spec.name.clone(),
            source: Box::new(source),
        };
        let mut questions = read_questions(&spec.file).map_err(unread)?;
        let hash = hash(&spec.file).map_err(unread)?;
        unchanged(&spec.name, &hash, spec.hash.as_deref())?;
        // Files have their own order, often by difficulty or subject.
        questions.sort_by_cached_key(|q| *blake3::hash(q.question.as_bytes()).as_bytes());
        questions.truncate(spec.most);
        Ok(Self {
            name: spec.name.clone(),
            hash,
            style: spec.style,
            when: spec.when,
            questions,
        })
    }
}

/// Refuses files that have another hash than they had, where that is known.
fn unchanged(name: &str, hash: &str, before: Option<&str>) -> Result<(), DataError> {
    if before.is_some_and(|before| before != hash) {
        return Err(DataError::Changed { name: name.into() });
    }
    Ok(())
}

/// What stands before a user's words, or what begins a text where there is no chat template.
fn markers(
    tokenizer: &Tokenizer,
    rows: &TokenSetSettings,
    bos: Option<u32>,
) -> Result<Vec<u32>, DataError> {
    const WORDS: &str = "\u{f5a1}";
    let user = [Message::new("user", WORDS)];
    let rendered = Chat::new(tokenizer, &rows.chat).and_then(|chat| chat.render(&user, false));
    match rendered.as_deref().map(|text| text.split_once(WORDS)) {
        Ok(Some((header, _))) => Ok(tokenizer.encode(header).map_err(Box::new)?),
        _ => Ok(bos.into_iter().collect()),
    }
}

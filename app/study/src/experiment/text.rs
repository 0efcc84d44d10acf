//! Settings that decide how documents become rows of tokens.

pub use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

/// How documents become rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenSetSettings {
    /// The most tokens of a row.
    pub seq_len: usize,
    /// Share of the documents that is held out.
    pub held_out: f64,
    /// How text becomes rows.
    pub text: TextRows,
    /// What stands between packed documents.
    pub separator: Separator,
    /// What becomes of a conversation longer than a row.
    pub too_long: TooLong,
    /// Name of the token that begins rows of text; the tokenizer's BOS where there is none here.
    pub bos: Option<String>,
    /// Settings of the chat template.
    pub chat: ChatSettings,
}

impl Default for TokenSetSettings {
    fn default() -> Self {
        Self {
            seq_len: 512,
            held_out: 0.05,
            text: TextRows::Packed,
            separator: Separator::Eos,
            too_long: TooLong::Drop,
            bos: None,
            chat: ChatSettings::default(),
        }
    }
}

/// How text becomes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextRows {
    /// Documents follow one another; every row but the last is full.
    Packed,
    /// Every document begins a row of its own.
    Windows,
}

/// What stands between packed documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Separator {
    /// EOS after every document.
    Eos,
    /// The token that begins rows before every document.
    Bos,
    /// Nothing.
    None,
}

/// What becomes of a conversation longer than a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TooLong {
    /// It is left out.
    Drop,
    /// Its end is cut off; left out where that leaves no target.
    Truncate,
}

/// What may be chosen about chat templates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatSettings {
    /// The day that templates which write today's date are told.
    pub date: NaiveDate,
}

impl Default for ChatSettings {
    /// The day that Llama 3.2's template names where it is told none.
    fn default() -> Self {
        Self {
            date: NaiveDate::from_ymd_opt(2024, 7, 26).unwrap_or_default(),
        }
    }
}

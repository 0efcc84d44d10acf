//! Settings that decide how documents become rows of tokens.

pub use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

/// How documents become rows of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenSetSettings {
    /// Maximum number of tokens in a row.
    pub seq_len: usize,
    /// Share of the documents that is held out.
    pub held_out: f64,
    /// How text is split into rows.
    pub text: TextRows,
    /// Separator of packed documents.
    pub separator: Separator,
    /// Treatment of conversations longer than a row.
    pub too_long: TooLong,
    /// Name of the token that begins rows of text; `None` for the tokenizer's BOS.
    pub bos: Option<String>,
    /// Settings of the chat template.
    pub chat: ChatSettings,
    /// Fields of records that are not to be used: others that may carry meaning and have no place are refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
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
            ignore: Vec::new(),
        }
    }
}

/// How text is split into rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextRows {
    /// Documents follow one another; every row but the last is full.
    Packed,
    /// Every document begins a new row.
    Windows,
}

/// Separator of packed documents.
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

/// Treatment of conversations longer than a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TooLong {
    /// Dropped.
    Drop,
    /// Cut off at the end; dropped where that leaves no target.
    Truncate,
}

/// Settings of the chat template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatSettings {
    /// The date given to templates that write today's date.
    pub date: NaiveDate,
}

impl Default for ChatSettings {
    /// The date that Llama 3.2's template uses where it is given none.
    fn default() -> Self {
        Self {
            date: NaiveDate::from_ymd_opt(2024, 7, 26).unwrap_or_default(),
        }
    }
}

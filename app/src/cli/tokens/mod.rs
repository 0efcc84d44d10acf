//! Token files on the command line: `data train-tokenizer`, `data tokenize` and `data inspect`, and what they share with
//! the other commands of `data`.

pub mod inspect;
mod reading;
pub mod tokenize;
pub mod train;

use std::path::Path;

use clap::Args;
use forgetlab_engine::pretrained::is_hub_id;
use forgetlab_worker::data::{Fields, Tokenizer};

use super::model::Downloads;
use super::trained_arm::{self, Model};

/// Names of the fields of records to use, where the usual ones are not meant.
#[derive(Args)]
pub struct FieldArgs {
    /// Field that holds plain text
    #[arg(long, value_name = "FIELD")]
    text: Option<String>,
    /// Field that holds a list of messages
    #[arg(long, value_name = "FIELD")]
    messages: Option<String>,
    /// Field that holds what the user asks
    #[arg(long, value_name = "FIELD")]
    prompt: Option<String>,
    /// Field that holds what the assistant answers
    #[arg(long, value_name = "FIELD")]
    completion: Option<String>,
    /// Fields that are not to be used; others that may carry meaning and have no place are refused
    #[arg(long, value_name = "FIELD,…", value_delimiter = ',')]
    pub ignore: Vec<String>,
}

impl FieldArgs {
    /// The fields.
    pub fn fields(&self) -> Fields {
        Fields {
            text: self.text.clone(),
            messages: self.messages.clone(),
            prompt: self.prompt.clone(),
            completion: self.completion.clone(),
            ignore: self.ignore.clone(),
        }
    }
}

/// Opens the tokenizer of a model folder, a .gguf file, a tokenizer.json, a model on the hub or an arm of a run.
pub fn open_tokenizer(path: &Path) -> anyhow::Result<Tokenizer> {
    let is_file = |id: &str| [".json", ".gguf"].iter().any(|ending| id.ends_with(ending));
    let name = path.to_str().filter(|name| !is_file(name));
    let is_model = match name {
        Some(name) => trained_arm::find(name)?.is_some() || (is_hub_id(name) && !path.exists()),
        None => false,
    };
    match name.filter(|_| is_model) {
        Some(name) => {
            let model = Model::open(name, &Downloads::default())?;
            Ok(Tokenizer::of(&model.pretrained)?)
        }
        None => Ok(Tokenizer::open(path)?),
    }
}

/// CPU threads of this machine.
fn all_threads() -> u16 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(threads).unwrap_or(u16::MAX)
}

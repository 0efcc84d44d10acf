//! Prompts read from a file and used in turn.

use std::fs;

use forgetlab_plugin_api::{Error, Host, Phase};

/// The prompts of a file, as tokens.
pub struct Prompts {
    path: String,
    prompts: Vec<Prompt>,
}

struct Prompt {
    /// Line in the file, from 1.
    line: usize,
    tokens: Vec<u32>,
}

impl Prompts {
    /// Reads a `.txt` (one a line) or a `.jsonl` (field `prompt`); blank lines do not count.
    pub fn read(path: &str, host: &mut Host) -> Result<Self, Error> {
        let text = fs::read_to_string(path)
            .map_err(|error| format!("prompts: cannot read {path}: {error}"))?;
        let is_json = path.ends_with(".jsonl");
        if !is_json && !path.ends_with(".txt") {
            return Err(format!("prompts: {path} is neither a .txt nor a .jsonl").into());
        }
        let mut prompts = Vec::new();
        for (i, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let place = format!("prompts: {path}, line {}", i + 1);
            let prompt = if is_json {
                of_json(line).map_err(|problem| format!("{place}: {problem}"))?
            } else {
                line.to_owned()
            };
            let tokens = host.encode(&prompt).map_err(|error| match error {
                Error::Failed(text) => Error::Failed(format!("{place}: {text}")),
                other => other,
            })?;
            if tokens.is_empty() {
                return Err(format!("{place}: the prompt is empty").into());
            }
            prompts.push(Prompt {
                line: i + 1,
                tokens,
            });
        }
        if prompts.is_empty() {
            return Err(format!("prompts: {path} holds no prompt; write one a line").into());
        }
        let path = path.to_owned();
        Ok(Self { path, prompts })
    }

    /// Refuses a prompt after which a row has no room left.
    pub fn check(&self, phase: &Phase) -> Result<(), Error> {
        let too_long = |prompt: &&Prompt| prompt.tokens.len() >= phase.seq_len;
        let Some(Prompt { line, tokens }) = self.prompts.iter().find(too_long) else {
            return Ok(());
        };
        let (path, len, row) = (&self.path, tokens.len(), phase.seq_len);
        Err(format!(
            "prompts: {path}, line {line}: the prompt has {len} tokens, a whole row has {row}; shorten it"
        )
        .into())
    }

    /// The next `rows` prompts in turn; `place`, the number used so far, is advanced.
    pub fn take(&self, rows: usize, place: &mut u64) -> Vec<Vec<u32>> {
        let first = (*place % self.prompts.len() as u64) as usize;
        *place += rows as u64;
        let in_turn = self.prompts.iter().cycle().skip(first);
        in_turn
            .map(|prompt| prompt.tokens.clone())
            .take(rows)
            .collect()
    }

    /// Hash of the tokens of all prompts (FNV-1a).
    pub fn fingerprint(&self) -> u64 {
        let ids = self
            .prompts
            .iter()
            .flat_map(|prompt| prompt.tokens.iter().chain([&u32::MAX]));
        ids.fold(0xcbf2_9ce4_8422_2325, |hash, &id| {
            (hash ^ u64::from(id)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// The error for a saved state with another fingerprint.
    pub fn changed(&self) -> Error {
        let path = &self.path;
        format!("prompts: {path} was changed since the run was saved; take the change back").into()
    }
}

/// The field `prompt` of a line of JSON.
fn of_json(line: &str) -> Result<String, String> {
    let value: serde_json::Value =
        serde_json::from_str(line).map_err(|error| format!("no JSON: {error}"))?;
    let prompt = value.get("prompt").and_then(|prompt| prompt.as_str());
    prompt
        .map(str::to_owned)
        .ok_or_else(|| "there is no text in the field `prompt`".into())
}

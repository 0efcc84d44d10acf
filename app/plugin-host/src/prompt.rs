//! Settings that say what generated rows begin with, in tokens.

use serde_json::{Map, Value};

use super::{PromptError, Schema, SettingType, SettingsError};

/// Token ids of a prompt: an id, a list of ids, or a text, in which names of special tokens stand for these tokens; the
/// empty text is BOS. `encode` turns a text into tokens and adds none.
///
/// # Errors
/// [`PromptError`]; ids are not compared with the size of a vocabulary.
pub fn prompt_tokens(
    prompt: &Value,
    bos: Option<u32>,
    encode: impl FnOnce(&str) -> Result<Vec<u32>, String>,
) -> Result<Vec<u32>, PromptError> {
    let no_id = || PromptError::NoId(prompt.to_string());
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match prompt {
        Value::String(text) if text.is_empty() => bos.map(|id| vec![id]).ok_or(PromptError::NoBos),
        Value::String(text) => {
            let tokens = encode(text).map_err(PromptError::Failed)?;
            match tokens.len() {
                0 => Err(PromptError::Empty(text.clone())),
                2.. if is_like_special(text) => Err(PromptError::NoToken(text.clone())),
                _ => Ok(tokens),
            }
        }
        Value::Array(ids) if !ids.is_empty() => {
            ids.iter().map(id).collect::<Option<_>>().ok_or_else(no_id)
        }
        one => Ok(vec![id(one).ok_or_else(no_id)?]),
    }
}

/// Whether a text is one name like `<|endoftext|>`.
fn is_like_special(text: &str) -> bool {
    let name = text
        .strip_prefix("<|")
        .and_then(|rest| rest.strip_suffix("|>"));
    name.is_some_and(|name| !name.contains(|c: char| c.is_whitespace() || "<>|".contains(c)))
}

impl Schema {
    /// The settings in the format `prompt`, as token ids; see [`prompt_tokens`].
    ///
    /// # Errors
    /// [`SettingsError::Prompt`] names the first that has no tokens.
    pub fn prompts(
        &self,
        strategy: &str,
        settings: &Map<String, Value>,
        bos: Option<u32>,
        encode: &mut dyn FnMut(&str) -> Result<Vec<u32>, String>,
    ) -> Result<Vec<(String, Vec<u32>)>, SettingsError> {
        let prompts = self.settings.iter().filter_map(|setting| {
            let value = settings.get(&setting.name)?;
            setting
                .types
                .contains(&SettingType::Prompt)
                .then_some((&setting.name, value))
        });
        let prompts = prompts.map(|(name, value)| {
            let tokens = prompt_tokens(value, bos, &mut *encode);
            let tokens = tokens.map_err(|source| SettingsError::Prompt {
                strategy: strategy.into(),
                name: name.clone(),
                source,
            })?;
            Ok((name.clone(), tokens))
        });
        prompts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tokens(prompt: Value, bos: Option<u32>) -> Result<Vec<u32>, PromptError> {
        prompt_tokens(&prompt, bos, |text| match text {
            "<|endoftext|>" => Ok(vec![7]),
            text => Ok(text.bytes().map(u32::from).collect()),
        })
    }

    /// Else replay would begin with other tokens than those that were named.
    #[test]
    fn a_prompt_is_a_name_a_text_or_ids_and_bos_by_default() {
        for (prompt, ids) in [
            (json!(""), vec![3]),
            (json!("<|endoftext|>"), vec![7]),
            (json!("ab"), vec![97, 98]),
            (json!(0), vec![0]),
            (json!([5, 0]), vec![5, 0]),
        ] {
            assert_eq!(tokens(prompt, Some(3)), Ok(ids));
        }
    }

    /// Else a misspelt name would be prompted with letter by letter, or a model without BOS with nothing.
    #[test]
    fn what_is_no_prompt_is_refused() {
        let refused = |prompt: Value| tokens(prompt, None).expect_err("refused");
        assert_eq!(refused(json!("")), PromptError::NoBos);
        let name = "<|end_of_txt|>";
        assert_eq!(refused(json!(name)), PromptError::NoToken(name.into()));
        for prompt in [json!(-1), json!([]), json!([1, "a"]), json!(1u64 << 32)] {
            let words = refused(prompt.clone()).to_string();
            assert!(words.contains(&prompt.to_string()), "{words}");
        }
        // A text may well begin like one.
        assert!(tokens(json!("<|a|> and <|b|>"), None).is_ok());
    }
}

//! The tokenizer of a Hugging Face folder.
//!
//! `tokenizer.json` holds the tokenizer itself; which tokens are BOS, EOS and padding, and the chat
//! template, stand in files beside it that differ with the age of the model.

use std::io;
use std::path::{Path, PathBuf};

use forgetlab_engine::pretrained::builtin;
use forgetlab_plugin_host::SpecialTokens;
use serde_json::Value;

use super::{Parts, TokenizerError};
use crate::data::source::regular;

pub(super) fn open(path: &Path) -> Result<Parts, TokenizerError> {
    let (folder, main) = match builtin::is_dir(path) {
        true => (path, path.join("tokenizer.json")),
        false => (path.parent().unwrap_or(Path::new(".")), path.to_owned()),
    };
    let Some(bytes) = read(&main)? else {
        return Err(TokenizerError::NotFound { path: path.into() });
    };
    let inner =
        tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| TokenizerError::Malformed {
            path: main,
            problem: format!("not a tokenizer: {e}"),
        })?;
    let files = Files {
        config: json(&folder.join("tokenizer_config.json"))?,
        map: json(&folder.join("special_tokens_map.json"))?,
        generation: json(&folder.join("generation_config.json"))?,
    };
    let id = |key: &str| files.special(key, &inner);
    let special = SpecialTokens {
        bos: id("bos_token")?,
        eos: id("eos_token")?,
        pad: id("pad_token")?,
    };
    let mut stop: Vec<u32> = special.eos.into_iter().collect();
    for id in ids(files.generation.value.get("eos_token_id")) {
        if !stop.contains(&id) {
            stop.push(id);
        }
    }
    let first = inner
        .encode_fast("", true)
        .ok()
        .and_then(|e| e.get_ids().first().copied());
    let adds_bos = match files.config.value.get("add_bos_token") {
        Some(Value::Bool(adds)) => *adds,
        _ => special.bos.is_some() && first == special.bos,
    };
    let template = template(folder, &files.config)?;
    // Of a model that is not read here this one number is still known.
    let model = json(&folder.join("config.json")).map_or(Value::Null, |config| config.value);
    let size = [&model, &model["text_config"]].map(|config| config["vocab_size"].as_u64());
    let tool_template = named_template(&files.config, "tool_use").map(str::to_owned);
    let named = files.named();
    Ok(Parts {
        inner,
        json: bytes,
        name: path.display().to_string(),
        special,
        stop,
        adds_bos,
        template,
        model_vocab_size: size.into_iter().flatten().max().map(|size| size as usize),
        tool_template,
        named,
    })
}

/// Bytes of a file of a tokenizer, at most; the largest there are have some tens of millions.
const MOST_BYTES: u64 = 1 << 30;

/// A configuration that need not be there.
struct Json {
    path: PathBuf,
    value: Value,
}

struct Files {
    config: Json,
    map: Json,
    generation: Json,
}

impl Files {
    /// Id of a special token by the first file that speaks of it; `null` says there is none.
    fn special(
        &self,
        key: &str,
        inner: &tokenizers::Tokenizer,
    ) -> Result<Option<u32>, TokenizerError> {
        for file in [&self.config, &self.map] {
            let name = match file.value.get(key) {
                None => continue,
                Some(Value::Null) => return Ok(None),
                Some(Value::String(name)) => name,
                Some(token) => match token.get("content") {
                    Some(Value::String(name)) => name,
                    _ => {
                        let problem = format!("`{key}` is neither a text nor a token: {token}");
                        return Err(file.malformed(problem));
                    }
                },
            };
            let id = inner.token_to_id(name).ok_or_else(|| {
                file.malformed(format!(
                    "`{key}` is `{name}`, which is not in tokenizer.json"
                ))
            });
            return id.map(Some);
        }
        Ok(ids(self.generation.value.get(format!("{key}_id")))
            .first()
            .copied())
    }
}

impl Files {
    /// Texts of the special tokens that have a name of their own, BOS, EOS and padding left out.
    fn named(&self) -> Vec<(String, String)> {
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            token => token.get("content")?.as_str().map(str::to_owned),
        };
        let own = ["bos_token", "eos_token", "pad_token"];
        let mut named: Vec<(String, String)> = Vec::new();
        for file in [&self.config, &self.map] {
            for (name, value) in file.value.as_object().into_iter().flatten() {
                let known = own.contains(&name.as_str()) || named.iter().any(|(n, _)| n == name);
                if name.ends_with("_token") && !known {
                    named.extend(text(value).map(|text| (name.clone(), text)));
                }
            }
        }
        named
    }
}

impl Json {
    fn malformed(&self, problem: String) -> TokenizerError {
        TokenizerError::Malformed {
            path: self.path.clone(),
            problem,
        }
    }
}

/// One id or a list of them.
fn ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(one) => id(one).into_iter().collect(),
        None => Vec::new(),
    }
}

/// The chat template: a file of its own in newer models, else a text or a list of named ones.
fn template(folder: &Path, config: &Json) -> Result<Option<String>, TokenizerError> {
    let path = folder.join("chat_template.jinja");
    if let Some(bytes) = read(&path)? {
        let text = String::from_utf8(bytes).map_err(|_| TokenizerError::Malformed {
            path,
            problem: "not UTF-8".into(),
        })?;
        return Ok(Some(text));
    }
    match config.value.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(_)) => {
            let text = named_template(config, "default").ok_or_else(|| {
                config.malformed("`chat_template` is a list without one named `default`".into())
            })?;
            Ok(Some(text.to_owned()))
        }
        Some(_) => Err(config.malformed("`chat_template` is neither a text nor a list".into())),
    }
}

/// A template of a list of named ones.
fn named_template<'a>(config: &'a Json, name: &str) -> Option<&'a str> {
    let named = config.value.get("chat_template")?.as_array()?;
    let found = named.iter().find(|entry| entry["name"] == name)?;
    found["template"].as_str()
}

fn json(path: &Path) -> Result<Json, TokenizerError> {
    let value = match read(path)? {
        None => Value::Null,
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| TokenizerError::Malformed {
            path: path.into(),
            problem: format!("not JSON: {e}"),
        })?,
    };
    Ok(Json {
        path: path.into(),
        value,
    })
}

/// The bytes of a file, if there is one.
fn read(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    let checked = match builtin::is_builtin(path) {
        true => Ok(()),
        false => regular(path).and_then(|found| match found.len() > MOST_BYTES {
            true => Err(io::Error::other(format!(
                "it has {} bytes, which no tokenizer has",
                found.len()
            ))),
            false => Ok(()),
        }),
    };
    match checked.and_then(|()| builtin::read(path)) {
        Ok(bytes) => Ok(Some(bytes.into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Io {
            path: path.into(),
            source,
        }),
    }
}

//! Documents to tokens.

use std::sync::OnceLock;

use forgetlab_study::experiment::ChatSettings;

use super::{Reserved, TokenizeError};
use crate::data::chat::on_deep_stack;
use crate::data::source::{Part, cut};
use crate::data::{Chat, Content, Conversation, Place, Tokenizer};

/// Bytes of text that are encoded at a time, about, where a cut between words changes no token: what a tokenizer makes
/// of more no longer fits into the caches of memory and allocator.
const PIECE: usize = 1 << 11;
/// The most bytes of text that are encoded at a time: a tokenizer takes a hundred times as many.
const MOST_TEXT: usize = 1 << 16;

/// Encodes documents, on any number of threads at once.
pub(super) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    reserved: &'a Reserved,
    /// Bytes of text that are encoded at a time, about.
    piece: usize,
    /// Compiled where a document is a conversation.
    chat: OnceLock<Chat<'a>>,
}

/// The tokens of documents.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) tokens: Vec<u32>,
    /// Documents that end in them.
    pub(super) documents: u64,
    /// Reserved tokens that were written out in the texts.
    pub(super) reserved: u64,
    /// Bytes of the texts.
    pub(super) bytes: u64,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, reserved: &'a Reserved) -> Self {
        Self {
            tokenizer,
            reserved,
            piece: match tokenizer.splits_before_spaces() {
                true => PIECE,
                false => MOST_TEXT,
            },
            chat: OnceLock::new(),
        }
    }

    /// Encodes documents and parts of them, in their order.
    pub(super) fn encode(&self, parts: &[Part]) -> Result<Encoded, TokenizeError> {
        let mut content = parts.iter().map(|part| &part.document.content);
        match content.any(|content| matches!(content, Content::Chat(_))) {
            true => on_deep_stack(|| self.encode_here(parts))?,
            false => self.encode_here(parts),
        }
    }

    fn encode_here(&self, parts: &[Part]) -> Result<Encoded, TokenizeError> {
        let mut encoded = Encoded::default();
        for Part { document, is_last } in parts {
            match &document.content {
                Content::Text(text) => self.text(text, &document.place, &mut encoded)?,
                Content::Chat(chat) => self.chat(chat, &document.place, &mut encoded)?,
            }
            if *is_last {
                encoded.tokens.extend(self.reserved.eos);
                encoded.documents += 1;
            }
        }
        Ok(encoded)
    }

    fn text(&self, text: &str, place: &Place, encoded: &mut Encoded) -> Result<(), TokenizeError> {
        encoded.bytes += text.len() as u64;
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(cut(rest, self.piece, MOST_TEXT));
            rest = more;
            let tokens = self.tokenizer.encode(piece);
            let tokens = tokens.map_err(|source| TokenizeError::Text {
                place: place.clone(),
                source,
            })?;
            let written_out = tokens.iter().filter(|&&id| self.is_reserved(id));
            encoded.reserved += written_out.count() as u64;
            encoded.tokens.extend(tokens);
        }
        Ok(())
    }

    fn chat(
        &self,
        conversation: &Conversation,
        place: &Place,
        encoded: &mut Encoded,
    ) -> Result<(), TokenizeError> {
        let failed = |source| TokenizeError::Chat {
            place: place.clone(),
            source,
        };
        let chat = match self.chat.get() {
            Some(chat) => chat,
            None => {
                let made = Chat::new(self.tokenizer, &ChatSettings::default());
                let made = made.map_err(failed)?;
                self.chat.get_or_init(|| made)
            }
        };
        let example = chat.encode(conversation).map_err(failed)?;
        let said = conversation.parts();
        encoded.bytes += said.iter().map(|part| part.len() as u64).sum::<u64>();
        encoded.tokens.extend(example.tokens);
        Ok(())
    }

    fn is_reserved(&self, id: u32) -> bool {
        self.reserved.eos == Some(id) || self.reserved.markers.contains(&id)
    }
}

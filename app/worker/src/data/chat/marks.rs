//! What gives a conversation away among texts of other kinds.

use super::super::tokenizer::SEPARATORS;
use super::{Chat, ChatError, Message};

impl Chat<'_> {
    /// Texts that stand between the turns of a conversation, and in other texts hardly ever: special tokens where the
    /// template writes any, else its words, such as `[/INST]`. What also separates or ends documents is none of them.
    ///
    /// # Errors
    /// Where the template fails or refuses an ordinary conversation.
    pub fn marks(&self) -> Result<Vec<String>, ChatError> {
        const WORDS: [&str; 3] = ["\u{f5a1}", "\u{f5a2}", "\u{f5a3}"];
        let turns = ["user", "assistant", "user"].into_iter().zip(WORDS);
        let turns: Vec<Message> = turns.map(|(role, text)| Message::new(role, text)).collect();
        let text = self.render(&turns, false)?;
        let mut marks: Vec<String> = Vec::new();
        for pair in WORDS.windows(2) {
            let between = text.split_once(pair[0]).map_or("", |(_, rest)| rest);
            let (between, _) = between.split_once(pair[1]).unwrap_or_default();
            for mark in self.marks_of(between) {
                if !marks.contains(&mark) {
                    marks.push(mark);
                }
            }
        }
        Ok(marks)
    }

    /// The special tokens of a piece of a template, or what is left without them.
    fn marks_of(&self, piece: &str) -> Vec<String> {
        let tokenizer = self.tokenizer;
        let eos = tokenizer.special_tokens().eos;
        let eos = eos.and_then(|id| tokenizer.token_name(id));
        let ends = |text: &str| SEPARATORS.contains(&text) || eos.as_deref() == Some(text);
        let (mut special, mut words, mut rest) = (Vec::new(), String::new(), piece);
        while let Some(c) = rest.chars().next() {
            let len = tokenizer.special_at(rest);
            let (head, tail) = rest.split_at(len.unwrap_or(c.len_utf8()));
            match len {
                Some(_) if ends(head) => {}
                Some(_) => special.push(head.to_owned()),
                None => words.push_str(head),
            }
            rest = tail;
        }
        let words = Some(words.trim().to_owned()).filter(|words| !words.is_empty());
        match special.is_empty() {
            true => words.into_iter().collect(),
            false => special,
        }
    }
}

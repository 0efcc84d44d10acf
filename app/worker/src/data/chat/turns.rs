//! Where in a rendered conversation the turns of the assistant stand.
//!
//! What a template writes for a turn is found by rendering the conversation up to the turn once more, with a mark
//! for all the assistant says in it: what stands before the mark and after it in both is the template's, the rest
//! is the turn, however the template trims, splits off reasoning or writes calls of tools. The turn begins where
//! the prompt for generation ends, since everything after it is the model's to write; it ends with the token that
//! ends a turn. Where a template writes a turn otherwise when others follow (it drops earlier reasoning, or moves
//! the tools), the same is done in the whole conversation, and checked against the messages beside it.

use std::ops::Range;

use minijinja::Value;

use crate::data::Tokenizer;

use super::{ChatError, Conversation, Message, Template};

/// Stands for what somebody wrote: private-use characters that no text or template holds.
pub(super) const MARK: &str = "\u{f5a1}\u{f5b2}\u{f5c3}";

/// A conversation in which turns are looked for.
pub(super) struct Turns<'a> {
    tokenizer: &'a Tokenizer,
    template: &'a Template,
    conversation: &'a Conversation,
    /// The conversation rendered.
    text: &'a str,
}

/// A turn as the last of the conversation.
struct Cut {
    text: String,
    /// Bytes that the assistant wrote.
    body: Range<usize>,
    /// What ends the turn: white space and a special token.
    end: String,
    /// What the prompt for generation adds to the conversation before the turn.
    header: String,
}

impl<'a> Turns<'a> {
    pub(super) fn new(
        tokenizer: &'a Tokenizer,
        template: &'a Template,
        conversation: &'a Conversation,
        text: &'a str,
    ) -> Self {
        Self {
            tokenizer,
            template,
            conversation,
            text,
        }
    }

    /// Bytes of the turns of the assistant's that are wanted, ends of turns included.
    pub(super) fn of(
        &self,
        wanted: impl Fn(&Message) -> bool,
    ) -> Result<Vec<Range<usize>>, ChatError> {
        let (mut turns, mut before) = (Vec::new(), 0);
        for (i, message) in self.conversation.messages.iter().enumerate() {
            if message.role == "assistant" && wanted(message) {
                let scattered = ChatError::Scattered { turn: i + 1 };
                let turn = self.turn(i, before).ok_or(scattered)?;
                before = turn.end;
                turns.push(turn);
            }
        }
        Ok(turns)
    }

    fn render(&self, conversation: &Conversation, generation: bool) -> Option<String> {
        self.template.text(conversation, generation).ok()
    }

    /// The turn of a message, which stands behind the byte `before`.
    fn turn(&self, i: usize, before: usize) -> Option<Range<usize>> {
        let cut = self.cut(i)?;
        let same = self.text.starts_with(&cut.text[..cut.body.end]);
        if same && cut.body.start >= before {
            return Some(self.ended(cut.body, &cut.end));
        }
        let bounds = self.bounds(i, before);
        let whole = self.in_whole(i, &cut, &bounds);
        whole.or_else(|| self.found(&cut, &bounds))
    }

    /// A turn with the token that ends it, where it is there: a special token that is not written when the turn is
    /// the last begins the next turn.
    fn ended(&self, body: Range<usize>, end: &str) -> Range<usize> {
        let ended = self.text[body.end..].starts_with(end);
        body.start..body.end + if ended { end.len() } else { 0 }
    }

    /// Looks at the turn as the last of the conversation.
    fn cut(&self, i: usize) -> Option<Cut> {
        let conversation = self.conversation.first(i + 1);
        let text = self.render(&conversation, false)?;
        let marked = self.marked(&conversation, i)?;
        let (before, after) = marked.split_once(MARK)?;
        let mut body = differing(&text, before, after)?;
        let end = match text[body.end..].len() == after.len() {
            true => after[..self.end_of_turn(after)].to_owned(),
            false => String::new(),
        };
        let mut header = String::new();
        if i > 0 {
            let earlier = self.conversation.first(i);
            let prompt = self.render(&earlier, true).unwrap_or_default();
            let plain = self.render(&earlier, false).unwrap_or_default();
            let (from, to) = (common_start(&plain, &prompt), common_start(&text, &prompt));
            header = prompt[from..].to_owned();
            let whole = to == prompt.len() && to <= body.end;
            if to > from && (whole || to <= body.start) {
                body.start = to;
            }
        }
        Some(Cut {
            text,
            body,
            end,
            header,
        })
    }

    /// The conversation rendered with a mark for all that a message says.
    fn marked(&self, conversation: &Conversation, i: usize) -> Option<String> {
        let message = &conversation.messages[i];
        let bare = Message::new(&message.role, MARK);
        let text = self.with(conversation, i, bare);
        text.filter(|text| text.matches(MARK).count() == 1)
    }

    fn with(&self, conversation: &Conversation, i: usize, message: Message) -> Option<String> {
        let mut changed = conversation.clone();
        changed.messages[i] = message;
        self.render(&changed, false)
    }

    /// Between which bytes a turn must stand: after what the message before it says, and before what the next does.
    fn bounds(&self, i: usize, before: usize) -> Range<usize> {
        let text = self.text;
        let changed = |j: usize| {
            let mut message = self.conversation.messages[j].clone();
            message.set("content", Value::from(MARK));
            let changed = self.with(self.conversation, j, message)?;
            changed.contains(MARK).then_some(changed)
        };
        let last = i.checked_sub(1).and_then(changed);
        let next = Some(i + 1)
            .filter(|&j| j < self.conversation.messages.len())
            .and_then(changed);
        let from = last.map_or(0, |last| text.len() - common_end(text, &last));
        let to = next.map_or(text.len(), |next| common_start(text, &next));
        from.max(before)..to
    }

    /// Looks at the turn in the whole conversation.
    fn in_whole(&self, i: usize, cut: &Cut, bounds: &Range<usize>) -> Option<Range<usize>> {
        let marked = self.marked(self.conversation, i)?;
        let (before, after) = marked.split_once(MARK)?;
        let mut body = differing(self.text, before, after)?;
        if body.start < bounds.start || body.end > bounds.end {
            return None;
        }
        if let Some(at) = self.text[bounds.start..body.start].rfind(&cut.header)
            && !cut.header.is_empty()
        {
            body.start = bounds.start + at + cut.header.len();
        }
        Some(self.ended(body, &cut.end))
    }

    /// The turn as it stands last, where it stands once between the bounds.
    fn found(&self, cut: &Cut, bounds: &Range<usize>) -> Option<Range<usize>> {
        let turn = &cut.text[cut.body.clone()];
        let within = self.text.get(bounds.clone())?;
        let mut places = within.match_indices(turn);
        let (at, _) = places.next().filter(|_| !turn.is_empty())?;
        let start = bounds.start + at;
        let once = places.next().is_none();
        once.then(|| self.ended(start..start + turn.len(), &cut.end))
    }

    /// Length of the special token that `tail` begins with, and of any space before it.
    fn end_of_turn(&self, tail: &str) -> usize {
        let trimmed = tail.trim_start();
        match self.tokenizer.special_at(trimmed) {
            Some(n) => tail.len() - trimmed.len() + n,
            None => 0,
        }
    }
}

/// What of `text` neither begins as `before` does nor ends as `after` does.
fn differing(text: &str, before: &str, after: &str) -> Option<Range<usize>> {
    let start = common_start(text, before);
    let end = text.len() - common_end(text, after);
    (start <= end).then_some(start..end)
}

/// Bytes that both begin with, in whole characters.
fn common_start(a: &str, b: &str) -> usize {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    (0..=same)
        .rev()
        .find(|&n| a.is_char_boundary(n))
        .unwrap_or(0)
}

/// Bytes that both end with, in whole characters.
fn common_end(a: &str, b: &str) -> usize {
    let pairs = a.bytes().rev().zip(b.bytes().rev());
    let same = pairs.take_while(|(a, b)| a == b).count();
    (0..=same)
        .rev()
        .find(|&n| a.is_char_boundary(a.len() - n))
        .unwrap_or(0)
}

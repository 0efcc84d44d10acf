//! From a text to a filter.

use super::fields::{self, FieldKind, SETTING, field, field_names};
use super::test::{NumberTest, Operator, TextTest, number};
use super::{Expression, FilterError, config};

/// Brackets and exclusions within each other; nobody types more.
const DEEPEST: usize = 100;

pub(super) fn parse(text: &str) -> Result<Expression, FilterError> {
    let mut parser = Parser {
        chars: text.chars().collect(),
        at: 0,
        depth: 0,
    };
    parser.skip_space();
    if parser.peek().is_none() {
        return Ok(Expression::default());
    }
    let expression = parser.any()?;
    match parser.peek() {
        None => Ok(expression),
        Some(_) => Err(parser.fault("`)` without a `(` before it")),
    }
}

struct Parser {
    chars: Vec<char>,
    /// Characters read.
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn fault(&self, words: impl Into<String>) -> FilterError {
        self.fault_at(self.at, words)
    }

    fn fault_at(&self, position: usize, words: impl Into<String>) -> FilterError {
        FilterError {
            position: position.min(self.chars.len()),
            words: words.into(),
        }
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// Takes a word of the language, where it stands here by itself.
    fn take(&mut self, word: &str) -> bool {
        let end = self.at + word.len();
        let here = self.chars.get(self.at..end);
        let is_here = here.is_some_and(|here| here.iter().copied().eq(word.chars()));
        let alone = self
            .chars
            .get(end)
            .is_none_or(|&c| c.is_whitespace() || c == '(' || c == ')');
        if is_here && alone {
            self.at = end;
            self.skip_space();
        }
        is_here && alone
    }

    /// `all OR all ...`
    fn any(&mut self) -> Result<Expression, FilterError> {
        let mut parts = vec![self.all()?];
        while self.take("OR") {
            parts.push(self.all()?);
        }
        Ok(one_or(parts, Expression::Any))
    }

    /// `not AND not not ...`
    fn all(&mut self) -> Result<Expression, FilterError> {
        let mut parts = vec![self.not()?];
        loop {
            let asked = self.take("AND");
            let ends = match self.peek() {
                None | Some(')') => true,
                Some(_) => self.stands("OR"),
            };
            match (asked, ends) {
                (false, true) => return Ok(one_or(parts, Expression::All)),
                (true, true) => return Err(self.fault("something must stand after AND")),
                (_, false) => parts.push(self.not()?),
            }
        }
    }

    /// Whether a word of the language stands here.
    fn stands(&mut self, word: &str) -> bool {
        let at = self.at;
        let stands = self.take(word);
        self.at = at;
        stands
    }

    fn not(&mut self) -> Result<Expression, FilterError> {
        let mut negated = false;
        loop {
            let at = self.at;
            if self.take("NOT") {
                negated = !negated;
            } else if self.peek() == Some('-') {
                self.at += 1;
                negated = !negated;
            } else {
                break;
            }
            let follows = self.peek().filter(|c| !c.is_whitespace() && *c != ')');
            if follows.is_none() {
                return Err(self.fault_at(at, "something to exclude must stand after this"));
            }
        }
        let part = self.part()?;
        Ok(match negated {
            true => Expression::Not(Box::new(part)),
            false => part,
        })
    }

    /// `(...)`, a word in quotes or not, or a condition.
    fn part(&mut self) -> Result<Expression, FilterError> {
        let start = self.at;
        match self.peek() {
            Some('(') => {
                self.depth += 1;
                if self.depth > DEEPEST {
                    return Err(self.fault("too many brackets in each other"));
                }
                self.at += 1;
                self.skip_space();
                let inside = self.any()?;
                if self.peek() != Some(')') {
                    return Err(self.fault_at(start, "this `(` has no `)`"));
                }
                self.at += 1;
                self.depth -= 1;
                self.skip_space();
                Ok(inside)
            }
            Some('"') => {
                let text = self.quoted()?;
                self.skip_space();
                Ok(word(&text))
            }
            None | Some(')') => Err(self.fault("a word or a condition must stand here")),
            Some(_) => {
                for word in ["AND", "OR"] {
                    if self.stands(word) {
                        return Err(self.fault(format!("something must stand before {word}")));
                    }
                }
                self.word_or_condition()
            }
        }
    }

    fn word_or_condition(&mut self) -> Result<Expression, FilterError> {
        let start = self.at;
        while let Some(c) = self.peek() {
            if c.is_whitespace() || matches!(c, '(' | ')') || self.operator().is_some() {
                break;
            }
            self.at += 1;
        }
        let name: String = self.chars[start..self.at].iter().collect();
        let end = self.at;
        self.skip_space();
        // `name : x` is a word, a colon and a word; `forgot > 1` is what it looks like.
        let operator = self
            .operator()
            .filter(|(_, operator)| end == self.at || *operator != Operator::Has);
        let Some((length, operator)) = operator else {
            return match name.strip_prefix(SETTING) {
                Some(_) => Err(self.fault_at(
                    end,
                    format!("how is `{name}` to be? write e.g. {name}=1, or put it in quotes"),
                )),
                None => Ok(word(&name)),
            };
        };
        if name.is_empty() {
            let sign = operator.sign();
            let words = format!(
                "a field must stand before `{sign}`, e.g. forgot{sign}...; or put it in quotes"
            );
            return Err(self.fault(words));
        }
        let sign = self.at;
        self.at += length;
        let known = match name.strip_prefix(SETTING) {
            Some(path) => Known::Setting(path.split('.').map(str::to_owned).collect()),
            None => Known::Field(field(&name).ok_or_else(|| self.unknown(start, &name))?),
        };
        self.skip_space();
        let at = self.at;
        let value = self.value()?;
        let Some(value) = value else {
            let words = format!("a value must stand after `{name}{}`", operator.sign());
            return Err(self.fault_at(at, words));
        };
        self.skip_space();
        self.condition(known, operator, &value, sign, at)
    }

    fn condition(
        &self,
        known: Known,
        operator: Operator,
        value: &str,
        sign: usize,
        at: usize,
    ) -> Result<Expression, FilterError> {
        match known {
            Known::Setting(path) => {
                let test = config::Test::new(operator, value);
                let test = test.map_err(|words| self.fault_at(at, words))?;
                Ok(Expression::Setting(path, test))
            }
            Known::Field(field) if field.kind == FieldKind::Text => {
                if operator.is_order() {
                    let words = format!(
                        "`{}` is a text; ask for it with `:`, `=`, `!=` or `~`",
                        field.name
                    );
                    return Err(self.fault_at(sign, words));
                }
                let test = TextTest::new(operator, value);
                let test = test.map_err(|words| self.fault_at(at, words))?;
                Ok(Expression::Text(field, test))
            }
            Known::Field(field) => {
                if operator == Operator::Like {
                    let words = format!(
                        "`{}` is a figure; ask for it with `=`, `!=`, `>`, `>=`, `<` or `<=`",
                        field.name
                    );
                    return Err(self.fault_at(sign, words));
                }
                let value = number(value)
                    .ok_or_else(|| self.fault_at(at, config::no_number(value, operator)))?;
                Ok(Expression::Number(field, NumberTest::new(operator, value)))
            }
        }
    }

    /// The operator that stands here, and its length.
    fn operator(&self) -> Option<(usize, Operator)> {
        let stands = |sign: &str| {
            let here = self.chars.get(self.at..self.at + sign.len());
            here.is_some_and(|here| here.iter().copied().eq(sign.chars()))
        };
        let mut all = Operator::ALL.into_iter();
        let (sign, operator) = all.find(|(sign, _)| stands(sign))?;
        Some((sign.len(), operator))
    }

    fn unknown(&self, position: usize, name: &str) -> FilterError {
        let near = match fields::near(name) {
            Some(near) => format!("; did you mean `{near}`?"),
            None => ".".to_owned(),
        };
        let words = format!(
            "there is no field `{name}`{near} There are {}; a text with such a sign in it stands in quotes",
            field_names()
        );
        self.fault_at(position, words)
    }

    /// A value: in quotes, or up to a space or to a bracket that was not opened in it; `None` where there is none.
    fn value(&mut self) -> Result<Option<String>, FilterError> {
        if self.peek() == Some('"') {
            return self.quoted().map(Some);
        }
        let start = self.at;
        let mut open = 0;
        while let Some(c) = self.peek() {
            match c {
                '(' => open += 1,
                ')' if open == 0 => break,
                ')' => open -= 1,
                c if c.is_whitespace() => break,
                _ => {}
            }
            self.at += 1;
        }
        let value: String = self.chars[start..self.at].iter().collect();
        Ok(Some(value).filter(|value| !value.is_empty()))
    }

    /// A text in quotes; a quote or a backslash in it has a backslash before it.
    fn quoted(&mut self) -> Result<String, FilterError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '"' => return Ok(text),
                '\\' if matches!(self.peek(), Some('"' | '\\')) => {
                    text.extend(self.peek());
                    self.at += 1;
                }
                c => text.push(c),
            }
        }
        Err(self.fault_at(start, "this quote has no end"))
    }
}

/// What a condition is about.
enum Known {
    Field(fields::Field),
    Setting(Vec<String>),
}

fn word(text: &str) -> Expression {
    Expression::Word(TextTest::Has(text.to_lowercase()))
}

fn one_or(mut parts: Vec<Expression>, several: fn(Vec<Expression>) -> Expression) -> Expression {
    match (parts.len(), parts.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            parts.extend(last);
            several(parts)
        }
    }
}

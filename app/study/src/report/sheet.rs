//! A table of texts, written for a terminal, as Markdown or as LaTeX.

use std::fmt::Write;

use crate::printed::one_line;

/// Characters a table may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyphs {
    /// Box drawing and ellipsis.
    Unicode,
    /// Plain ASCII.
    Ascii,
}

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a terminal of 80 columns.
    Text(Glyphs),
    /// A Markdown table.
    Markdown,
    /// A LaTeX table for the package `booktabs`.
    Latex,
}

/// A table: a title, a head, rows whose first field is a name, and notes below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sheet {
    /// What it shows.
    pub title: String,
    /// Names of the columns; the first is that of the names.
    pub head: Vec<String>,
    /// As many fields a row as the head has.
    pub rows: Vec<Vec<String>>,
    /// Sentences that belong to it.
    pub notes: Vec<String>,
    /// Lines to be found again as they are, such as errors.
    pub messages: Vec<String>,
}

/// Columns of a terminal.
const WIDTH: usize = 80;

impl Sheet {
    /// A table without rows.
    pub fn new(title: impl Into<String>, head: &[&str]) -> Self {
        Self {
            title: title.into(),
            head: head.iter().map(|&name| name.to_owned()).collect(),
            ..Self::default()
        }
    }

    /// Writes the table.
    pub fn write(&self, format: Format) -> String {
        let lines = self.map(|field| one_line(field).into_owned());
        match format {
            Format::Text(glyphs) => lines.text(glyphs),
            Format::Markdown => lines.markdown(),
            Format::Latex => lines.latex(),
        }
    }

    /// The rows below their head as CSV, without title and notes.
    pub fn csv(&self) -> String {
        let lines = self.map(|field| one_line(field).into_owned());
        let mut csv = csv::Writer::from_writer(Vec::new());
        for row in [&lines.head].into_iter().chain(&lines.rows) {
            // Nothing fails in memory.
            let _ = csv.write_record(row);
        }
        let bytes = csv.into_inner().unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Columns two spaces apart, the first aligned left, the others right. A name that leaves the others no room stands
    /// on a line of its own, whole; columns that do not fit beside each other follow in further blocks.
    fn text(&self, glyphs: Glyphs) -> String {
        if glyphs == Glyphs::Ascii && !self.is_ascii() {
            return self.ascii().text(glyphs);
        }
        let mut text = String::new();
        if !self.title.is_empty() {
            for line in wrapped(&self.title) {
                let _ = writeln!(text, "{line}");
            }
        }
        let mut from = 1;
        while from < self.head.len().max(2) {
            let end = self.block_end(from).max(from + 1);
            if from > 1 {
                text.push('\n');
            }
            self.block(from..end.min(self.head.len()), glyphs, &mut text);
            from = end;
        }
        for line in self.notes.iter().flat_map(|note| wrapped(note)) {
            let _ = writeln!(text, "{line}");
        }
        for message in &self.messages {
            let _ = writeln!(text, "{message}");
        }
        text
    }

    fn is_ascii(&self) -> bool {
        let rows = self
            .rows
            .iter()
            .chain([&self.head, &self.notes, &self.messages])
            .flatten();
        rows.chain([&self.title]).all(|field| field.is_ascii())
    }

    /// The same in ASCII alone.
    fn ascii(&self) -> Self {
        self.map(|field| {
            let field = field.replace('±', "+-").replace('−', "-");
            field
                .chars()
                .map(|c| if c.is_ascii() { c } else { '.' })
                .collect()
        })
    }

    /// The same with other texts.
    fn map(&self, text: impl Fn(&str) -> String) -> Self {
        let all = |texts: &[String]| texts.iter().map(|field| text(field)).collect();
        Self {
            title: text(&self.title),
            head: all(&self.head),
            rows: self.rows.iter().map(|row| all(row)).collect(),
            notes: all(&self.notes),
            messages: all(&self.messages),
        }
    }

    fn column_width(&self, column: usize) -> usize {
        let fields = self.rows.iter().filter_map(|row| row.get(column));
        let fields = fields.chain(self.head.get(column));
        fields.map(|field| field.chars().count()).max().unwrap_or(0)
    }

    /// The end of the columns that stand beside each other from one on: all where the names leave room for them, if
    /// only on lines of their own.
    fn block_end(&self, from: usize) -> usize {
        let end = |name: usize| {
            let mut width = self.column_width(0).min(name);
            let fits = (from..self.head.len()).take_while(|&column| {
                width += 2 + self.column_width(column);
                width <= WIDTH
            });
            from + fits.count()
        };
        match end(12) {
            all if all == self.head.len() => all,
            _ => end(24),
        }
    }

    fn block(&self, columns: std::ops::Range<usize>, glyphs: Glyphs, text: &mut String) {
        let widths: Vec<usize> = columns
            .clone()
            .map(|column| self.column_width(column))
            .collect();
        let others: usize = widths.iter().map(|width| width + 2).sum();
        let room = WIDTH.saturating_sub(others).max(12);
        let first = self.column_width(0).min(room);
        let line = |row: &[String]| -> String {
            let name = row.first().map_or("", String::as_str);
            let mut line = match name.chars().count() <= first {
                true => format!("{name:<first$}"),
                false => format!("{name}\n{:first$}", ""),
            };
            for (column, width) in columns.clone().zip(&widths) {
                let field = row.get(column).map_or("", String::as_str);
                let _ = write!(line, "  {field:>width$}");
            }
            line.lines()
                .map(|line| format!("{}\n", line.trim_end()))
                .collect()
        };
        text.push_str(&line(&self.head));
        let rule = if glyphs == Glyphs::Ascii { "-" } else { "─" };
        let _ = writeln!(text, "{}", rule.repeat(first + others));
        self.rows.iter().for_each(|row| text.push_str(&line(row)));
    }

    fn markdown(&self) -> String {
        let escape = |field: &String| field.replace('|', "\\|");
        let mut text = format!("**{}**\n\n", self.title);
        let line = |row: &[String]| {
            format!(
                "| {} |\n",
                row.iter().map(escape).collect::<Vec<_>>().join(" | ")
            )
        };
        text.push_str(&line(&self.head));
        let rules = (0..self.head.len()).map(|column| if column == 0 { "---" } else { "---:" });
        let _ = writeln!(text, "| {} |", rules.collect::<Vec<_>>().join(" | "));
        for row in &self.rows {
            let mut row = row.clone();
            // A name as it is typed, whatever Markdown makes of its characters.
            if let Some(name) = row.first_mut() {
                *name = format!("`{name}`");
            }
            text.push_str(&line(&row));
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        for message in &self.messages {
            let _ = write!(text, "\n    {message}\n");
        }
        text
    }

    fn latex(&self) -> String {
        let line = |row: &[String]| {
            let fields: Vec<String> = row.iter().map(|field| latex(field)).collect();
            format!("    {} \\\\\n", fields.join(" & "))
        };
        let columns = "r".repeat(self.head.len().saturating_sub(1));
        let mut text = format!(
            "% needs \\usepackage{{booktabs}}\n\\begin{{table}}\n  \\centering\n  \\caption{{{}}}\n  \\begin{{tabular}}{{l{columns}}}\n    \
             \\toprule\n",
            latex(format!("{}. {}", capital(&self.title), self.notes.join(" ")).trim_end())
        );
        text.push_str(&line(&self.head));
        text.push_str("    \\midrule\n");
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text.push_str("    \\bottomrule\n  \\end{tabular}\n\\end{table}\n");
        for message in &self.messages {
            let _ = writeln!(text, "% {message}");
        }
        text
    }
}

/// A text that begins with a capital letter.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

/// A text as LaTeX has it: special characters escaped, minus signs as such.
fn latex(text: &str) -> String {
    let mut out = String::new();
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let number_follows = rest.peek().is_some_and(char::is_ascii_digit);
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '\\' => out.push_str("\\textbackslash{}"),
            '±' => out.push_str("$\\pm$"),
            '·' => out.push_str("$\\cdot$"),
            '<' | '>' => out.extend(['$', c, '$']),
            '-' | '−' if number_follows && !before.is_alphanumeric() => out.push_str("$-$"),
            c => out.push(c),
        }
        before = c;
    }
    out
}

/// A text in lines of a terminal's width, broken at spaces.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let width = lines[last].chars().count();
        if width > 0 && width + 1 + word.chars().count() > WIDTH {
            lines.push(word.to_owned());
        } else {
            if width > 0 {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet() -> Sheet {
        let mut sheet = Sheet::new("forgetting, %", &["arm", "forgot", "a_b"]);
        for (name, forgot) in [
            ("none", "-0.4 ±1.0"),
            ("self-generated:kl:10+lr=1e-3+prompt=\"a|b\"", "5.0 ±0.1"),
        ] {
            sheet
                .rows
                .push([name, forgot, "1 & 2"].map(str::to_owned).into());
        }
        sheet.notes.push("n = 3 seeds".into());
        sheet
    }

    /// Two arms whose long names are cut off alike would be one.
    #[test]
    fn a_long_name_stands_whole_and_everything_fits_the_terminal() {
        let mut wide = sheet();
        wide.head.extend((0..9).map(|i| format!("dataset-{i}")));
        for row in &mut wide.rows {
            row.extend((0..9).map(|i| format!("{i}.0 ±1.0")));
        }
        for sheet in [sheet(), wide] {
            for glyphs in [Glyphs::Ascii, Glyphs::Unicode] {
                let text = sheet.write(Format::Text(glyphs));
                assert!(
                    text.lines().all(|line| line.chars().count() <= 80),
                    "{text}"
                );
                assert!(text.contains(&sheet.rows[1][0]), "{text}");
                assert!(glyphs == Glyphs::Unicode || text.is_ascii(), "{text}");
            }
        }
    }

    /// A table of names alone went on for ever.
    #[test]
    fn a_table_of_names_alone_ends() {
        let mut sheet = Sheet::new("", &["arm"]);
        sheet.notes.push("nothing to tell".into());
        assert_eq!(
            sheet.write(Format::Text(Glyphs::Ascii)),
            "arm\n---\nnothing to tell\n"
        );
    }

    /// A table that LaTeX refuses, or that drops a percent sign, costs an evening before a deadline.
    #[test]
    fn markdown_and_latex_escape_what_is_special_there() {
        let text = sheet().write(Format::Markdown);
        assert!(text.contains("prompt=\"a\\|b\""), "{text}");
        let text = sheet().write(Format::Latex);
        for expected in [
            "\\caption{Forgetting, \\%. n = 3 seeds}",
            "\\begin{tabular}{lrr}",
            "    none & $-$0.4 $\\pm$1.0 & 1 \\& 2 \\\\\n",
            "arm & forgot & a\\_b",
            "lr=1e-3",
        ] {
            assert!(text.contains(expected), "{expected}:\n{text}");
        }
    }
}

//! Colours, markers and the fallbacks for terminals that lack either.

use std::env;

use forgetlab_study::printed::is_harmless;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

/// Styles of the lab on this terminal. Colour is never the only sign of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Colours the terminal supports.
    pub colours: Colours,
    /// Whether only ASCII may be written.
    pub ascii: bool,
    /// Whether the background is light.
    pub light: bool,
}

/// Colours a terminal supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// No colours (`NO_COLOR`).
    None,
    /// The 16 colours of every terminal.
    Sixteen,
    /// The 256 colours of xterm.
    Many,
    /// 24 bits.
    True,
}

/// A colour as terminals of 16, of 256 and of all colours have it.
type Shade = (Color, u8, u32);

/// Okabe and Ito's palette, told apart with every common kind of colour blindness: sky blue, orange, bluish green, reddish
/// purple, yellow, blue, vermilion, grey. On a dark background, and darker ones for a light one.
const SERIES: [[Shade; 8]; 2] = [
    [
        (Color::LightCyan, 74, 0x56_b4_e9),
        (Color::LightYellow, 214, 0xe6_9f_00),
        (Color::LightMagenta, 36, 0x00_9e_73),
        (Color::LightBlue, 175, 0xcc_79_a7),
        (Color::White, 227, 0xf0_e4_42),
        (Color::Green, 32, 0x00_87_d7),
        (Color::Red, 166, 0xd5_5e_00),
        (Color::Gray, 250, 0xbc_bc_bc),
    ],
    [
        (Color::Cyan, 31, 0x2b_8c_c4),
        (Color::Yellow, 172, 0xc7_7f_00),
        (Color::Magenta, 29, 0x00_7a_58),
        (Color::Blue, 132, 0xa8_54_8a),
        (Color::Black, 100, 0x8a_78_00),
        (Color::Green, 25, 0x00_5a_8e),
        (Color::Red, 130, 0xb8_4a_00),
        (Color::DarkGray, 242, 0x66_66_66),
    ],
];
/// Good, warning, bad; on a dark background, and on a light one.
const SIGNS: [[Shade; 3]; 2] = [
    [
        (Color::LightCyan, 74, 0x56_b4_e9),
        (Color::LightYellow, 214, 0xe6_9f_00),
        (Color::LightRed, 202, 0xff_6a_1a),
    ],
    [
        (Color::Blue, 25, 0x00_5a_8e),
        (Color::Yellow, 130, 0x9a_5b_00),
        (Color::Red, 124, 0xb0_1e_00),
    ],
];
const MARKERS: [&str; 8] = ["●", "▲", "■", "◆", "✚", "○", "△", "□"];
const MARKERS_ASCII: [&str; 8] = ["o", "^", "#", "*", "+", "x", "%", "="];

impl Theme {
    /// No colours, ASCII only.
    pub const PLAIN: Self = Self {
        colours: Colours::None,
        ascii: true,
        light: false,
    };

    /// The theme by the environment: `NO_COLOR`, `COLORTERM`, `TERM`, `FORGETLAB_THEME`, `COLORFGBG`, `FORGETLAB_ASCII`
    /// and the locale.
    pub fn from_env() -> Self {
        Self::from_vars(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let term = var("TERM").unwrap_or_default();
        let colours = if var("NO_COLOR").is_some() || term == "dumb" {
            Colours::None
        } else if var("COLORTERM").is_some_and(|is| is == "truecolor" || is == "24bit") {
            Colours::True
        } else if var("COLORTERM").is_some() || term.contains("256color") {
            Colours::Many
        } else {
            Colours::Sixteen
        };
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| var(name))
            .unwrap_or_default()
            .to_lowercase();
        let utf8 = locale.contains("utf-8") || locale.contains("utf8");
        let ascii = match var("FORGETLAB_ASCII").as_deref() {
            Some("0") => false,
            Some(_) => true,
            // The Linux console's font has no Braille.
            None => !utf8 || term == "linux" || term == "dumb",
        };
        // Terminals that set it end it with the number of their background.
        let background = var("COLORFGBG");
        let background = background
            .as_deref()
            .and_then(|both| both.rsplit(';').next());
        let light = match var("FORGETLAB_THEME").as_deref() {
            Some(theme) => theme == "light",
            None => matches!(background, Some("7" | "15")),
        };
        Self {
            colours,
            ascii,
            light,
        }
    }

    fn colour(self, (sixteen, many, all): Shade) -> Style {
        match self.colours {
            Colours::None => Style::new(),
            Colours::Sixteen => Style::new().fg(sixteen),
            Colours::Many => Style::new().fg(Color::Indexed(many)),
            Colours::True => Style::new().fg(Color::from_u32(all)),
        }
    }

    fn sign(self, index: usize) -> Style {
        self.colour(SIGNS[usize::from(self.light)][index])
    }

    /// Style of curve `index`.
    pub fn series(self, index: usize) -> Style {
        let all = SERIES[usize::from(self.light)];
        self.colour(all[index % all.len()])
    }

    /// Marker of curve `index`; one column wide. Of 64 curves no two have both marker and colour in common.
    pub fn marker(self, index: usize) -> &'static str {
        let markers = if self.ascii { MARKERS_ASCII } else { MARKERS };
        markers[(index + index / markers.len()) % markers.len()]
    }

    /// Style of headings.
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Style of less important text.
    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Style of what the cursor is on.
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Style of keys in the footer and the help.
    pub fn key(self) -> Style {
        self.sign(0).add_modifier(Modifier::BOLD)
    }

    /// Style of good results.
    pub fn good(self) -> Style {
        self.sign(0)
    }

    /// Style of warnings.
    pub fn warn(self) -> Style {
        self.sign(1)
    }

    /// Style of errors and bad results.
    pub fn bad(self) -> Style {
        self.sign(2).add_modifier(Modifier::BOLD)
    }

    /// Takes out of a drawn frame what a terminal would obey, and on an ASCII terminal replaces every character
    /// that is not ASCII.
    pub fn finish(self, buffer: &mut Buffer) {
        for cell in &mut buffer.content {
            if !is_harmless(cell.symbol()) {
                let seen = |c: &char| is_harmless(c.encode_utf8(&mut [0; 4]));
                let kept: String = cell.symbol().chars().filter(seen).collect();
                cell.set_symbol(if kept.is_empty() { " " } else { &kept });
            }
        }
        if !self.ascii {
            return;
        }
        for cell in &mut buffer.content {
            if !cell.symbol().is_ascii() {
                let plain = cell.symbol().chars().next().map_or(" ", plain);
                cell.set_symbol(plain);
            }
        }
    }
}

/// ASCII replacement of a character, one column wide.
fn plain(c: char) -> &'static str {
    match c {
        '─' | '━' | '–' | '—' | '−' | '‐' => "-",
        '│' | '┃' | '┊' | '┆' | '║' | '▕' | '▏' => "|",
        '┌' | '┐' | '└' | '┘' | '├' | '┤' | '┬' | '┴' | '┼' => "+",
        '╭' | '╮' | '╰' | '╯' => "+",
        '×' => "x",
        '→' | '▸' | '›' | '❯' => ">",
        '←' | '◂' | '‹' => "<",
        '↑' | '▲' => "^",
        '↓' | '▼' => "v",
        '…' => "~",
        '·' | '•' => ".",
        '✓' => "x",
        '‘' | '’' => "'",
        '“' | '”' => "\"",
        '█' | '▓' | '▒' | '░' => "#",
        '\u{a0}' => " ",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn theme(vars: &[(&str, &str)]) -> Theme {
        Theme::from_vars(|name| {
            let var = vars.iter().find(|(known, _)| *known == name);
            var.map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn a_terminal_gets_only_what_it_can_show() {
        let modern = theme(&[("TERM", "xterm-256color"), ("LANG", "en_GB.UTF-8")]);
        assert_eq!(modern.colours, Colours::Many);
        assert!(!modern.ascii);
        assert_eq!(theme(&[("TERM", "xterm")]).colours, Colours::Sixteen);
        assert!(
            theme(&[("LANG", "C")]).ascii,
            "no UTF-8 locale: Braille would be garbage"
        );
        assert!(theme(&[("LC_ALL", "C"), ("LANG", "en_GB.UTF-8")]).ascii);
        assert!(theme(&[("FORGETLAB_ASCII", "1"), ("LANG", "en_GB.UTF-8")]).ascii);
        let pairs = (0..64).map(|index| (modern.marker(index), modern.series(index)));
        let pairs: Vec<_> = pairs.collect();
        let twice = |at: usize| pairs[..at].contains(&pairs[at]);
        assert!(!(0..64).any(twice), "two curves look alike");
        let whole = theme(&[("COLORTERM", "truecolor"), ("LANG", "en_GB.UTF-8")]);
        assert_eq!(whole.colours, Colours::True);
        let light = |name, value| theme(&[(name, value), ("TERM", "xterm-256color")]).light;
        assert!(light("FORGETLAB_THEME", "light") && light("COLORFGBG", "0;15"));
        assert!(!light("COLORFGBG", "15;0") && !light("FORGETLAB_THEME", "dark"));
        let plain = theme(&[("NO_COLOR", "1"), ("COLORTERM", "truecolor")]);
        assert_eq!(plain.colours, Colours::None);
        assert_eq!(plain.series(0), Style::new());
    }
}

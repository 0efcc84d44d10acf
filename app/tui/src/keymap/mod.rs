//! The keymap, as data: what each key does where. Footers, the help, the command line and the file of keys are made
//! from it.

mod action;
mod bindings;
mod key;

use crossterm::event::KeyEvent;

pub use action::Action;
pub use bindings::{Binding, KEYMAP};
pub use key::Key;

/// Where a key binding applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On every screen, unless a text, a message or a question lies over it.
    Everywhere,
    /// List of runs.
    Runs,
    /// Points of a sweep.
    Sweep,
    /// Runs being watched.
    Watch,
    /// Form of a new run.
    Compose,
    /// Form of an arm.
    ArmForm,
    /// Strategies.
    Strategies,
    /// The machine.
    Machine,
    /// Help and other texts over a screen.
    Text,
    /// A list over a screen, to choose from.
    Picker,
    /// A line being typed.
    Prompt,
    /// Message over a screen.
    Notice,
    /// Question to be answered by yes or no.
    Ask,
    /// Question what to do with live runs when leaving.
    AskQuit,
}

impl Place {
    /// Every place, in the order of the help.
    pub const ALL: [Place; 14] = [
        Place::Everywhere,
        Place::Runs,
        Place::Sweep,
        Place::Watch,
        Place::Compose,
        Place::ArmForm,
        Place::Strategies,
        Place::Machine,
        Place::Text,
        Place::Picker,
        Place::Prompt,
        Place::Notice,
        Place::Ask,
        Place::AskQuit,
    ];

    /// Heading of the place in the help.
    pub fn title(self) -> &'static str {
        match self {
            Place::Everywhere => "Everywhere",
            Place::Runs => "Runs",
            Place::Sweep => "Sweep",
            Place::Watch => "Watch",
            Place::Compose => "Compose",
            Place::ArmForm => "Editing an arm",
            Place::Strategies => "Strategies",
            Place::Machine => "Machine",
            Place::Text => "Texts",
            Place::Picker => "Choosing from a list",
            Place::Prompt => "Typing a line",
            Place::Notice => "Messages",
            Place::Ask => "Questions",
            Place::AskQuit => "Leaving with runs going",
        }
    }

    /// Its table in the file of keys.
    pub fn table(self) -> &'static str {
        match self {
            Place::Everywhere => "everywhere",
            Place::Runs => "runs",
            Place::Sweep => "sweep",
            Place::Watch => "watch",
            Place::Compose => "compose",
            Place::ArmForm => "arm",
            Place::Strategies => "strategies",
            Place::Machine => "machine",
            Place::Text => "text",
            Place::Picker => "picker",
            Place::Prompt => "prompt",
            Place::Notice => "message",
            Place::Ask => "question",
            Place::AskQuit => "leaving",
        }
    }

    /// Whether the bindings of [`Place::Everywhere`] apply here too.
    pub fn open(self) -> bool {
        matches!(
            self,
            Place::Runs
                | Place::Sweep
                | Place::Watch
                | Place::Compose
                | Place::Strategies
                | Place::Machine
        )
    }

    /// Whether characters are typed here.
    pub fn types(self) -> bool {
        matches!(self, Place::ArmForm | Place::Picker | Place::Prompt)
    }
}

/// The keys of every binding of [`KEYMAP`], as the user has them.
#[derive(Debug)]
pub struct Keymap {
    keys: Vec<Vec<Key>>,
}

impl Default for Keymap {
    fn default() -> Self {
        Self {
            keys: KEYMAP.iter().map(|binding| binding.keys.to_vec()).collect(),
        }
    }
}

impl Keymap {
    /// The keymap with the changes of a file of keys: a table a place, in it `action = "key"` or a list of keys. What
    /// is wrong in the file is left out, and told.
    pub fn with(file: &str) -> (Self, Vec<String>) {
        let mut map = Self::default();
        let table: toml::Table = match file.parse() {
            Ok(table) => table,
            Err(error) => return (map, vec![error.to_string()]),
        };
        let mut problems = Vec::new();
        for (place, actions) in &table {
            let at = Place::ALL.into_iter().find(|known| known.table() == place);
            let (Some(at), Some(actions)) = (at, actions.as_table()) else {
                let places: Vec<&str> = Place::ALL.iter().map(|place| place.table()).collect();
                problems.push(format!("[{place}] is none of {}", places.join(", ")));
                continue;
            };
            for (name, keys) in actions {
                if let Err(problem) = map.set(at, name, keys) {
                    problems.push(format!("[{place}] {name}: {problem}"));
                }
            }
        }
        problems.extend(map.clashes());
        match problems.is_empty() {
            true => (map, problems),
            // Half a keymap would be worse than none.
            false => (Self::default(), problems),
        }
    }

    fn set(&mut self, place: Place, name: &str, keys: &toml::Value) -> Result<(), String> {
        let found = KEYMAP
            .iter()
            .position(|b| b.place == place && b.action.name() == name);
        let index = found.ok_or_else(|| match Action::like(name) {
            Some(like) => format!("no such action there (`{like}`?)"),
            None => "no such action there".to_owned(),
        })?;
        let words: Vec<&str> = match keys {
            toml::Value::String(one) => vec![one],
            toml::Value::Array(several) => several.iter().filter_map(|key| key.as_str()).collect(),
            _ => Vec::new(),
        };
        if words.is_empty() {
            return Err(
                "a key or a list of keys is wanted, such as \"m\" or [\"m\", \"f2\"]".into(),
            );
        }
        let parsed = words
            .iter()
            .map(|word| Key::parse(word).ok_or_else(|| format!("there is no key `{word}`")));
        let parsed: Vec<Key> = parsed.collect::<Result<_, _>>()?;
        if let Some(typed) = parsed.iter().find(|key| key.types() && place.types()) {
            return Err(format!("`{}` types a character there", typed.name()));
        }
        self.keys[index] = parsed;
        Ok(())
    }

    /// Keys that mean two things in one place.
    fn clashes(&self) -> Vec<String> {
        let mut clashes = Vec::new();
        for place in Place::ALL {
            let here =
                |b: &Binding| b.place == place || (place.open() && b.place == Place::Everywhere);
            let mut seen: Vec<(Key, Action)> = Vec::new();
            for (binding, keys) in KEYMAP.iter().zip(&self.keys).filter(|(b, _)| here(b)) {
                for &key in keys {
                    if let Some((_, other)) = seen.iter().find(|(known, _)| *known == key) {
                        clashes.push(format!(
                            "[{}] `{}` means both {} and {}",
                            place.table(),
                            key.name(),
                            other.name(),
                            binding.action.name()
                        ));
                    }
                    seen.push((key, binding.action));
                }
            }
        }
        clashes
    }

    /// The action of a key press at `place`.
    pub fn action(&self, place: Place, event: KeyEvent) -> Option<Action> {
        let at = |place: Place| {
            let mut all = KEYMAP.iter().zip(&self.keys);
            let found =
                all.find(|(b, keys)| b.place == place && keys.iter().any(|key| key.matches(event)));
            found.map(|(binding, _)| binding.action)
        };
        at(place).or_else(|| at(Place::Everywhere).filter(|_| place.open()))
    }

    /// Bindings of a place with their keys.
    pub fn of(&self, place: Place) -> impl Iterator<Item = (&'static Binding, &[Key])> {
        let all = KEYMAP.iter().zip(&self.keys);
        all.filter(move |(b, _)| b.place == place)
            .map(|(binding, keys)| (binding, keys.as_slice()))
    }

    /// What the footer shows at `place`: keys, directions in pairs, and words.
    pub fn footer(&self, place: Place) -> impl Iterator<Item = (String, &'static str)> {
        let common = self.of(Place::Everywhere).filter(move |_| place.open());
        let all = self.of(place).chain(common);
        all.filter(|(b, _)| !b.short.is_empty()).map(|(b, keys)| {
            let key = match b.action {
                Action::Up | Action::Down => "↑↓".into(),
                Action::Left | Action::Right => "←→".into(),
                Action::PageUp | Action::PageDown => "PgUp/Dn".into(),
                Action::Smoother => "+/-".into(),
                _ => keys.first().map_or(String::new(), |key| key.name()),
            };
            (key, b.short)
        })
    }
}

#[cfg(test)]
mod tests {
    use crossterm::event::{KeyCode, KeyModifiers};

    use super::*;

    #[test]
    fn no_key_means_two_things_on_one_screen() {
        assert_eq!(Keymap::default().clashes(), Vec::<String>::new());
    }

    #[test]
    fn every_key_is_explained_and_every_place_can_be_left() {
        for binding in KEYMAP {
            assert!(!binding.long.is_empty(), "{:?} has no help", binding.action);
        }
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        for place in Place::ALL {
            let action = Keymap::default().action(place, ctrl_c);
            assert!(action.is_some(), "Ctrl-C is dead on {place:?}");
        }
        for place in Place::ALL.into_iter().filter(|place| place.types()) {
            let typed = KEYMAP.iter().filter(|b| b.place == place);
            let typed = typed.flat_map(|b| b.keys).find(|key| key.types());
            assert_eq!(typed, None, "a character is typed on {place:?}");
        }
    }

    /// Two actions of one name: the command line would reach one of them only.
    #[test]
    fn every_action_has_a_name_of_its_own() {
        for &action in Action::ALL {
            assert_eq!(Action::named(action.name()), Some(action));
        }
        assert_eq!(Action::like("metrc"), Some("metric"));
        assert_eq!(Action::like("xyzzy"), None);
    }

    /// A file of keys that is half right would leave keys that do nothing, or something else than the help says.
    #[test]
    fn a_file_of_keys_changes_them_and_is_refused_whole_where_it_is_wrong() {
        let (map, problems) =
            Keymap::with("[watch]\nmetric = [\"M\", \"f2\"]\n[everywhere]\nquit = \"ctrl-q\"");
        assert_eq!(problems, Vec::<String>::new());
        let press = |code, modifiers| KeyEvent::new(code, modifiers);
        let metric = map.action(Place::Watch, press(KeyCode::Char('M'), KeyModifiers::NONE));
        assert_eq!(metric, Some(Action::Metric));
        let f2 = map.action(Place::Watch, press(KeyCode::F(2), KeyModifiers::NONE));
        assert_eq!(f2, Some(Action::Metric));
        let old = map.action(Place::Watch, press(KeyCode::Char('m'), KeyModifiers::NONE));
        assert_eq!(old, None);
        let quit = map.action(
            Place::Runs,
            press(KeyCode::Char('q'), KeyModifiers::CONTROL),
        );
        assert_eq!(quit, Some(Action::Quit));
        for (file, said) in [
            ("[watch]\nmetrik = \"M\"", "`metric`?"),
            ("[watch]\nmetric = \"hyper-m\"", "there is no key `hyper-m`"),
            ("[watch]\nmetric = \"s\"", "`s` means both metric and sort"),
            ("[picker]\nopen = \"x\"", "types a character"),
            ("[wacht]\nmetric = \"s\"", "none of everywhere, runs"),
            ("not toml", "expected"),
        ] {
            let (map, problems) = Keymap::with(file);
            assert!(problems.join("; ").contains(said), "{file}: {problems:?}");
            let metric = press(KeyCode::Char('m'), KeyModifiers::NONE);
            assert_eq!(map.action(Place::Watch, metric), Some(Action::Metric));
        }
    }
}

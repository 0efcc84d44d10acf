//! What can be asked for.

/// Something that a filter can ask for by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Texts or figures.
    pub kind: FieldKind,
    /// What it is, in a few words.
    pub about: &'static str,
}

/// What the values of a field are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// Texts: `: = != ~`.
    Text,
    /// Figures: `= != > >= < <=`.
    Figure,
}

/// Every field, but for the settings (`cfg.PATH`).
pub const FIELDS: &[Field] = &[
    text("name", "name of the run, or its display name"),
    text("tag", "a tag of the run"),
    text("note", "note of the run"),
    text(
        "status",
        "live, finished, interrupted, crashed or failed; an arm's",
    ),
    text("experiment", "experiment"),
    text("preset", "preset"),
    text("device", "cpu, cuda, ..."),
    text("arm", "name of an arm"),
    text("strategy", "strategy of an arm"),
    text("verdict", "keeps, FORGETS or unclear"),
    figure(
        "forgot",
        "what was forgotten of the old data that decides the verdict",
    ),
    figure("learned", "what was learned of the new data"),
    figure(
        "worst",
        "the worst score of that old data since it was trained",
    ),
    figure("kept", "score of that old data now"),
    figure("kl_old", "drift on old data, KL in nats a token"),
    figure("kl_new", "drift on new data, KL in nats a token"),
    figure("tokens", "tokens trained"),
    figure("flops", "FLOPs paid"),
    figure("seconds", "seconds of work"),
    figure("lr", "learning rate of an arm"),
    figure("seed", "seed of an arm"),
    figure("coeff", "coefficient of an arm"),
    figure("arms", "number of arms of a seed"),
    figure("done", "share of the steps that is done, 0 to 1"),
];

/// What stands before the path of a setting.
pub(super) const SETTING: &str = "cfg.";

const fn text(name: &'static str, about: &'static str) -> Field {
    Field {
        name,
        kind: FieldKind::Text,
        about,
    }
}

const fn figure(name: &'static str, about: &'static str) -> Field {
    Field {
        name,
        kind: FieldKind::Figure,
        about,
    }
}

/// A field by its name, in any case.
pub(super) fn field(name: &str) -> Option<Field> {
    let mut fields = FIELDS.iter().copied();
    fields.find(|field| field.name.eq_ignore_ascii_case(name))
}

/// The names of all fields, settings as `cfg.PATH`, in words.
pub fn field_names() -> String {
    let names = FIELDS.iter().map(|field| field.name);
    let names: Vec<&str> = names.chain(["cfg.PATH"]).collect();
    names.join(", ")
}

/// The field whose name is most like this one.
pub(super) fn near(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let distance = |known: &str| strsim::damerau_levenshtein(&name, known);
    let close = |known: &&str| {
        distance(known) <= known.chars().count().max(3) / 3
            || name.len() > 1 && (known.starts_with(&name) || name.starts_with(*known))
    };
    let known = FIELDS.iter().map(|field| field.name).chain(["cfg"]);
    let nearest = known.filter(close).min_by_key(|&known| distance(known));
    nearest.map(|name| if name == "cfg" { "cfg.PATH" } else { name })
}

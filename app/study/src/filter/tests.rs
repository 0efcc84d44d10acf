use std::borrow::Cow;

use super::*;

/// A run with two arms.
struct Made {
    config: toml::Table,
}

impl Made {
    fn new() -> Self {
        let config = "device = 'cpu'\nseeds = [0, 1]\n[optimizer]\nlr = 1e-3\nname = 'AdamW'\n\
                      [[phases]]\ndataset = 'add'\nsteps = 100\n[[phases]]\ndataset = 'reversal'\nsteps = 40\n\
                      [verdict]\nflag = true\n";
        Self {
            config: config.parse().unwrap(),
        }
    }
}

impl Record for Made {
    fn words(&self) -> Vec<Cow<'_, str>> {
        [
            "20260101T-toy-continual-ab12",
            "toy-continual",
            "cpu",
            "none",
            "Self-Generated:kl:10",
        ]
        .map(Cow::from)
        .into()
    }

    fn texts(&self, field: &str) -> Vec<Cow<'_, str>> {
        let texts: &[&str] = match field {
            "tag" => &["paper", "figure 3"],
            "status" => &["finished"],
            "arm" => &["none", "Self-Generated:kl:10"],
            "verdict" => &["FORGETS", "keeps"],
            _ => &[],
        };
        texts.iter().map(|&text| text.into()).collect()
    }

    fn numbers(&self, field: &str) -> Vec<f64> {
        match field {
            "forgot" => vec![0.02, 0.3],
            "tokens" => vec![3000.0, 12_000.0],
            "lr" => vec![0.1 + 0.2],
            "worst" => vec![f64::NAN],
            _ => Vec::new(),
        }
    }

    fn configs(&self) -> Vec<Config<'_>> {
        vec![Config::Toml(&self.config)]
    }
}

fn passes(text: &str) -> bool {
    let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    filter.matches(&Made::new())
}

fn refused(text: &str) -> FilterError {
    Filter::parse(text).expect_err(text)
}

/// What somebody types to find a run must find that run, and no other.
#[test]
fn words_fields_and_figures_find_what_they_name() {
    for text in [
        "",
        "  ",
        "TOY",
        "toy none",
        "\"toy-cont\"",
        "\"self-generated:kl\"",
        "tag:PAPER",
        "tag=\"figure 3\"",
        "tag:\"figure 3\"",
        "tag:figure",
        "tag:\"\"",
        "status=finished",
        "STATUS:fin",
        "arm:self-generated:kl:10",
        "arm~^self.*10$",
        "arm~(none|bos) toy",
        "verdict:forgets",
        "forgot>10%",
        "forgot > 0.1",
        "forgot>=0.3",
        "forgot<.05",
        "forgot<=2e-2",
        "forgot=30%",
        "tokens>10k",
        "tokens:3k",
        "lr=0.3",
        "lr<=0.3",
    ] {
        assert!(passes(text), "{text}");
    }
    for text in [
        "reversal",
        "toy bos",
        "tag=figure",
        "tag:pap.r",
        "status!=finished",
        "forgot>0.3",
        "forgot<0.02",
        "lr>0.3",
        "arm=none:kl",
    ] {
        assert!(!passes(text), "{text}");
    }
}

/// Else a run that has not been measured would be listed among those that forgot nothing.
#[test]
fn what_is_not_known_never_fits() {
    for text in [
        "learned>0",
        "learned!=0",
        "learned<=0",
        "worst<1",
        "worst!=1",
        "note:x",
        "note!=x",
        "cfg.no.such!=1",
    ] {
        assert!(!passes(text), "{text}");
        assert!(passes(&format!("-{text}")), "-{text}");
        assert!(passes(&format!("NOT {text}")), "NOT {text}");
    }
}

/// Without brackets and exclusions, half of the questions about fifty runs cannot be asked.
#[test]
fn conditions_are_joined_as_everywhere() {
    for (text, expected) in [
        ("toy AND none", true),
        ("toy AND bos", false),
        ("bos OR none", true),
        ("bos OR toy AND none", true),
        ("(toy OR bos) AND quux", false),
        ("toy OR bos AND quux", true),
        ("toy bos OR none", true),
        ("NOT bos toy", true),
        ("NOT (toy none)", false),
        ("-bos -quux", true),
        ("-toy", false),
        ("NOT NOT toy", true),
        ("NOT -toy", true),
        ("-(toy bos)", true),
        ("((toy))", true),
        ("( toy OR bos )none", true),
        ("toy and", false),
        ("-tag:paper", false),
        ("-tag:other", true),
        ("tag!=paper", true),
    ] {
        assert_eq!(passes(text), expected, "{text}");
    }
}

/// The setting that was changed is how a researcher remembers a run.
#[test]
fn settings_are_found_by_their_paths() {
    for text in [
        "cfg.optimizer.lr=1e-3",
        "cfg.optimizer.lr<0.01",
        "cfg.optimizer.name:adam",
        "cfg.optimizer.name=adamw",
        "cfg.optimizer.name!=sgd",
        "cfg.phases.reversal.steps=40",
        "cfg.phases.0.steps=100",
        "cfg.phases.steps>=100",
        "cfg.seeds=1",
        "cfg.seeds.1=1",
        "cfg.verdict.flag=true",
        "cfg.device~^c.u$",
        "cfg.device=cpu",
    ] {
        assert!(passes(text), "{text}");
    }
    for text in [
        "cfg.optimizer.lr>0.01",
        "cfg.optimizer.name>3",
        "cfg.optimizer.name!=adamw",
        "cfg.optimizer=1",
        "cfg.phases.reversal.steps>40",
        "cfg.seeds=7",
    ] {
        assert!(!passes(text), "{text}");
    }
    let made = Made::new();
    let json = serde_json::to_value(&made.config).unwrap();
    for text in [
        "cfg.phases.add.steps=100",
        "cfg.optimizer.name:adam",
        "cfg.verdict.flag=true",
    ] {
        let test = |config: Config| {
            let Filter(Expression::Setting(path, test)) = Filter::parse(text).unwrap() else {
                panic!("{text}")
            };
            config.any(&path, |value| test.holds(value))
        };
        assert!(
            test(Config::Json(&json)) && test(Config::Toml(&made.config)),
            "{text}"
        );
    }
    let mut fields = Config::Toml(&made.config).fields();
    let mut of_json = Config::Json(&json).fields();
    fields.sort();
    of_json.sort();
    assert_eq!(fields, of_json);
    assert!(
        fields.contains(&"cfg.phases.add.steps".to_owned()),
        "{fields:?}"
    );
    assert!(fields.contains(&"cfg.seeds".to_owned()), "{fields:?}");
}

/// A filter that is refused without a word of where and why is given up.
#[test]
fn errors_say_where_and_what() {
    for (text, position, said) in [
        (
            "toy forgat>0.1",
            4,
            "did you mean `forgot`? There are name, tag",
        ),
        ("quux:1", 0, "there is no field `quux`. There are name"),
        ("self-generated:kl", 0, "stands in quotes"),
        ("kept", 99, ""),
        ("forgot>", 7, "a value must stand after `forgot>`"),
        ("forgot>much", 7, "`much` is no number"),
        ("forgot>nan", 7, "is no number"),
        ("forgot~1", 6, "is a figure"),
        ("tag>3", 3, "is a text"),
        ("cfg.lr", 6, "how is `cfg.lr` to be"),
        ("cfg.lr>x", 7, "`x` is no number"),
        ("name~[", 5, "no regular expression"),
        ("a \"b", 2, "has no end"),
        ("é (b", 2, "has no `)`"),
        ("a)", 1, "without a `(`"),
        ("a AND", 5, "after AND"),
        ("OR a", 0, "before OR"),
        ("a OR", 4, "must stand here"),
        ("NOT", 0, "something to exclude"),
        ("- a", 0, "something to exclude"),
        (">1", 0, "a field must stand before `>`"),
    ] {
        if said.is_empty() {
            assert!(
                Filter::parse(text).is_ok(),
                "a figure's name alone is a word"
            );
            continue;
        }
        let error = refused(text);
        assert!(error.words.contains(said), "{text}: {error}");
        assert_eq!(error.position, position, "{text}: {error}");
    }
    assert!(refused("a)").to_string().starts_with("at character 2: "));
}

/// Something typed, pasted or half typed must never take the lab down.
#[test]
fn no_text_panics() {
    let pieces = [
        "forgot",
        "tag",
        "cfg.a.b",
        "cfg.",
        ".",
        ":",
        "=",
        "!=",
        "!",
        ">",
        ">=",
        "<",
        "~",
        "(",
        ")",
        "\"",
        "\\",
        "-",
        " ",
        "AND",
        "OR",
        "NOT",
        "0.1",
        "10%",
        "1e999",
        "é",
        "\u{1f9ea}",
        "\0",
        "x",
        "[",
        "*",
    ];
    let mut seed: u64 = 7;
    let mut below = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % n
    };
    let made = Made::new();
    let (mut read, trials) = (0, 20_000);
    for _ in 0..trials {
        let text: String = (0..below(12))
            .map(|_| pieces[below(pieces.len())])
            .collect();
        match Filter::parse(&text) {
            Ok(filter) => {
                read += 1;
                filter.matches(&made);
            }
            Err(error) => assert!(error.position <= text.chars().count(), "{text}: {error}"),
        }
        complete(&text, &[], |_| vec!["a b".into()]);
    }
    assert!(
        read > trials / 50 && read < trials / 2,
        "{read} were filters"
    );
    for open in ["(", "-(", "NOT ", "-"] {
        let deep = open.repeat(100_000) + "a";
        let _ = Filter::parse(&deep);
    }
    assert!(refused(&"(".repeat(1000)).words.contains("too many"));
}

/// Nobody knows two dozen fields by heart.
#[test]
fn the_last_word_is_completed() {
    let settings = ["cfg.optimizer.lr".to_owned(), "cfg.device".to_owned()];
    let values = |field: &str| -> Vec<String> {
        let known: &[&str] = match field {
            "tag" => &["paper", "figure 3", "wall\"paper"],
            _ => &[],
        };
        known.iter().map(|&tag| tag.into()).collect()
    };
    let of = |before: &str| complete(before, &settings, values);
    assert_eq!(of("ver"), ["verdict:"]);
    assert_eq!(of("toy -ver"), ["toy -verdict:"]);
    assert_eq!(of("(for")[0], "(forgot");
    assert_eq!(of("cf"), ["cfg."]);
    assert_eq!(of("cfg.opt"), ["cfg.optimizer.lr"]);
    assert_eq!(of("cfg.lr"), Vec::<String>::new());
    assert_eq!(of("x tag:pap"), ["x tag:paper", "x tag:\"wall\\\"paper\""]);
    assert_eq!(of("tag:\"figure"), ["tag:\"figure 3\""]);
    assert_eq!(of("-tag!=f"), ["-tag!=\"figure 3\""]);
    assert_eq!(of("").len(), FIELDS.len() + 1);
    for before in ["t", "st", "a OR v", "tag:"] {
        for whole in of(before)
            .iter()
            .filter(|whole| whole.contains("tag:") && !whole.ends_with(':'))
        {
            Filter::parse(whole).unwrap();
        }
    }
}

//! What arms mean, and what they are called.

use std::collections::HashSet;

use super::super::{Overrides, resolve};
use super::*;

/// An arm that means something else than was typed would be a wrong result.
#[test]
fn arms_are_read_as_written() {
    let parse = |text| ArmSpec::parse(text, 10.0).map(|a| (a.objective, a.coeff));
    assert_eq!(parse("none").unwrap(), (None, None));
    assert_eq!(
        parse("true-data").unwrap(),
        (Some(Objective::Kl), Some(10.0))
    );
    assert_eq!(
        parse("mine:ntp").unwrap(),
        (Some(Objective::Ntp), Some(10.0))
    );
    assert_eq!(
        parse("none:kl-new:1").unwrap(),
        (Some(Objective::KlNew), Some(1.0))
    );
    assert_eq!(
        parse("a:replace:0.25").unwrap(),
        (Some(Objective::Replace), Some(0.25))
    );
    assert_eq!(ArmSpec::parse("a:kl:0.1", 10.0).unwrap().name(), "a:kl:0.1");
    assert_eq!(ArmSpec::parse("a", 10.0).unwrap().name(), "a:kl:10");
}

/// Each senseless arm gets one clear message.
#[test]
fn senseless_arms_say_what_to_write() {
    for (arm, expected) in [
        ("", "STRATEGY[:OBJECTIVE[:COEFF]]"),
        (":kl", "STRATEGY[:OBJECTIVE[:COEFF]]"),
        ("a:kll", "did you mean `kl`"),
        ("a:kl:ten", "`ten` is not a number"),
        ("a:kl:nan", "finite"),
        ("a:kl:inf", "finite"),
        ("a:kl:-1", "0 or more"),
        ("a:kl:1:2", "one part too many"),
        ("a:replace", "needs the share"),
        ("a:replace:10", "0 to 1"),
        ("none:kl", "`none` replays nothing"),
        ("none:replace:0.5", "`none` replays nothing"),
        ("true-data:kl-new", "`none:kl-new`"),
    ] {
        let error = ArmSpec::parse(arm, 10.0).unwrap_err().to_string();
        assert!(error.contains(expected), "{arm}: {error}");
    }
}

/// Two arms in one folder would overwrite each other's checkpoints.
#[test]
fn slugs_are_unique_and_safe() {
    let mut config = resolve("toy-continual", &Overrides::default()).unwrap();
    config.seeds = vec![0, 1];
    config.arms = [
        "none",
        "a:kl:1",
        "a:kl:1+lr=1e-5",
        "A:kl:1",
        "a/../b:kl:1",
        "a_.._b:kl:1",
    ]
    .map(|arm| ArmSpec::parse(arm, 1.0).unwrap())
    .into();
    config
        .arms
        .push(ArmSpec::parse(&format!("{}:kl", "x".repeat(300)), 1.0).unwrap());
    let arms = expand(&config);
    assert_eq!(arms.len(), 14);
    let slugs: HashSet<_> = arms.iter().map(|a| a.info.slug.to_lowercase()).collect();
    assert_eq!(slugs.len(), 14, "{slugs:?}");
    assert!(
        slugs
            .iter()
            .all(|s| s.len() < 100 && !s.contains('/') && !s.starts_with('.'))
    );
    assert_eq!(arms[0].info.slug, "none-seed0");
    assert_eq!(arms[1].info.slug, "a-kl-1-seed0");
    assert_eq!(arms[2].info.slug, "a-kl-1+lr=1e-5-seed0");
    assert_eq!(arms[2].info.lr, 1e-5);
    assert_eq!(arms[1].info.lr, config.optimizer.lr);
}

fn run(arms: &[&str], set: &[(&str, &str)]) -> Result<super::RunConfig, String> {
    let overrides = Overrides {
        arms: arms.iter().map(|arm| (*arm).to_owned()).collect(),
        set: set
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        ..Overrides::default()
    };
    resolve("toy-continual", &overrides).map_err(|error| error.to_string())
}

/// Two arms that differ in a setting alone must not bear one name, and a name must read back as the same arm.
#[test]
fn a_name_tells_every_setting_of_an_arm_and_reads_back() {
    let names = [
        "none+lr=1e-3",
        "self-generated:kl:10+lr=1e-3+buffer_batches=4",
        "self-generated:kl:10+steps=50",
        "self-generated:kl:10+phases.sort.steps=50",
        "true-data:replace:0.25+schedule=constant+batch=32",
        "bos-prompted:ntp:1+prompt=\"a+b, 'c' = \\\"d\\\"\"",
        "bos-prompted:ntp:1+prompt=word+temperature=0.5",
        "bos-prompted:kl:10+bos-prompted.lr=2",
        "bos-prompted:kl:10+prompt=\"1\"",
    ];
    let config = run(&names, &[]).unwrap();
    let back: Vec<String> = config.arms.iter().map(ArmSpec::name).collect();
    assert_eq!(back, names);
    let arms = expand(&config);
    assert_eq!((arms[0].info.lr, arms[0].config.optimizer.lr), (1e-3, 1e-3));
    assert_eq!(
        arms[1].spec.settings["buffer_batches"].as_integer(),
        Some(4)
    );
    let steps =
        |arm: usize| -> Vec<u64> { arms[arm].config.phases.iter().map(|p| p.steps).collect() };
    assert_eq!(
        (steps(2), &arms[2].info.steps),
        (vec![200, 50, 50, 50], &vec![200, 50, 50, 50])
    );
    assert_eq!(steps(3), [200, 50, 200, 200]);
    assert!(arms[0].info.steps.is_empty());
    assert_eq!(arms[4].config.training.batch_size, 32);
    assert_eq!(
        arms[5].spec.settings["prompt"].as_str(),
        Some("a+b, 'c' = \"d\"")
    );
    // And from the file of the run.
    let text = toml::to_string(&config).unwrap();
    let read = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        std::fs::write(&path, text).unwrap();
        resolve(path.to_str().unwrap(), &Overrides::default()).unwrap()
    };
    let without_memory_of_spelling = |mut config: super::RunConfig| {
        config.arms.iter_mut().for_each(|arm| arm.bare.clear());
        config
    };
    assert_eq!(read(&text), without_memory_of_spelling(config.clone()));
    // Arms in a file may be written as on the command line.
    let start = text.find("[[arms]]").unwrap();
    let list: Vec<String> = names
        .iter()
        .map(|name| toml::Value::from(*name).to_string())
        .collect();
    let short = format!("arms = [{}]\n{}", list.join(", "), &text[..start]);
    assert_eq!(read(&short), without_memory_of_spelling(config));
}

/// Else one arm would have several names, and joining runs by them would miss it.
#[test]
fn an_arm_has_one_name_however_it_is_written() {
    for (written, name) in [
        ("none+optimizer.lr=1e-3", "none+lr=1e-3"),
        ("none+lr=0.0010", "none+lr=1e-3"),
        ("none+lr=3e-3", "none"),
        ("none+lr=0.003+steps=200", "none"),
        ("none + steps = 100", "none+steps=100"),
        ("self-generated", "self-generated:kl:10"),
        (
            "self-generated+warmup=5+lr=1",
            "self-generated:kl:10+lr=1+warmup=5",
        ),
        ("mine+mine.z=1+a=true", "mine:kl:10+a=true+z=1"),
        ("none+steps=50+phases.sort.steps=50", "none+steps=50"),
        ("none+phases.sort.steps=9+steps=9", "none+steps=9"),
        (
            "none+steps=12+phases.rotate.steps=4+phases.complement.steps=200",
            "none+phases.rotate.steps=4+phases.sort.steps=12",
        ),
        (
            "none+phases.sort.steps=7+phases.rotate.steps=7+phases.complement.steps=7",
            "none+steps=7",
        ),
        ("true-data:kl:-0", "true-data:kl:0"),
    ] {
        let config = run(&[written], &[]).unwrap();
        assert_eq!(config.arms[0].name(), name, "{written}");
    }
    // Against the run's own settings, not the preset's.
    let config = run(&["none", "true-data+lr=1e-3"], &[("optimizer.lr", "1e-3")]).unwrap();
    assert_eq!(config.arms[1].name(), "true-data:kl:10");
    let twice = run(&["none", "none+lr=3e-3"], &[]).unwrap_err();
    assert!(twice.contains("given twice"), "{twice}");
}

/// A setting that is taken and not applied would be a wrong result.
#[test]
fn settings_that_no_arm_can_have_are_refused_in_words() {
    for (arm, expected) in [
        ("none+lr", "sets nothing"),
        ("none+lr=1e+3", "written without `+`"),
        ("none+lr=1+lr=2", "given twice"),
        ("none+lr=fast", "invalid type"),
        ("none+lr=-1", "above 0"),
        ("none+steps=0", "at least 1"),
        ("none+batch=0", "training.batch_size"),
        ("none+phases.reversal.steps=5", "shared by all arms"),
        ("none+phases.sorted.steps=5", "no setting of this run"),
        ("none+lora_rank=-4", "lora_rank"),
        ("none+replay_batch=4", "replays nothing"),
        ("none:kl-new:1+replay_batch=4", "replays nothing"),
        (
            "true-data:replace:0.5+replay_batch=4",
            "share of the new batch",
        ),
        ("none+=4", "STRATEGY"),
        ("a+x=[1", "not TOML"),
    ] {
        let error = run(&[arm], &[]).unwrap_err();
        assert!(error.contains(expected), "{arm}: {error}");
    }
}

/// An arm of larger batches would take the shared first phase for one of other steps, and go on with it for ever.
#[test]
fn what_an_arm_has_for_itself_leaves_the_first_phase_alone() {
    let arms = ["none", "none+batch=48+lr=1e-4+schedule=constant"];
    let config = run(&arms, &[("phases.steps", "7")]).unwrap();
    let own = config.of_arm(&config.arms[1]).unwrap();
    assert_eq!(own.in_phase(0), config.in_phase(0));
    assert_eq!(
        (own.in_phase(1).batch_size, own.in_phase(1).optimizer.lr),
        (48, 1e-4)
    );
}

/// A run that says its warm-up in tokens must not keep an arm from having one in steps, or from having none.
#[test]
fn an_arms_warm_up_holds_against_one_in_tokens() {
    let overrides = Overrides {
        preset: Some("smoke".into()),
        arms: ["none", "none+warmup=3", "none+warmup=0"]
            .map(str::to_owned)
            .into(),
        ..Overrides::default()
    };
    let config = resolve("method-comparison", &overrides).unwrap();
    let names: Vec<String> = config.arms.iter().map(ArmSpec::name).collect();
    assert_eq!(names, ["none", "none+warmup=3", "none+warmup=0"]);
    let steps = config.arms.iter().map(|arm| {
        let own = config.of_arm(arm).unwrap();
        [0, 1].map(|phase| own.in_phase(phase).optimizer.warmup_steps)
    });
    // 2 000 tokens are 4 steps of 16 rows of 32.
    assert!(steps.eq([[4, 4], [4, 3], [4, 0]]));
}

/// Else an arm that was added would have another folder, and so other random numbers, than one that was there from the
/// start, or be taken for its neighbour when the run goes on.
#[test]
fn added_arms_come_last_with_all_seeds_and_are_the_same_arms() {
    let overrides = Overrides {
        arms: ["none", "true-data:kl", "none+lr=1e-3", "none+lr=1e-4"]
            .map(str::to_owned)
            .into(),
        seeds: vec![3, 5],
        ..Overrides::default()
    };
    let config = resolve("toy-continual", &overrides).unwrap();
    let whole = expand(&config);
    let added = expand_added(&config, 2);
    let order: Vec<(usize, u64)> = added.iter().map(|(at, arm)| (*at, arm.info.seed)).collect();
    assert_eq!(
        order,
        [
            (0, 3),
            (1, 3),
            (0, 5),
            (1, 5),
            (2, 3),
            (2, 5),
            (3, 3),
            (3, 5)
        ]
    );
    for (at, arm) in &added {
        assert_eq!(arm.info.name, config.arms[*at].name());
        assert!(whole.contains(arm));
    }
    let none: Vec<Arm> = expand_added(&config, 0)
        .into_iter()
        .map(|(_, arm)| arm)
        .collect();
    assert_eq!(none, whole);
}

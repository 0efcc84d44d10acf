//! Every screen in every kind of terminal, with every kind of data: pairs of all factors are covered.

use std::collections::{BTreeSet, HashMap};

use forgetlab_study::report::Judgement;
use forgetlab_study::run::{Event as RunEvent, RunState};

use super::*;

/// What is drawn.
const SCREENS: [(&str, &str); 19] = [
    ("kept", "2:arrange kept\n"),
    ("curves", "2:arrange curves\n"),
    ("smooth", "2:arrange curves\n:x-axis flops\n++y"),
    ("cursor", "2:arrange curves\n:cursor 200\n["),
    ("losses", "2:arrange losses\n"),
    ("replay", "2:arrange replay\nj"),
    ("samples", "2:arrange samples\n"),
    ("matrix", "2:arrange matrix\nj"),
    ("log", "2:arrange log\n"),
    ("panels", "2:arrange panels\n"),
    ("arm", "2j\n"),
    ("metrics", "2m"),
    ("filter", "2/verdict:FORGETS"),
    ("runs", "1j "),
    ("compose", "3"),
    ("arm_form", "3jjjjj\n"),
    ("strategies", "4jj"),
    ("machine", "5"),
    ("help", "2?"),
];
const SIZES: [Size; 3] = [SMALL, MIDDLE, LARGE];
const THEMES: [(&str, Theme); 3] = [
    ("colour", UNICODE),
    (
        "plain",
        Theme {
            colours: Colours::None,
            ascii: false,
            light: false,
        },
    ),
    ("ascii", ASCII),
];
const ARMS: [usize; 3] = [0, 1, 40];
const SEEDS: [u64; 2] = [1, 5];
const DATA: [&str; 5] = ["usual", "long", "wide", "nan", "none"];

/// A choice of every factor.
type Case = [usize; 6];

const LEVELS: Case = [
    SCREENS.len(),
    SIZES.len(),
    THEMES.len(),
    ARMS.len(),
    SEEDS.len(),
    DATA.len(),
];

/// Cases in which every two choices of two factors meet, found one after the other: always the one with most pairs that
/// are missing.
fn cases() -> Vec<Case> {
    type Pair = ((usize, usize), (usize, usize));
    let pairs_of = |case: &Case| -> Vec<Pair> {
        let all = (0..6).flat_map(|a| (a + 1..6).map(move |b| (a, b)));
        all.map(|(a, b)| ((a, case[a]), (b, case[b]))).collect()
    };
    let mut missing: BTreeSet<Pair> = BTreeSet::new();
    for a in 0..6 {
        for b in a + 1..6 {
            for x in 0..LEVELS[a] {
                missing.extend((0..LEVELS[b]).map(|y| ((a, x), (b, y))));
            }
        }
    }
    let mut cases = Vec::new();
    while let Some(&((a, x), (b, y))) = missing.first() {
        let mut case = [usize::MAX; 6];
        (case[a], case[b]) = (x, y);
        for factor in (0..6).filter(|factor| *factor != a && *factor != b) {
            let gain = |level: &usize| {
                let others = (0..6).filter(|other| case[*other] != usize::MAX);
                let pairs = others.map(|other| match other < factor {
                    true => ((other, case[other]), (factor, *level)),
                    false => ((factor, *level), (other, case[other])),
                });
                pairs.filter(|pair| missing.contains(pair)).count()
            };
            // Of several as good, not always the first.
            let turn = cases.len();
            let levels = (0..LEVELS[factor]).map(|level| (level + turn) % LEVELS[factor]);
            case[factor] = levels.rev().max_by_key(gain).unwrap_or(0);
        }
        pairs_of(&case).iter().for_each(|pair| {
            missing.remove(pair);
        });
        cases.push(case);
    }
    cases
}

/// Arms of a case.
fn arms(count: usize, seeds: u64, data: &str) -> Vec<ArmInfo> {
    const STRATEGIES: [&str; 4] = ["none", "true-data", "self-generated", "bos-prompted"];
    let name = |index: usize| {
        let strategy = STRATEGIES[index % 4];
        let replay = match index {
            0 => "none".to_owned(),
            1..4 => format!("{strategy}:kl:10"),
            _ => format!("{strategy}:kl:{index}"),
        };
        match data {
            "long" => {
                format!("{replay}+lr=1e-3+temperature=0.7+a_setting_with_a_long_name={index}")
            }
            "wide" => format!("{replay}+text=\"日本語のテキスト{index}\""),
            _ => replay,
        }
    };
    let infos = (0..seeds).flat_map(|seed| (0..count).map(move |index| (index, seed)));
    infos
        .map(|(index, seed)| fake::arm_info(&name(index), seed))
        .collect()
}

fn records(arms: &[ArmInfo], data: &str) -> Vec<Record> {
    let until = if data == "none" { 0 } else { 320 };
    let mut records = fake::records(arms, until);
    match data {
        "none" => records.truncate(2),
        "nan" => {
            for (index, record) in records.iter_mut().enumerate() {
                if let RunEvent::Evaluated { scores, .. } = &mut record.event {
                    for score in scores.iter_mut().skip(index % 3) {
                        (score.ntp, score.accuracy) = (Some(f64::NAN), None);
                        score.outcomes = None;
                    }
                }
            }
        }
        _ => {}
    }
    records
}

/// What was made of the same arms before: their state and their verdicts.
type Made = (RunState, Vec<(String, Judgement)>);

fn draw(case: Case, made: &mut HashMap<[usize; 3], Made>) -> String {
    let [at, size, theme, arm_count, seeds, data] = case;
    let (size, theme, data) = (SIZES[size], THEMES[theme].1, DATA[data]);
    let arms = arms(ARMS[arm_count], SEEDS[seeds], data);
    let mut app = app(theme, size);
    app.update(Event::Reply(Reply::Machine(Ok(Box::new(fake::machine())))));
    open(&mut app, &[RUN]);
    app.take_commands();
    let key_of = [arm_count, seeds, case[5]];
    let (state, verdicts) = made
        .entry(key_of)
        .or_insert_with(|| (fake::state(&records(&arms, data)), Vec::new()));
    app.update(Event::Reply(Reply::Feed {
        run: RUN.into(),
        first: true,
        update: Ok(FeedUpdate {
            before: Some(Box::new(state.clone())),
            records: Vec::new(),
            status: RunStatus::Live,
            why: None,
        }),
    }));
    for command in app.take_commands() {
        if let Command::Judge(runs, question) = command {
            // Arms of one strategy are alike but for their names: the bootstrap need not be done forty times.
            let arm = question
                .members
                .first()
                .and_then(|(_, arm)| state.arms.get(*arm));
            let strategy = arm.map_or(String::new(), |arm| arm.info.strategy.clone());
            let known = verdicts.iter().find(|(known, _)| *known == strategy);
            let judgement = match known {
                Some((_, judgement)) => judgement.clone(),
                None => {
                    let judgement = question.judge();
                    verdicts.push((strategy, judgement.clone()));
                    judgement
                }
            };
            app.update(Event::Reply(Reply::Judged(
                runs,
                question.members,
                Box::new(judgement),
            )));
        }
    }
    for c in SCREENS[at].1.chars() {
        match c {
            '\n' => key(&mut app, KeyCode::Enter),
            c => keys(&mut app, &c.to_string()),
        }
    }
    screen(&app, size)
}

/// A change that spoils one screen in one kind of terminal is seen before a user sees it.
#[test]
fn every_screen_in_every_kind_of_terminal() {
    let cases = cases();
    assert!((90..=140).contains(&cases.len()), "{}", cases.len());
    let mut made = HashMap::new();
    let mut drawn: HashMap<&str, String> = HashMap::new();
    for case in cases {
        let shown = draw(case, &mut made);
        let [at, size, theme, arms, seeds, data] = case;
        let size = SIZES[size];
        assert_eq!(shown.lines().count(), usize::from(size.height));
        if THEMES[theme].0 == "ascii" {
            assert!(shown.is_ascii(), "{case:?}\n{shown}");
        }
        assert!(!shown.contains("NaN"), "{case:?}\n{shown}");
        let title = format!(
            "{}x{} {} arms {} seeds {} {}",
            size.width, size.height, THEMES[theme].0, ARMS[arms], SEEDS[seeds], DATA[data]
        );
        let all = drawn.entry(SCREENS[at].0).or_default();
        // Spaces at the ends of lines are most of a large screen.
        let lines = shown.lines().map(|line| line.trim_matches('"').trim_end());
        *all += &format!("== {title}\n{}\n\n", lines.collect::<Vec<_>>().join("\n"));
    }
    for (name, all) in drawn {
        insta::assert_snapshot!(format!("every_{name}"), all);
    }
}

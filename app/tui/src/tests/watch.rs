//! Runs being watched.

use forgetlab_study::run::{Event as RunEvent, Level, PhaseEnd};
use ratatui::style::Color;

use super::super::lab::{Kept, Room};
use super::*;

/// Two arms whose names are cut to the same text would be taken for one another.
#[test]
fn long_names_are_told_apart_everywhere() {
    let head = "self-generated:kl:10+lr=1e-3+buffer_batches=";
    let names = ["none".to_owned(), format!("{head}4"), format!("{head}8")];
    let arms: Vec<ArmInfo> = names.iter().map(|name| fake::arm_info(name, 0)).collect();
    let mut app = watching(UNICODE, SMALL, &arms, 450);
    for pane in ["curves", "panels", "kept"] {
        keys(&mut app, &format!(":arrange {pane}"));
        key(&mut app, KeyCode::Enter);
        let shown = screen(&app, SMALL);
        for end in ["batches=4", "batches=8"] {
            assert!(shown.contains(end), "{pane}: {shown}");
        }
    }
}

#[test]
fn the_answer_is_on_the_smallest_terminal() {
    let app = watching(UNICODE, SMALL, &fake::four_arms(), 450);
    insta::assert_snapshot!("watch_80", screen(&app, SMALL));
}

#[test]
fn a_large_terminal_is_filled() {
    let app = watching(UNICODE, MIDDLE, &fake::four_arms(), 600);
    insta::assert_snapshot!("watch_120", screen(&app, MIDDLE));
    let app = watching(UNICODE, LARGE, &fake::four_arms(), 600);
    insta::assert_snapshot!("watch_250", screen(&app, LARGE));
}

/// A failed arm whose reason is on another screen is taken for one that forgets.
#[test]
fn a_failed_arm_says_why_in_its_row() {
    let mut app = watching(UNICODE, MIDDLE, &many_arms(), 300);
    let failure = "token id 412 is out of range";
    let mut records = fake::records(&many_arms(), 300);
    let failed = RunEvent::ArmFailed {
        arm: 1,
        step: 210,
        reason: failure.into(),
    };
    records.extend(fake::stamp(vec![failed]));
    feed(&mut app, records, RunStatus::Live);
    let shown = screen(&app, MIDDLE);
    assert!(shown.contains("1/3 FAILED: token id 412"), "{shown}");
    assert!(
        shown.contains("! #0 true-data:kl:10 failed: token id 412"),
        "{shown}"
    );
    keys(&mut app, "o");
    assert_eq!(judge(&mut app), 12, "every seed has a verdict of its own");
    assert!(screen(&app, MIDDLE).contains("#0 true-data:kl:10"));
    keys(&mut app, "o");
    assert_eq!(judge(&mut app), 4, "the seeds are closed again");
    assert!(screen(&app, MIDDLE).contains("none ×3"));
}

/// Else an arm that waits its turn would be taken for one that hangs.
#[test]
fn an_arm_that_waits_for_memory_says_so_in_its_row() {
    let mut app = watching(UNICODE, MIDDLE, &fake::four_arms(), 300);
    let mut records = fake::records(&fake::four_arms(), 300);
    let waits = RunEvent::ArmWaits {
        arm: 1,
        reason: "GPU memory full".into(),
    };
    records.extend(fake::stamp(vec![waits]));
    feed(&mut app, records, RunStatus::Live);
    let shown = screen(&app, MIDDLE);
    assert!(
        shown.contains("! true-data:kl:10 waits: GPU memory full"),
        "{shown}"
    );
    let told = |shown: &str| shown.matches("waits: GPU memory full").count();
    assert_eq!(told(&shown), 2, "beside its name, too: {shown}");
    feed(&mut app, Vec::new(), RunStatus::Crashed);
    let shown = screen(&app, MIDDLE);
    assert_eq!(told(&shown), 0, "of a worker that is gone: {shown}");
}

/// The lab would stand still for seconds at every key if drawing or each update computed intervals.
#[test]
fn a_verdict_is_computed_once_an_evaluation_and_never_while_drawing() {
    let mut app = app(UNICODE, SMALL);
    open(&mut app, &[RUN]);
    let records = fake::records(&many_arms(), 300);
    let give = |app: &mut App, first: bool, records: Vec<Record>| {
        let status = RunStatus::Live;
        app.update(Event::Reply(Reply::Feed {
            run: RUN.into(),
            first,
            update: Ok(FeedUpdate {
                records,
                status,
                before: None,
                why: None,
            }),
        }));
    };
    give(&mut app, true, records.clone());
    let shown = screen(&app, SMALL);
    assert!(shown.contains("…"), "not known yet:\n{shown}");
    assert_eq!(judge(&mut app), 4, "one an arm, over its three seeds");
    assert!(screen(&app, SMALL).contains("FORGETS"));
    let log = RunEvent::Log {
        level: Level::Info,
        arm: Some(0),
        message: "nothing new".into(),
    };
    give(&mut app, false, fake::stamp(vec![log]));
    keys(&mut app, "xyf");
    screen(&app, SMALL);
    assert_eq!(judge(&mut app), 0, "no new evaluation");
    let newer = fake::records(&many_arms(), 310);
    let of_first_arm = newer.into_iter().rev();
    let of_first_arm = of_first_arm.filter(|record| record.event.arm() == Some(0));
    let last = of_first_arm.filter(|r| matches!(r.event, RunEvent::Evaluated { .. }));
    give(&mut app, false, last.take(1).collect());
    assert_eq!(judge(&mut app), 1, "one arm has a new evaluation");
    let shown = screen(&app, SMALL);
    assert!(shown.contains("3 seeds"), "{shown}");
}

/// Else nobody could tell what the words on the screen rest on.
#[test]
fn the_help_tells_verdicts_with_the_margins_of_the_run() {
    let mut records = fake::records(&fake::four_arms(), 450);
    if let RunEvent::RunStarted { config, .. } = &mut records[0].event {
        let margins = serde_json::json!({"margin_accuracy": 0.03, "margin_ntp": 0.25});
        *config = Some(serde_json::json!({ "verdict": margins }));
    }
    let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 450);
    feed(&mut app, records, RunStatus::Live);
    keys(&mut app, "?");
    insta::assert_snapshot!("help_80", screen(&app, SMALL));
    let mut pages = String::new();
    for _ in 0..8 {
        pages += &screen(&app, SMALL);
        key(&mut app, KeyCode::PageDown);
    }
    let shown: String = pages
        .split(['"', '\n', '│'])
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ");
    assert!(shown.contains("3 points of accuracy, or 0.25"), "{shown}");
}

/// Else a curve that stops early looks like an arm that stopped working.
#[test]
fn an_arm_tells_which_phases_ended_early_and_why() {
    let arms = [0, 1, 2].map(|seed| fake::arm_info("none", seed));
    let mut records = fake::records(&arms, 450);
    let end = |(arm, step, by)| RunEvent::PhaseEnded {
        arm,
        phase: 1,
        step,
        by,
    };
    let ends = [
        (0, 240, PhaseEnd::TargetLoss),
        (1, 270, PhaseEnd::TargetLoss),
        (2, 300, PhaseEnd::Steps),
    ];
    records.extend(fake::stamp(ends.map(end).into()));
    let mut app = app(UNICODE, LARGE);
    open(&mut app, &[RUN]);
    feed(&mut app, records, RunStatus::Live);
    key(&mut app, KeyCode::Enter);
    let shown = screen(&app, LARGE);
    let words = "sort ended at step 240 to 270 in 2 of 3 seeds: its data have the loss that was";
    assert!(shown.contains(words), "{shown}");
}

/// Replay that is nonsense would go unseen behind a loss.
#[test]
fn what_an_arm_replays_can_be_read_scrolled_and_scrubbed() {
    let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 450);
    keys(&mut app, ":arrange replay");
    key(&mut app, KeyCode::Enter);
    keys(&mut app, "p");
    // The arm under the cursor is the first of the run, which replays nothing.
    assert!(screen(&app, SMALL).contains("none replays nothing"));
    keys(&mut app, "/true-data");
    key(&mut app, KeyCode::Enter);
    keys(&mut app, "kz");
    let shown = screen(&app, SMALL);
    assert!(
        shown.contains("replay of true-data:kl:10") && shown.contains("duplicates 3.1%"),
        "{shown}"
    );
    key(&mut app, KeyCode::End);
    assert!(screen(&app, SMALL).contains("Naïve café"));
    // The cursor on the curves chooses the batch; its texts are read when they are looked at.
    app.take_commands();
    keys(&mut app, ":cursor 300");
    key(&mut app, KeyCode::Enter);
    assert!(screen(&app, SMALL).contains("reading its texts"));
    let asked = app.take_commands();
    assert_eq!(asked, [Command::Look(RUN.into(), 1, 300)]);
    let look = fake::state(&fake::records(&fake::four_arms(), 310)).arms[1]
        .replay
        .last()
        .cloned();
    app.update(Event::Reply(Reply::Looked(
        RUN.into(),
        1,
        300,
        look.ok_or_else(String::new),
    )));
    assert_eq!(app.take_commands(), [], "it is read once");
    assert!(screen(&app, SMALL).contains("says true-data"));
}

/// Else what a student has lost would be seen in figures alone.
#[test]
fn what_a_student_writes_is_read_beside_what_it_wrote() {
    let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 450);
    keys(&mut app, ":arrange samples");
    key(&mut app, KeyCode::Enter);
    // The end of the phase that trained `reversal`, and that of the phase before the one under way.
    let mut asked = app.take_commands();
    let arms = fake::four_arms();
    let read = |step: u64| {
        let state = fake::state(&fake::records(&arms, step));
        state.arms[0]
            .samples
            .last()
            .cloned()
            .ok_or_else(String::new)
    };
    let mut steps = Vec::new();
    while let Some(Command::ReadSamples(run, arm, step)) = asked.pop() {
        assert_eq!((&*run, arm), (RUN, 0));
        steps.push(step);
        app.update(Event::Reply(Reply::Samples(run, arm, step, read(step))));
        asked.extend(app.take_commands());
    }
    steps.sort_unstable();
    assert_eq!(steps, [150, 300]);
    keys(&mut app, "z");
    let shown = screen(&app, SMALL);
    for text in [
        "samples of none",
        "at 450",
        "reversal",
        "150│ 4 3 7 <sep> <null> <eq> 0 7 3 4 <eos>",
        "450│ 4 3 7 <sep> <null> <eq> 0 1 1 1 <eos>",
    ] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    // The cursor on the curves chooses the step.
    app.take_commands();
    keys(&mut app, ":cursor 120");
    key(&mut app, KeyCode::Enter);
    assert!(screen(&app, SMALL).contains("reading what it wrote"));
    assert_eq!(
        app.take_commands(),
        [Command::ReadSamples(RUN.into(), 0, 120)]
    );
    let answer = Reply::Samples(RUN.into(), 0, 120, Err("the disk is gone".into()));
    app.update(Event::Reply(answer));
    assert!(screen(&app, SMALL).contains("the disk is gone"));
    assert_eq!(app.take_commands(), [], "it is read once");
}

/// Where nothing is faint, what is only given must still be told from what is trained on.
#[test]
fn what_is_masked_is_faint_or_in_brackets() {
    for (theme, expected) in [
        (UNICODE, "<bos> reversal 6 4 1 9"),
        (ASCII, "[<bos> reversal] 6 4 1 9"),
    ] {
        let mut app = watching(theme, SMALL, &fake::four_arms(), 440);
        keys(&mut app, ":arrange replay");
        key(&mut app, KeyCode::Enter);
        keys(&mut app, "/true-data");
        key(&mut app, KeyCode::Enter);
        keys(&mut app, "kz");
        let shown = screen(&app, SMALL);
        assert!(shown.contains(expected), "{shown}");
        assert!(shown.contains("kl"), "{shown}");
        assert!(shown.contains("student 2.000"), "{shown}");
    }
}

/// Seeds that were run apart would stand as arms of their own, and no interval would be over them.
#[test]
fn seeds_of_several_runs_are_compared_as_one_arm() {
    let mut app = app(UNICODE, MIDDLE);
    let runs = open_two(&mut app);
    for (seed, run) in (0..).zip(runs) {
        let arms = ["none", "true-data:kl:10"].map(|name| fake::arm_info(name, seed));
        finished(&mut app, run, &arms);
    }
    judge(&mut app);
    let shown = screen(&app, MIDDLE);
    for text in ["2 runs, 0 live", "none ×2", "2 seeds"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    keys(&mut app, "o");
    assert_eq!(judge(&mut app), 4);
    assert!(!screen(&app, MIDDLE).contains("×2"));
}

/// Two arms of one name that are not the same would be taken for one.
#[test]
fn arms_of_one_name_in_runs_of_other_settings_are_told_apart() {
    let mut app = app(UNICODE, MIDDLE);
    let runs = open_two(&mut app);
    for (lr, run) in (1..).zip(runs) {
        let mut arms = ["none", "true-data:kl:10"].map(|name| fake::arm_info(name, 0));
        arms.iter_mut().for_each(|arm| arm.lr = f64::from(lr));
        finished(&mut app, run, &arms);
    }
    judge(&mut app);
    let shown = screen(&app, MIDDLE);
    for name in ["ab10: none", "ab11: none", "ab11: true-data"] {
        assert!(shown.contains(name), "{name}: {shown}");
    }
    // Each is compared with that of its name in the first run.
    let against = |row: &str| -> Vec<String> {
        let title = shown.lines().find(|line| line.contains("vs ab10")).unwrap();
        let from = title[..title.find("vs ab10").unwrap()].chars().count();
        let rows = shown
            .lines()
            .filter(|line| line.contains(row) && line.contains("finished"));
        let cell = |row: &str| -> String { row.chars().skip(from).take(7).collect() };
        rows.map(|row| cell(row).trim().to_owned()).collect()
    };
    assert_eq!(against("ab11: "), ["0.0%", "0.0%"], "{shown}");
    assert_eq!(against("ab10: "), ["·", "·"], "{shown}");
    // By their names, what belongs together stands together.
    keys(&mut app, ":sort arm");
    key(&mut app, KeyCode::Enter);
    let shown = screen(&app, MIDDLE);
    let rows = shown.lines().filter(|line| line.contains("finished"));
    let rows = rows.filter_map(|row| row.split(' ').find(|word| word.starts_with("ab1")));
    let order = ["ab10:", "ab11:", "ab10:", "ab11:"];
    assert!(rows.eq(order), "{shown}");
}

/// A mean that changed when another arm is hidden would be a result of the screen.
#[test]
fn hiding_filtering_and_sorting_change_no_figure() {
    let mut app = watching(UNICODE, LARGE, &many_arms(), 600);
    let row = |app: &App, arm: &str| -> Vec<String> {
        let shown = screen(app, LARGE);
        let row = shown
            .lines()
            .find(|line| line.contains(arm) && line.contains("finished"));
        let row = row.unwrap_or_else(|| panic!("{arm}: {shown}"));
        row.split_whitespace().map(str::to_owned).collect()
    };
    let before = row(&app, "true-data:kl:10 ×3");
    keys(&mut app, "jjH");
    let hidden = screen(&app, LARGE);
    assert_eq!(hidden.matches("finished").count(), 1 + 3, "{hidden}");
    assert_eq!(row(&app, "true-data:kl:10 ×3"), before);
    keys(&mut app, "/arm:true OR verdict:FORGETS");
    key(&mut app, KeyCode::Enter);
    keys(&mut app, "/kept>50%");
    assert_eq!(row(&app, "true-data:kl:10 ×3"), before);
    key(&mut app, KeyCode::Esc);
    keys(&mut app, "A:sort tokens");
    key(&mut app, KeyCode::Enter);
    assert!(screen(&app, LARGE).contains("tokens↑"));
    assert_eq!(row(&app, "true-data:kl:10 ×3"), before);
}

/// What is read off a curve by eye is a guess.
#[test]
fn the_cursor_reads_every_arm_at_one_step() {
    let mut app = watching(UNICODE, MIDDLE, &fake::four_arms(), 600);
    keys(&mut app, ":cursor 450");
    key(&mut app, KeyCode::Enter);
    let shown = screen(&app, MIDDLE);
    let line = shown
        .lines()
        .find(|line| line.contains("accuracy of old data at 450 steps"))
        .unwrap()
        .to_owned();
    for arm in ["none 0.0%", "100%", "self", "bos"] {
        assert!(line.contains(arm), "{line}");
    }
    key(&mut app, KeyCode::Left);
    assert!(screen(&app, MIDDLE).contains("at 440 steps"));
    // It stays where it is on another axis, and in sight when the axis is zoomed.
    keys(&mut app, "x");
    assert!(screen(&app, MIDDLE).contains("tokens: "));
    keys(&mut app, "xxx[[");
    let shown = screen(&app, MIDDLE);
    assert!(
        shown.contains("at 440 steps") && shown.contains("zoomed"),
        "{shown}"
    );
    for _ in 0..5 {
        key(&mut app, KeyCode::Esc);
    }
    assert!(!screen(&app, MIDDLE).contains("steps: "));
}

/// What has a key is a command, too; a wrong one says what would be right.
#[test]
fn the_command_line_completes_explains_and_refuses() {
    let mut app = watching(UNICODE, MIDDLE, &fake::four_arms(), 450);
    keys(&mut app, ":met");
    key(&mut app, KeyCode::Tab);
    assert!(screen(&app, MIDDLE).contains("what the curves show, by name"));
    keys(&mut app, " kl of s");
    key(&mut app, KeyCode::Tab);
    key(&mut app, KeyCode::Enter);
    assert!(screen(&app, MIDDLE).contains("KL of sort, nats"));
    keys(&mut app, ":metirc x");
    key(&mut app, KeyCode::Enter);
    assert!(
        screen(&app, MIDDLE).contains("`metric`?"),
        "{}",
        screen(&app, MIDDLE)
    );
    key(&mut app, KeyCode::Esc);
    keys(&mut app, ":");
    key(&mut app, KeyCode::Up);
    key(&mut app, KeyCode::Up);
    assert!(
        screen(&app, MIDDLE).contains(":metric kl of sort"),
        "what was typed comes back"
    );
    key(&mut app, KeyCode::Esc);
    keys(&mut app, "m");
    insta::assert_snapshot!("metrics_120", screen(&app, MIDDLE));
    keys(&mut app, "grad");
    key(&mut app, KeyCode::Enter);
    assert!(screen(&app, MIDDLE).contains("gradient norm"));
}

/// Else the same screen is set up again every morning.
#[test]
fn an_experiment_is_looked_at_as_it_was_before() {
    let mut app = watching(UNICODE, MIDDLE, &fake::four_arms(), 450);
    keys(&mut app, "xy++p");
    let kept = app
        .take_commands()
        .into_iter()
        .rev()
        .find_map(|command| match command {
            Command::KeepViews(views) => Some(views),
            _ => None,
        });
    let kept = Kept {
        views: kept.unwrap(),
        keys: "[watch]\nmetric = \"M\"".into(),
        keys_path: "keys.toml".into(),
    };
    let mut app = App::new(UNICODE, MIDDLE, NOW, Some(RUN.into()));
    app.update(Event::Reply(Reply::Kept(Ok(kept))));
    feed(
        &mut app,
        fake::records(&fake::four_arms(), 450),
        RunStatus::Live,
    );
    let shown = screen(&app, MIDDLE);
    for text in ["tokens ─ no log of 0 ─ smooth .4", "●› none", "M metric"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
}

/// Steps of very different size are read on a logarithmic axis; 0 has no place there.
#[test]
fn the_x_axis_can_be_logarithmic() {
    let mut app = watching(UNICODE, MIDDLE, &fake::four_arms(), 450);
    keys(&mut app, ":arrange curves");
    key(&mut app, KeyCode::Enter);
    keys(&mut app, "zx");
    let places = |shown: &str| -> Vec<String> {
        let line = shown.lines().find(|line| line.contains("└")).unwrap();
        let line = line.split('└').nth(1).unwrap();
        let labels = line.split(['─', ' ', '"']);
        let labels = labels.filter(|label| !label.is_empty());
        labels.map(str::to_owned).collect()
    };
    let linear = screen(&app, MIDDLE);
    assert!(linear.contains("─ tokens "), "{linear}");
    assert_eq!(places(&linear)[0], "0");
    keys(&mut app, "L");
    let log = screen(&app, MIDDLE);
    assert!(log.contains("─ log tokens "), "{log}");
    let (linear, log) = (places(&linear), places(&log));
    assert_ne!(log[0], "0", "{log:?}");
    assert_eq!(linear.last(), log.last());
    // The middle is the geometric mean of the ends.
    assert_eq!(log.len(), 7, "{log:?}");
    let number = |text: &str| -> f64 {
        let digits = text.trim_end_matches(['k', 'M']);
        let unit = match &text[digits.len()..] {
            "k" => 1e3,
            "M" => 1e6,
            _ => 1.0,
        };
        digits.parse::<f64>().unwrap() * unit
    };
    let middle = (number(&log[0]) * number(&log[6])).sqrt();
    assert!((number(&log[3]) / middle - 1.0).abs() < 0.05, "{log:?}");
}

/// A researcher puts what the screen shows into a paper, not seven other tables.
#[test]
fn the_table_is_written_as_it_is_shown() {
    let mut app = watching(UNICODE, MIDDLE, &fake::four_arms(), 600);
    keys(&mut app, ":sort forgot");
    key(&mut app, KeyCode::Enter);
    app.take_commands();
    let shown = screen(&app, MIDDLE);
    let row = |line: &&str| line.contains("%  ") && line.contains("finished");
    let arms = shown.lines().filter(row);
    let arms: Vec<&str> = arms
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    for (format, lead) in [("latex", "    "), ("markdown", "| `"), ("csv", "\n")] {
        keys(&mut app, &format!(":export this table as {format}"));
        key(&mut app, KeyCode::Enter);
        let commands = app.take_commands();
        let Some(Command::WriteText(text, _)) = commands.last() else {
            panic!("{commands:?}");
        };
        let places = arms.iter().map(|arm| text.find(&format!("{lead}{arm}")));
        let places: Vec<usize> = places.map(|place| place.expect(text)).collect();
        assert!(places.len() == 4 && places.is_sorted(), "{arms:?}: {text}");
        assert!(
            text.contains("FORGETS") && text.contains("worst@step"),
            "{text}"
        );
    }
    keys(&mut app, "Y");
    assert!(
        app.take_clipboard()
            .is_some_and(|text| text.starts_with("**What 4 arms kept"))
    );
}

/// What passes must be seen while a filter is typed, and come back where it is given up.
#[test]
fn a_filter_shows_what_passes_as_it_is_typed() {
    let mut app = watching(UNICODE, MIDDLE, &fake::four_arms(), 600);
    let arms = |app: &App| screen(app, MIDDLE).matches("finished").count();
    keys(&mut app, "/true");
    assert_eq!(arms(&app), 2, "{}", screen(&app, MIDDLE));
    key(&mut app, KeyCode::Backspace);
    keys(&mut app, "xyz");
    assert_eq!(arms(&app), 1);
    key(&mut app, KeyCode::Esc);
    assert_eq!(arms(&app), 5);
}

/// A live run that has written nothing yet, and one that cannot be read, must be told apart.
#[test]
fn a_run_without_anything_says_what_it_waits_for() {
    let mut app = app(UNICODE, SMALL);
    open(&mut app, &[RUN]);
    assert!(screen(&app, SMALL).contains("reading the run"));
    feed_to(&mut app, RUN, true, Vec::new(), RunStatus::Live);
    assert!(screen(&app, SMALL).contains("waiting for the worker's first event"));
    feed_to(&mut app, RUN, true, Vec::new(), RunStatus::Crashed);
    assert!(screen(&app, SMALL).contains("crashed"));
    app.update(Event::Reply(Reply::Feed {
        run: RUN.into(),
        first: false,
        update: Err("events.jsonl: line 7 is damaged".into()),
    }));
    assert!(screen(&app, SMALL).contains("cannot be read: events.jsonl: line 7 is damaged"));
}

/// Else an arm could be stopped by a slip of the finger, or added to the wrong run.
#[test]
fn arms_are_added_and_stopped_by_asking_the_worker() {
    let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 450);
    app.take_commands();
    keys(&mut app, "atrue-data:ntp:1");
    key(&mut app, KeyCode::Enter);
    assert_eq!(
        app.take_commands(),
        [Command::AddArm(RUN.into(), "true-data:ntp:1".into())]
    );
    key(&mut app, KeyCode::Delete);
    let shown = screen(&app, SMALL);
    assert!(
        shown.contains("Stop the arm?") && shown.contains("The others go on"),
        "{shown}"
    );
    keys(&mut app, "y");
    let [Command::StopArm(run, slugs)] = &app.take_commands()[..] else {
        panic!();
    };
    assert_eq!((run.as_str(), slugs.len()), (RUN, 1));
}

#[test]
fn strategies_and_machine_are_readable() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "4jj");
    insta::assert_snapshot!("strategies_80", screen(&app, SMALL));
    keys(&mut app, "jj");
    assert!(screen(&app, SMALL).contains("was built for ABI 2.0"));
    app.take_commands();
    keys(&mut app, "c");
    assert!(matches!(app.take_commands()[..], [Command::Check(_)]));
    app.update(Event::Reply(Reply::Told(
        "Check",
        Ok("create  ok\nnext_batch  ok".into()),
    )));
    assert!(
        screen(&app, SMALL).contains("next_batch  ok")
            || screen(&app, SMALL).contains("next_batch ok")
    );
    key(&mut app, KeyCode::Esc);
    keys(&mut app, "5");
    assert!(
        app.take_commands()
            .iter()
            .any(|c| matches!(c, Command::FollowMachine(Some(_))))
    );
    app.update(Event::Reply(Reply::Machine(Ok(Box::new(fake::machine())))));
    insta::assert_snapshot!("machine_80", screen(&app, SMALL));
    keys(&mut app, "1");
    assert!(
        app.take_commands().contains(&Command::FollowMachine(None)),
        "it is not read for nobody"
    );
}

/// A nearly full disk is how a week of training is lost.
#[test]
fn a_full_disk_is_told_in_the_header() {
    let mut app = watching(UNICODE, MIDDLE, &fake::four_arms(), 450);
    let mut machine = fake::machine();
    app.update(Event::Reply(Reply::Machine(Ok(Box::new(machine.clone())))));
    assert!(screen(&app, MIDDLE).contains("gpu0 91% 61/141G 402W"));
    machine.disk = Some(Room {
        used: 900 << 30,
        total: 901 << 30,
    });
    app.update(Event::Reply(Reply::Machine(Ok(Box::new(machine)))));
    assert!(screen(&app, MIDDLE).contains("the disk of the results has 1.0 GiB left"));
}

#[test]
fn only_ascii_reaches_an_ascii_terminal() {
    let ascii = Theme {
        colours: Colours::Sixteen,
        ascii: true,
        light: false,
    };
    for size in [SMALL, LARGE] {
        let mut app = watching(ascii, size, &fake::four_arms(), 450);
        app.update(Event::Reply(Reply::Machine(Ok(Box::new(fake::machine())))));
        for code in "vvvvvvvvm"
            .chars()
            .map(KeyCode::Char)
            .chain([KeyCode::Esc, KeyCode::Enter])
        {
            key(&mut app, code);
            let shown = screen(&app, size);
            assert!(shown.is_ascii(), "{shown}");
        }
        key(&mut app, KeyCode::Esc);
        for c in "12345?".chars() {
            keys(&mut app, &c.to_string());
            let shown = screen(&app, size);
            assert!(shown.is_ascii(), "{shown}");
        }
    }
}

#[test]
fn no_color_means_no_colour_and_loses_nothing() {
    let plain = Theme {
        colours: Colours::None,
        ascii: false,
        light: false,
    };
    let coloured = watching(UNICODE, SMALL, &fake::four_arms(), 450);
    let app = watching(plain, SMALL, &fake::four_arms(), 450);
    let drawn = terminal(&app, SMALL);
    let cells = &drawn.backend().buffer().content;
    assert!(
        cells
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
    assert_eq!(screen(&app, SMALL), screen(&coloured, SMALL));
}

//! Tests of the whole lab: snapshots of screens at fixed sizes, and random keys in any state.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use forgetlab_study::experiment::ArmInfo;
use forgetlab_study::run::{Event as RunEvent, Level, PhaseEnd, Record, RunStatus, Score};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::Size;
use ratatui::style::Color;

use super::app::{App, Exit};
use super::event::{Command, Event, Reply};
use super::fake;
use super::keymap::{KEYMAP, Key};
use super::lab::{FeedUpdate, Started};
use super::theme::{Colours, Theme};

const UNICODE: Theme = Theme {
    colours: Colours::Many,
    ascii: false,
};
const RUN: &str = "20261123T130600Z-toy-continual-ab12";
const NOW: f64 = fake::START + 120.0;

fn app(theme: Theme, size: Size) -> App {
    let mut app = App::new(theme, size, NOW, None);
    app.update(Event::Reply(Reply::Experiments(Ok(fake::experiments()))));
    app.update(Event::Reply(Reply::Plugins(Ok(fake::plugins()))));
    app.update(Event::Reply(Reply::Devices(Ok(fake::devices()))));
    let runs = [
        fake::summary(RUN, RunStatus::Live, 0.42, 0.0),
        fake::summary(
            "20261123T120600Z-toy-continual-cd34",
            RunStatus::Finished,
            1.0,
            3600.0,
        ),
        fake::summary(
            "20261122T120600Z-toy-continual-ef56",
            RunStatus::Crashed,
            0.3,
            9e4,
        ),
    ];
    app.update(Event::Reply(Reply::Runs(Ok(runs.into()))));
    app
}

fn key(app: &mut App, code: KeyCode) {
    app.update(Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
}

/// Types plain characters.
fn keys(app: &mut App, text: &str) {
    for c in text.chars() {
        key(app, KeyCode::Char(c));
    }
}

fn feed(app: &mut App, records: Vec<Record>, status: RunStatus) {
    let update = Ok(FeedUpdate {
        records,
        status,
        before: None,
        why: None,
    });
    app.update(Event::Reply(Reply::Feed {
        run: RUN.into(),
        first: true,
        update,
    }));
    judge(app);
}

/// Computes the verdicts that were asked for, as the lab's thread does; returns their number.
fn judge(app: &mut App) -> usize {
    let mut judged = 0;
    for command in app.take_commands() {
        if let Command::Judge(runs, question) = command {
            let judgement = Box::new(question.judge());
            app.update(Event::Reply(Reply::Judged(
                runs,
                question.members,
                judgement,
            )));
            judged += 1;
        }
    }
    judged
}

/// A lab that watches a test run.
fn watching(theme: Theme, size: Size, arms: &[ArmInfo], until: u64) -> App {
    let mut app = app(theme, size);
    app.update(Event::Reply(Reply::Started(Ok(Started::Run(RUN.into())))));
    let status = if until < 600 {
        RunStatus::Live
    } else {
        RunStatus::Finished
    };
    feed(&mut app, fake::records(arms, until), status);
    app
}

fn many_arms() -> Vec<ArmInfo> {
    let names = [
        "none",
        "true-data:kl:10",
        "self-generated:ntp:1",
        "bos-prompted:kl:10",
    ];
    let seeds = 0..3;
    seeds
        .flat_map(|seed| names.map(|name| fake::arm_info(name, seed)))
        .collect()
}

fn terminal(app: &App, size: Size) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(size.width, size.height)).unwrap();
    terminal.draw(|frame| app.draw(frame)).unwrap();
    terminal
}

fn screen(app: &App, size: Size) -> String {
    terminal(app, size).backend().to_string()
}

const SMALL: Size = Size::new(80, 24);
const LARGE: Size = Size::new(160, 50);

#[test]
fn a_new_run_can_be_read_and_started() {
    let mut app = app(UNICODE, SMALL);
    insta::assert_snapshot!("new_run_80", screen(&app, SMALL));
    app.take_commands();
    keys(&mut app, "s");
    let commands = app.take_commands();
    let [Command::Start(request)] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!(
        (request.preset.as_str(), request.device.as_str()),
        ("cpu", "cpu")
    );
    assert_eq!(request.arms.len(), 4);
    keys(&mut app, "s");
    assert_eq!(
        app.take_commands(),
        [],
        "a second key starts no second worker"
    );
    app.update(Event::Reply(Reply::Started(Ok(Started::Run(RUN.into())))));
    assert_eq!(app.take_commands(), [Command::Watch(RUN.into())]);
}

#[test]
fn an_arm_is_edited_with_the_fields_of_its_schema() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "jjjjjj");
    key(&mut app, KeyCode::Enter);
    for _ in 0..3 {
        key(&mut app, KeyCode::Down);
    }
    keys(&mut app, "0");
    key(&mut app, KeyCode::Enter);
    insta::assert_snapshot!("arm_form_refuses_80", screen(&app, SMALL));
    key(&mut app, KeyCode::Backspace);
    keys(&mut app, "32");
    key(&mut app, KeyCode::Enter);
    app.take_commands();
    keys(&mut app, "s");
    let commands = app.take_commands();
    let [Command::Start(request)] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!(request.arms[2].settings["buffer"].as_integer(), Some(32));
}

/// Arms that differ in a learning rate alone could not be started from the lab, or would look alike.
#[test]
fn an_arm_may_have_settings_of_the_finetuning_phases_for_itself() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "jjjjjjc");
    key(&mut app, KeyCode::Enter);
    // Objective, coefficient, three settings of the strategy, then those of the phases.
    for _ in 0..6 {
        key(&mut app, KeyCode::Down);
    }
    keys(&mut app, "1e-3x");
    insta::assert_snapshot!("arm_form_phases_80", screen(&app, SMALL));
    key(&mut app, KeyCode::Enter);
    assert!(
        screen(&app, SMALL).contains("! wrong"),
        "it is not accepted"
    );
    key(&mut app, KeyCode::Backspace);
    key(&mut app, KeyCode::Down);
    keys(&mut app, "20");
    key(&mut app, KeyCode::Enter);
    insta::assert_snapshot!("new_run_settings_80", screen(&app, SMALL));
    app.take_commands();
    keys(&mut app, "s");
    let commands = app.take_commands();
    let [Command::Start(request)] = &commands[..] else {
        panic!("{commands:?}");
    };
    let names: Vec<String> = request.arms.iter().map(|arm| arm.name()).collect();
    // 20 steps of warm-up are the run's own.
    assert_eq!(
        names[2..4],
        ["self-generated:kl:10", "self-generated:kl:10+lr=1e-3"]
    );
}

/// Two arms whose names are cut to the same text would be taken for one another.
#[test]
fn long_names_are_told_apart_everywhere() {
    let head = "self-generated:kl:10+lr=1e-3+buffer_batches=";
    let names = ["none".to_owned(), format!("{head}4"), format!("{head}8")];
    let arms: Vec<ArmInfo> = names.iter().map(|name| fake::arm_info(name, 0)).collect();
    let mut app = watching(UNICODE, SMALL, &arms, 450);
    let shown = screen(&app, SMALL);
    insta::assert_snapshot!("live_long_names_80", shown);
    for end in ["batches=4", "batches=8"] {
        assert!(shown.matches(end).count() >= 2, "panel and row: {shown}");
    }
    key(&mut app, KeyCode::Up);
    key(&mut app, KeyCode::Enter);
    let shown = screen(&app, SMALL);
    assert!(
        shown.contains("batches=4") || shown.contains("batches=8"),
        "{shown}"
    );
}

#[test]
fn a_form_that_cannot_be_run_says_why_and_where() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "jjj");
    key(&mut app, KeyCode::Backspace);
    app.take_commands();
    key(&mut app, KeyCode::Up);
    keys(&mut app, "s");
    assert_eq!(app.take_commands(), []);
    assert!(screen(&app, SMALL).contains("give at least one seed"));
    keys(&mut app, "0,1");
    key(&mut app, KeyCode::Up);
    key(&mut app, KeyCode::Right);
    keys(&mut app, "s");
    assert_eq!(app.take_commands(), []);
    assert!(screen(&app, SMALL).contains("built without CUDA"));
}

#[test]
fn four_arms_fit_the_smallest_terminal() {
    let app = watching(UNICODE, SMALL, &fake::four_arms(), 450);
    insta::assert_snapshot!("live_80", screen(&app, SMALL));
}

#[test]
fn a_large_terminal_shows_every_task_in_the_table() {
    let app = watching(UNICODE, LARGE, &fake::four_arms(), 600);
    insta::assert_snapshot!("live_160", screen(&app, LARGE));
}

#[test]
fn twelve_arms_are_paged_and_a_failed_one_says_why() {
    let mut app = watching(UNICODE, SMALL, &many_arms(), 300);
    let failure = "token id 412 is out of range: the vocabulary has 24";
    let mut records = fake::records(&many_arms(), 300);
    let events = [
        RunEvent::Log {
            level: Level::Error,
            arm: Some(1),
            message: failure.into(),
        },
        RunEvent::ArmFailed {
            arm: 1,
            step: 210,
            reason: failure.into(),
        },
    ];
    records.extend(fake::stamp(events.into()));
    feed(&mut app, records, RunStatus::Live);
    insta::assert_snapshot!("live_seeds_80", screen(&app, SMALL));
    keys(&mut app, "o");
    assert_eq!(judge(&mut app), 12, "every seed has a verdict of its own");
    insta::assert_snapshot!("live_twelve_80", screen(&app, SMALL));
    key(&mut app, KeyCode::PageDown);
    assert!(screen(&app, SMALL).contains("page 2 of 3"));
    keys(&mut app, "o");
    assert_eq!(judge(&mut app), 0, "the verdicts over seeds are known");
    assert!(screen(&app, SMALL).contains("none ×3"));
}

/// The lab would stand still for seconds at every key if drawing or each update computed intervals.
#[test]
fn a_verdict_is_computed_once_an_evaluation_and_never_while_drawing() {
    let mut app = app(UNICODE, SMALL);
    app.update(Event::Reply(Reply::Started(Ok(Started::Run(RUN.into())))));
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
    keys(&mut app, "msf");
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
    key(&mut app, KeyCode::PageDown);
    keys(&mut app, "jjjjjjjjjj");
    insta::assert_snapshot!("help_verdicts_80", screen(&app, SMALL));
    let shown = screen(&app, SMALL);
    assert!(shown.contains("3 points of accuracy, or 0.25"), "{shown}");
}

#[test]
fn one_arm_fills_the_screen() {
    let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 450);
    key(&mut app, KeyCode::Enter);
    insta::assert_snapshot!("arm_80", screen(&app, SMALL));
    let mut app = watching(UNICODE, LARGE, &fake::four_arms(), 450);
    key(&mut app, KeyCode::Down);
    key(&mut app, KeyCode::Enter);
    keys(&mut app, "m");
    insta::assert_snapshot!("arm_160", screen(&app, LARGE));
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
    app.update(Event::Reply(Reply::Started(Ok(Started::Run(RUN.into())))));
    feed(&mut app, records, RunStatus::Live);
    key(&mut app, KeyCode::Enter);
    let shown = screen(&app, LARGE);
    let words = "sort ended at step 240 to 270 in 2 of 3 seeds: its data have the loss that was";
    assert!(shown.contains(words), "{shown}");
}

/// Replay that is nonsense would go unseen behind a loss.
#[test]
fn what_an_arm_replays_can_be_read_and_scrolled() {
    let ascii = Theme {
        colours: Colours::None,
        ascii: true,
    };
    let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 450);
    key(&mut app, KeyCode::Enter);
    key(&mut app, KeyCode::Right);
    keys(&mut app, "r");
    insta::assert_snapshot!("replay_80", screen(&app, SMALL));
    key(&mut app, KeyCode::End);
    let shown = screen(&app, SMALL);
    assert!(shown.contains("Naïve café"), "{shown}");
    keys(&mut app, "r");
    key(&mut app, KeyCode::Left);
    keys(&mut app, "r");
    assert!(screen(&app, SMALL).contains("nothing was replayed yet"));

    let mut app = watching(ascii, SMALL, &fake::four_arms(), 450);
    key(&mut app, KeyCode::Enter);
    key(&mut app, KeyCode::Right);
    keys(&mut app, "r");
    key(&mut app, KeyCode::End);
    let shown = screen(&app, SMALL);
    assert!(shown.is_ascii(), "{shown}");
}

#[test]
fn runs_are_listed_marked_and_compared() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "3 j ");
    insta::assert_snapshot!("runs_80", screen(&app, SMALL));
    app.take_commands();
    keys(&mut app, "c");
    let chosen = vec![
        RUN.to_string(),
        "20261122T120600Z-toy-continual-ef56".into(),
    ];
    assert_eq!(app.take_commands(), [Command::Compare(chosen.clone())]);
    let state = fake::state(&fake::records(&fake::four_arms(), 600));
    let runs = vec![
        (chosen[0].clone(), Ok(state)),
        (chosen[1].clone(), Err("events.jsonl cannot be read".into())),
    ];
    app.update(Event::Reply(Reply::Compared(runs)));
    judge(&mut app);
    insta::assert_snapshot!("compare_80", screen(&app, SMALL));
    keys(&mut app, "e");
    assert_eq!(app.take_commands().last(), Some(&Command::Export(chosen)));
}

const SWEEP: &str = "20261123T124600Z-size-length-grid-9f0e";

/// A lab that knows a sweep beside its runs.
fn with_sweep(theme: Theme, size: Size) -> App {
    let mut app = app(theme, size);
    let runs = [
        fake::summary(RUN, RunStatus::Finished, 1.0, 0.0),
        fake::sweep(SWEEP).summary,
    ];
    app.update(Event::Reply(Reply::Runs(Ok(runs.into()))));
    app
}

/// Else a sweep of twelve runs would be none on the screen, or twelve.
#[test]
fn a_sweep_is_one_row_that_opens_its_points() {
    let mut app = with_sweep(UNICODE, SMALL);
    keys(&mut app, "3j");
    insta::assert_snapshot!("runs_sweep_80", screen(&app, SMALL));
    insta::assert_snapshot!("runs_sweep_160", screen(&app, LARGE));
    app.take_commands();
    key(&mut app, KeyCode::Enter);
    let follow = Command::FollowSweep(Some(SWEEP.into()));
    assert!(app.take_commands().contains(&follow));
    assert!(screen(&app, SMALL).contains("reading the sweep"));
    let sweep = fake::sweep(SWEEP);
    let points = sweep.points.clone();
    app.update(Event::Reply(Reply::Sweep(
        SWEEP.into(),
        Ok(sweep.clone().into()),
    )));
    insta::assert_snapshot!("sweep_80", screen(&app, SMALL));
    insta::assert_snapshot!("sweep_160", screen(&app, LARGE));
    keys(&mut app, "jjjj");
    key(&mut app, KeyCode::Enter);
    let run = points[4].run.clone().unwrap();
    let commands = app.take_commands();
    assert!(commands.contains(&Command::Watch(run)), "{commands:?}");
    let ends = Command::FollowSweep(None);
    assert!(!commands.contains(&ends), "it is live");
    key(&mut app, KeyCode::Esc);
    assert!(app.take_commands().contains(&follow), "back to its points");
    keys(&mut app, "jj");
    key(&mut app, KeyCode::Enter);
    let shown = screen(&app, SMALL);
    assert!(shown.contains("choose a smaller batch_size"), "{shown}");
    key(&mut app, KeyCode::Enter);
    keys(&mut app, "j");
    key(&mut app, KeyCode::Enter);
    assert!(screen(&app, SMALL).contains("nobody has begun with this point"));
    key(&mut app, KeyCode::Esc);
    assert!(app.take_commands().contains(&Command::FollowRuns(true)));
}

/// Else a sweep that was started here could not be ended here, or would end with the lab.
#[test]
fn a_sweep_is_stopped_resumed_and_left_as_a_whole() {
    let mut app = with_sweep(UNICODE, SMALL);
    let mut sweep = fake::sweep(SWEEP);
    let started = Started::Sweep(SWEEP.into());
    app.update(Event::Reply(Reply::Started(Ok(started))));
    app.update(Event::Reply(Reply::Sweep(
        SWEEP.into(),
        Ok(sweep.clone().into()),
    )));
    app.take_commands();
    keys(&mut app, "xn");
    assert_eq!(app.take_commands(), []);
    keys(&mut app, "x");
    assert!(screen(&app, SMALL).contains("Stop the sweep?"));
    keys(&mut app, "y");
    assert_eq!(app.take_commands(), [Command::Stop(SWEEP.into())]);
    app.update(Event::Reply(Reply::Stopping(SWEEP.into(), Ok(()))));
    keys(&mut app, "q");
    assert_eq!(app.exit(), None, "it is still live");
    assert!(screen(&app, SMALL).contains(SWEEP));
    key(&mut app, KeyCode::Esc);
    keys(&mut app, "r");
    assert!(screen(&app, SMALL).contains("live already"));
    // Its end is seen while one of its points is looked at.
    key(&mut app, KeyCode::Enter);
    assert!(!app.take_commands().contains(&Command::FollowSweep(None)));
    sweep.summary.status = RunStatus::Interrupted;
    app.update(Event::Reply(Reply::Sweep(SWEEP.into(), Ok(sweep.into()))));
    assert!(app.runs_left_going().is_empty());
    key(&mut app, KeyCode::Esc);
    app.take_commands();
    keys(&mut app, "r");
    assert_eq!(app.take_commands(), [Command::Resume(SWEEP.into())]);
    app.update(Event::Reply(Reply::Resumed(SWEEP.into(), Err("no".into()))));
    key(&mut app, KeyCode::Enter);
    keys(&mut app, "q");
    assert_eq!(app.exit(), Some(Exit::Quit));
}

/// Else a study of many runs would start as the one that they have in common.
#[test]
fn the_form_says_of_how_many_points_a_sweep_is() {
    let mut app = app(UNICODE, SMALL);
    key(&mut app, KeyCode::Right);
    insta::assert_snapshot!("new_run_sweep_80", screen(&app, SMALL));
    app.take_commands();
    keys(&mut app, "s");
    let commands = app.take_commands();
    let [Command::Start(request)] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!(request.experiment, "size-length-grid");
}

/// Else the points could not be read where there is neither colour nor Unicode.
#[test]
fn a_sweep_can_be_read_in_ascii_without_colour() {
    let ascii = Theme {
        colours: Colours::None,
        ascii: true,
    };
    let mut app = with_sweep(ascii, SMALL);
    keys(&mut app, "3j");
    assert!(screen(&app, SMALL).is_ascii());
    key(&mut app, KeyCode::Enter);
    let sweep = fake::sweep(SWEEP);
    app.update(Event::Reply(Reply::Sweep(SWEEP.into(), Ok(sweep.into()))));
    let shown = screen(&app, SMALL);
    assert!(shown.is_ascii(), "{shown}");
    for word in [
        "finished",
        "failed",
        "live",
        "unfinished",
        "refused",
        "waiting",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let cells = terminal(&app, SMALL).backend().buffer().content.clone();
    assert!(
        cells
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
}

/// Seeds that were run apart would stand as arms of their own, and no interval would be over them.
#[test]
fn seeds_of_several_runs_are_compared_as_one_arm() {
    let mut app = app(UNICODE, SMALL);
    let run = |seed: u64| {
        let arms = ["none", "true-data:kl:10"].map(|name| fake::arm_info(name, seed));
        let state = fake::state(&fake::records(&arms, 600));
        (
            format!("2026112{seed}T120600Z-toy-continual-ab1{seed}"),
            Ok(state),
        )
    };
    app.update(Event::Reply(Reply::Compared(vec![run(0), run(1)])));
    assert_eq!(judge(&mut app), 2);
    let shown = screen(&app, SMALL);
    for text in ["2 runs, 2 arms", "2 runs none ×2", "2 seeds"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    keys(&mut app, "o");
    assert_eq!(judge(&mut app), 4);
    let shown = screen(&app, SMALL);
    assert!(
        shown.contains("2 runs, 4 single seeds") && shown.contains("1 seed"),
        "{shown}"
    );
    key(&mut app, KeyCode::Enter);
    let opened = app.take_commands();
    assert!(
        opened
            .iter()
            .any(|command| matches!(command, Command::Watch(_))),
        "{opened:?}"
    );
}

#[test]
fn plugins_help_and_log_are_readable() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "4jj");
    insta::assert_snapshot!("plugins_80", screen(&app, SMALL));
    keys(&mut app, "jj");
    assert!(screen(&app, SMALL).contains("was built for ABI 2.0"));
    keys(&mut app, "1?");
    insta::assert_snapshot!("help_80", screen(&app, SMALL));
    let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 450);
    keys(&mut app, "l");
    assert!(screen(&app, SMALL).contains("bos-prompted:kl:10: phase 4 of 4: complement"));
}

#[test]
fn only_ascii_reaches_an_ascii_terminal() {
    let ascii = Theme {
        colours: Colours::Sixteen,
        ascii: true,
    };
    let mut app = watching(ascii, SMALL, &fake::four_arms(), 450);
    let live = screen(&app, SMALL);
    insta::assert_snapshot!("live_ascii_80", live);
    let screens_and_help = "1234?".chars().map(KeyCode::Char);
    for code in [KeyCode::Enter].into_iter().chain(screens_and_help) {
        key(&mut app, code);
        let shown = screen(&app, SMALL);
        assert!(shown.is_ascii(), "{shown}");
    }
}

#[test]
fn no_color_means_no_colour_and_loses_nothing() {
    let plain = Theme {
        colours: Colours::None,
        ascii: false,
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

#[test]
fn leaving_asks_what_becomes_of_a_live_run() {
    let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 450);
    app.take_commands();
    keys(&mut app, "q");
    assert_eq!(app.exit(), None);
    insta::assert_snapshot!("quit_80", screen(&app, SMALL));
    keys(&mut app, "s");
    assert_eq!(app.take_commands(), [Command::Stop(RUN.into())]);
    assert_eq!(app.exit(), None, "not before the request is made");
    app.update(Event::Reply(Reply::Stopping(RUN.into(), Ok(()))));
    assert_eq!(app.exit(), Some(Exit::Quit));
    assert!(app.runs_left_going().is_empty());

    let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 450);
    app.take_commands();
    keys(&mut app, "ql");
    assert_eq!(app.exit(), Some(Exit::Quit));
    assert_eq!(app.take_commands(), [], "the run was not touched");
    assert_eq!(app.runs_left_going(), [RUN]);
}

#[test]
fn a_finished_run_is_left_without_a_question() {
    let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 600);
    keys(&mut app, "q");
    assert_eq!(app.exit(), Some(Exit::Quit));
}

#[test]
fn a_signal_or_a_lost_terminal_leaves_without_stopping_anything() {
    for (event, exit) in [
        (Event::Signal, Exit::Quit),
        (Event::TerminalGone, Exit::TerminalGone),
    ] {
        let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 450);
        app.take_commands();
        app.update(event);
        assert_eq!(app.exit(), Some(exit));
        assert_eq!(app.take_commands(), []);
    }
}

#[test]
fn nothing_is_redrawn_while_nothing_changes() {
    let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 450);
    assert!(app.take_dirty());
    assert!(!app.take_dirty());
    assert!(app.wants_clock(), "the elapsed time of a live run moves");
    let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 600);
    app.take_dirty();
    assert!(!app.wants_clock());
    app.update(Event::Clock(NOW + 1.0));
    assert!(!app.take_dirty());
    // The list of runs comes in while another screen is shown.
    app.update(Event::Reply(Reply::Runs(Ok(Vec::new()))));
    assert!(!app.take_dirty());
}

#[test]
fn errors_are_shown_whole_and_the_lab_goes_on() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "s");
    let error = "cannot create results/runs: No space left on device (os error 28); free some \
                 space or set FORGETLAB_RESULTS to another folder";
    app.update(Event::Reply(Reply::Started(Err(error.into()))));
    insta::assert_snapshot!("error_80", screen(&app, SMALL));
    key(&mut app, KeyCode::Esc);
    assert!(!screen(&app, SMALL).contains("No space left"));
    app.take_commands();
    keys(&mut app, "s");
    assert!(
        matches!(app.take_commands()[..], [Command::Start(_)]),
        "it can be tried again"
    );
}

#[test]
fn a_crashed_run_can_be_resumed_from_the_list() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "3jj");
    app.take_commands();
    keys(&mut app, "r");
    let run = "20261122T120600Z-toy-continual-ef56".to_string();
    assert_eq!(app.take_commands(), [Command::Resume(run.clone())]);
    app.update(Event::Reply(Reply::Resumed(run.clone(), Ok(()))));
    assert!(app.take_commands().contains(&Command::Watch(run)));
}

#[test]
fn a_small_terminal_is_told_so_kindly() {
    let tiny = Size::new(40, 10);
    let app = watching(UNICODE, tiny, &fake::four_arms(), 450);
    let shown = screen(&app, tiny);
    assert!(shown.contains("needs 80×24"), "{shown}");
    for (width, height) in [(1, 1), (3, 2), (200, 3), (500, 200)] {
        screen(&app, Size::new(width, height));
    }
}

/// Records with values that are missing, not finite or absurd, and names that are too long.
fn strange_records() -> Vec<Record> {
    let long = "strategy-with-a-name-that-fits-nowhere-".repeat(4);
    let mut arms = vec![
        fake::arm_info("none", 0),
        fake::arm_info("日本語:kl:1", u64::MAX),
    ];
    arms.push(fake::arm_info(&long, 7));
    let mut records = fake::records(&arms, 170);
    for (index, record) in records.iter_mut().enumerate() {
        if let RunEvent::Evaluated { scores, phase, .. } = &mut record.event {
            let odd = [
                None,
                Some(f64::NAN),
                Some(f64::INFINITY),
                Some(-1e300),
                Some(0.5),
            ];
            for (task, score) in scores.iter_mut().enumerate() {
                score.accuracy = odd[(index + task) % odd.len()];
                score.ntp = odd[(index + 2 * task) % odd.len()];
                score.kl = odd[(index / 2) % odd.len()];
            }
            let unknown = Score {
                dataset: long.clone(),
                ..scores[0].clone()
            };
            scores.push(unknown);
            *phase += index % 3 * 5;
        }
    }
    let odd = [
        RunEvent::PluginMetric {
            arm: 1,
            step: 1,
            name: "\u{1b}[31mred\n".into(),
            value: f64::NAN,
        },
        RunEvent::Log {
            level: Level::Warn,
            arm: Some(99),
            message: "\u{1b}[2J an arm that is not there\t".into(),
        },
        RunEvent::ArmFailed {
            arm: 0,
            step: 3,
            reason: String::new(),
        },
    ];
    records.extend(fake::stamp(odd.into()));
    records
}

/// A reproducible random generator (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// Records that random feeds are made of.
struct Feeds {
    usual: Vec<Record>,
    strange: Vec<Record>,
}

fn random_event(dice: &mut Dice, feeds: &Feeds) -> Event {
    match dice.roll(12) {
        0 => Event::Reply(random_reply(dice, feeds)),
        1 => Event::Reply(random_feed(dice, feeds)),
        2 => Event::Clock(NOW + f64::from(dice.roll(9) as u32)),
        3..6 => random_key(dice),
        _ => bound_key(dice),
    }
}

fn random_reply(dice: &mut Dice, feeds: &Feeds) -> Reply {
    match dice.roll(12) {
        9 => Reply::Started(Ok(Started::Sweep(SWEEP.into()))),
        10 => Reply::Sweep(SWEEP.into(), Ok(fake::sweep(SWEEP).into())),
        11 => Reply::Sweep(SWEEP.into(), Err("gone".into())),
        0 => Reply::Started(Ok(Started::Run(RUN.into()))),
        1 => Reply::Stopping(RUN.into(), Err("no".into())),
        2 => Reply::Runs(Ok(Vec::new())),
        3 => Reply::Runs(Err("unreadable".into())),
        4 => Reply::Plugins(Ok(Vec::new())),
        5 => Reply::Devices(Ok(Vec::new())),
        6 => Reply::Compared(vec![(RUN.into(), Ok(fake::state(&feeds.strange)))]),
        7 => Reply::Exported(Err(String::new())),
        _ => Reply::Experiments(Ok(Vec::new())),
    }
}

fn random_feed(dice: &mut Dice, feeds: &Feeds) -> Reply {
    let Feeds { usual, strange } = feeds;
    let first = dice.roll(2) == 0;
    let records = match dice.roll(4) {
        0 => Err("gone".to_owned()),
        1 => Ok(strange.clone()),
        2 => Ok(usual[..dice.roll(usual.len())].to_vec()),
        _ => Ok(Vec::new()),
    };
    Reply::Feed {
        run: RUN.into(),
        first,
        update: records.map(|records| FeedUpdate {
            records,
            status: RunStatus::Live,
            before: None,
            why: None,
        }),
    }
}

/// A key that need not be bound.
fn random_key(dice: &mut Dice) -> Event {
    const CODES: [KeyCode; 20] = [
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::Enter,
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::Backspace,
        KeyCode::Delete,
        KeyCode::F(1),
        KeyCode::Char('2'),
        KeyCode::Char('é'),
        KeyCode::Char('7'),
        KeyCode::Char(','),
    ];
    let code = CODES[dice.roll(CODES.len())];
    Event::Key(KeyEvent::new(code, KeyModifiers::NONE))
}

/// A key of the keymap, without its modifier.
fn bound_key(dice: &mut Dice) -> Event {
    let binding = &KEYMAP[dice.roll(KEYMAP.len())];
    let code = match binding.keys[dice.roll(binding.keys.len())] {
        Key::Char(c) | Key::Ctrl(c) => KeyCode::Char(c),
        Key::Named(code, _) => code,
    };
    Event::Key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn no_sequence_of_keys_and_news_panics() {
    const SIZES: [Size; 5] = [
        SMALL,
        LARGE,
        Size::new(80, 100),
        Size::new(300, 24),
        Size::new(20, 5),
    ];
    let feeds = Feeds {
        usual: fake::records(&fake::four_arms(), 600),
        strange: strange_records(),
    };
    for seed in 1..=60_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut app = match seed % 3 {
            // Only what the user does: no reply has come.
            0 => App::new(UNICODE, SMALL, NOW, Some(RUN.into())),
            _ => app(UNICODE, SMALL),
        };
        for _ in 0..150 {
            app.update(random_event(&mut dice, &feeds));
            app.take_commands();
            let size = SIZES[dice.roll(SIZES.len())];
            if dice.roll(3) == 0 {
                app.update(Event::Resize(size));
                screen(&app, size);
            }
        }
        screen(&app, SMALL);
    }
}

#[test]
fn strange_figures_and_names_can_be_looked_at() {
    let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 10);
    feed(&mut app, strange_records(), RunStatus::Live);
    for size in [SMALL, LARGE] {
        for metric in 0..3 {
            let shown = screen(&app, size);
            assert!(
                !shown.contains("NaN") && !shown.contains('\u{1b}'),
                "metric {metric}: {shown}"
            );
            key(&mut app, KeyCode::Enter);
            for _ in 0..3 {
                key(&mut app, KeyCode::Right);
                screen(&app, size);
            }
            key(&mut app, KeyCode::Esc);
            keys(&mut app, "m");
        }
    }
}

//! The list of runs, and the points of a sweep.

use ratatui::style::Color;

use super::super::app::Exit;
use super::super::lab::LabelChange;
use super::*;

pub const SWEEP: &str = "20261123T124600Z-size-length-grid-9f0e";

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
    keys(&mut app, "1");
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
    assert!(
        commands.contains(&Command::Watch(vec![run])),
        "{commands:?}"
    );
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
    keys(&mut app, "3");
    let started = Started::Sweep(SWEEP.into());
    app.update(Event::Reply(Reply::Started(Ok(started))));
    app.update(Event::Reply(Reply::Sweep(
        SWEEP.into(),
        Ok(sweep.clone().into()),
    )));
    app.take_commands();
    keys(&mut app, "Xn");
    assert_eq!(app.take_commands(), []);
    keys(&mut app, "X");
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

/// Else the points could not be read where there is neither colour nor Unicode.
#[test]
fn a_sweep_can_be_read_in_ascii_without_colour() {
    let ascii = Theme {
        colours: Colours::None,
        ascii: true,
        light: false,
    };
    let mut app = with_sweep(ascii, SMALL);
    keys(&mut app, "1");
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

#[test]
fn a_crashed_run_can_be_resumed_from_the_list() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "1jj");
    app.take_commands();
    keys(&mut app, "r");
    let run = "20261122T120600Z-toy-continual-ef56".to_string();
    assert_eq!(app.take_commands(), [Command::Resume(run.clone())]);
    app.update(Event::Reply(Reply::Resumed(run.clone(), Ok(()))));
    assert!(app.take_commands().contains(&Command::Watch(vec![run])));
}

#[test]
fn runs_are_listed_marked_and_opened_together() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "1 j ");
    insta::assert_snapshot!("runs_80", screen(&app, SMALL));
    app.take_commands();
    key(&mut app, KeyCode::Enter);
    let chosen = vec![
        RUN.to_string(),
        "20261122T120600Z-toy-continual-ef56".into(),
    ];
    assert!(
        app.take_commands()
            .contains(&Command::Watch(chosen.clone()))
    );
    feed_to(
        &mut app,
        RUN,
        true,
        fake::records(&fake::four_arms(), 600),
        RunStatus::Finished,
    );
    app.update(Event::Reply(Reply::Feed {
        run: chosen[1].clone(),
        first: true,
        update: Err("events.jsonl cannot be read".into()),
    }));
    judge(&mut app);
    let shown = screen(&app, SMALL);
    assert!(shown.contains("2 runs, 0 live"), "{shown}");
    assert!(
        shown.contains("cannot be read: events.jsonl cannot be r"),
        "{shown}"
    );
    keys(&mut app, "e");
    key(&mut app, KeyCode::Enter);
    assert_eq!(app.take_commands().last(), Some(&Command::Export(chosen)));
}

/// A list of hundreds of runs in which nothing is found.
#[test]
fn the_list_is_filtered_by_words_labels_and_figures() {
    let mut app = app(UNICODE, SMALL);
    let mut runs = vec![
        fake::summary(RUN, RunStatus::Finished, 1.0, 0.0),
        fake::summary("20261123T120600Z-instruct-cd34", RunStatus::Live, 0.5, 60.0),
    ];
    runs[0].labels.tags.insert("paper".into());
    runs[0].labels.name = Some("the good one".into());
    app.update(Event::Reply(Reply::Runs(Ok(runs))));
    let filtered = |app: &mut App, text: &str| {
        keys(app, "/");
        app.update(Event::Key(KeyEvent::new(
            KeyCode::Char('u'),
            KeyModifiers::CONTROL,
        )));
        keys(app, text);
        key(app, KeyCode::Enter);
        screen(app, SMALL)
    };
    let shown = filtered(&mut app, "tag:paper");
    assert!(
        shown.contains("the good one #paper") && !shown.contains("cd34"),
        "{shown}"
    );
    let shown = filtered(&mut app, "done<0.9");
    assert!(
        !shown.contains("the good one") && shown.contains("cd34"),
        "{shown}"
    );
    let shown = filtered(&mut app, "tag:nothing");
    assert!(shown.contains("no run passes the filter"), "{shown}");
    key(&mut app, KeyCode::Esc);
    assert!(screen(&app, SMALL).contains("the good one"));
    let shown = filtered(&mut app, "forgto>0");
    assert!(
        shown.contains("forgot"),
        "what is wrong is told where it is typed: {shown}"
    );
}

/// Labels are how a researcher finds a run again.
#[test]
fn a_run_is_named_tagged_noted_and_deleted_after_a_question() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "1jRbaseline");
    app.take_commands();
    let run = "20261123T120600Z-toy-continual-cd34".to_owned();
    key(&mut app, KeyCode::Enter);
    let change = LabelChange::Name("baseline".into());
    assert_eq!(app.take_commands(), [Command::Label(run.clone(), change)]);
    keys(&mut app, ":tag paper -old");
    key(&mut app, KeyCode::Enter);
    let change = LabelChange::Tags(vec!["paper".into(), "-old".into()]);
    assert_eq!(app.take_commands(), [Command::Label(run.clone(), change)]);
    keys(&mut app, "D");
    assert_eq!(app.take_commands(), [Command::AskDelete(run.clone())]);
    app.update(Event::Reply(Reply::DiskUse(run.clone(), Ok(3 << 30))));
    let shown = screen(&app, SMALL);
    assert!(
        shown.contains("3.0 GiB") && shown.contains("cannot be brought back"),
        "{shown}"
    );
    keys(&mut app, "n");
    assert_eq!(app.take_commands(), []);
    app.update(Event::Reply(Reply::DiskUse(run.clone(), Ok(3 << 30))));
    keys(&mut app, "y");
    assert_eq!(app.take_commands(), [Command::Delete(run)]);
    // A live one is never deleted.
    keys(&mut app, "kD");
    assert!(
        !app.take_commands()
            .iter()
            .any(|c| matches!(c, Command::AskDelete(_)))
    );
}

/// Else every run would have to be opened to see which one it is.
#[test]
fn the_run_under_the_cursor_is_shown_beside_the_list() {
    let mut app = app(UNICODE, LARGE);
    app.take_commands();
    keys(&mut app, "j");
    let run = "20261123T120600Z-toy-continual-cd34";
    assert_eq!(app.take_commands(), [Command::Preview(run.into())]);
    app.update(Event::Key(KeyEvent::new(
        KeyCode::Char('j'),
        KeyModifiers::CONTROL,
    )));
    assert_eq!(app.take_commands(), [], "it is read once");
    let state = fake::state(&fake::records(&fake::four_arms(), 600));
    app.update(Event::Reply(Reply::Preview(
        run.into(),
        Ok(Box::new(fake::preview(state))),
    )));
    assert_eq!(judge(&mut app), 4);
    insta::assert_snapshot!("runs_beside_250", screen(&app, LARGE));
}

//! Leaving the lab, and what becomes of live runs; what is redrawn.

use super::super::app::Exit;
use super::*;

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

/// Else a lab that is opened while a run goes on shows a list instead of the run.
#[test]
fn the_lab_opens_on_what_is_live_else_on_the_list() {
    let mut app = App::new(UNICODE, SMALL, NOW, None);
    let runs = vec![
        fake::summary(
            "20261123T140600Z-toy-continual-aaaa",
            RunStatus::Finished,
            1.0,
            0.0,
        ),
        fake::summary(RUN, RunStatus::Live, 0.42, 60.0),
    ];
    app.update(Event::Reply(Reply::Runs(Ok(runs.clone()))));
    assert!(
        app.take_commands()
            .contains(&Command::Watch(vec![RUN.into()]))
    );
    let mut app = App::new(UNICODE, SMALL, NOW, None);
    app.update(Event::Reply(Reply::Runs(Ok(runs[..1].to_vec()))));
    assert!(screen(&app, SMALL).contains("1 run, 0 live"));
    // What the user chose stays.
    let mut app = App::new(UNICODE, SMALL, NOW, None);
    keys(&mut app, "4");
    app.update(Event::Reply(Reply::Runs(Ok(runs))));
    assert!(
        !app.take_commands()
            .contains(&Command::Watch(vec![RUN.into()]))
    );
}

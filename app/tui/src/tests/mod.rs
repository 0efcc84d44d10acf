//! Tests of the whole lab: snapshots of screens at fixed sizes, what keys do, and random keys in any state.

mod compose;
mod leaving;
mod others;
mod robust;
mod runs;
mod snapshots;
mod watch;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use forgetlab_study::experiment::ArmInfo;
use forgetlab_study::run::{Record, RunStatus};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::Size;

use super::app::App;
use super::event::{Command, Event, Reply};
use super::fake;
use super::lab::{FeedUpdate, Started};
use super::theme::{Colours, Theme};

const UNICODE: Theme = Theme {
    colours: Colours::Many,
    ascii: false,
    light: false,
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
    keys(&mut app, "1");
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
    feed_to(app, RUN, true, records, status);
    judge(app);
}

/// Gives records of a run.
fn feed_to(app: &mut App, run: &str, first: bool, records: Vec<Record>, status: RunStatus) {
    let update = Ok(FeedUpdate {
        records,
        status,
        before: None,
        why: None,
    });
    app.update(Event::Reply(Reply::Feed {
        run: run.into(),
        first,
        update,
    }));
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

/// Opens runs as a command line does.
fn open(app: &mut App, runs: &[&str]) {
    keys(app, ":watch ");
    keys(app, &runs.join(" "));
    key(app, KeyCode::Enter);
}

/// Opens two runs side by side; returns their names.
fn open_two(app: &mut App) -> [&'static str; 2] {
    let runs = [
        "20261120T120600Z-toy-continual-ab10",
        "20261121T120600Z-toy-continual-ab11",
    ];
    open(app, &runs);
    runs
}

/// Gives all of a run with these arms, to its end.
fn finished(app: &mut App, run: &str, arms: &[ArmInfo]) {
    let records = fake::records(arms, 600);
    feed_to(app, run, true, records, RunStatus::Finished);
}

/// A lab that watches a test run.
fn watching(theme: Theme, size: Size, arms: &[ArmInfo], until: u64) -> App {
    let mut app = app(theme, size);
    open(&mut app, &[RUN]);
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
const MIDDLE: Size = Size::new(120, 36);
const LARGE: Size = Size::new(250, 60);

const ASCII: Theme = Theme {
    colours: Colours::None,
    ascii: true,
    light: false,
};

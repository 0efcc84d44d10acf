//! Odd figures, names and sizes, and random keys and news in any state.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use forgetlab_study::run::{Event as RunEvent, Level, Record, RunStatus, Score};
use ratatui::layout::{Position, Size};

use super::super::app::App;
use super::super::event::{Event, Reply};
use super::super::fake;
use super::super::keymap::{KEYMAP, Key};
use super::super::lab::{FeedUpdate, Started};
use super::runs::SWEEP;
use super::*;

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
    match dice.roll(14) {
        12 => Event::Click(Position::new(dice.roll(90) as u16, dice.roll(30) as u16)),
        13 => Event::Wheel(dice.roll(3) as isize - 1),
        0 => Event::Reply(random_reply(dice, feeds)),
        1 => Event::Reply(random_feed(dice, feeds)),
        2 => Event::Clock(NOW + f64::from(dice.roll(9) as u32)),
        3..6 => random_key(dice),
        _ => bound_key(dice),
    }
}

fn random_reply(dice: &mut Dice, feeds: &Feeds) -> Reply {
    match dice.roll(21) {
        19 => Reply::Samples(RUN.into(), 2, 160, Err("gone".into())),
        12 => Reply::Machine(Ok(Box::new(fake::machine()))),
        13 => Reply::Machine(Err("unreadable".into())),
        14 => Reply::DiskUse(RUN.into(), Ok(12_345)),
        15 => Reply::Told("Check", Ok("all is well\n".repeat(90))),
        16 => Reply::Done(Err("no".into())),
        17 => Reply::Exported(Err("no room".into())),
        18 => Reply::Looked(RUN.into(), 2, 160, Err("gone".into())),
        9 => Reply::Started(Ok(Started::Sweep(SWEEP.into()))),
        10 => Reply::Sweep(SWEEP.into(), Ok(fake::sweep(SWEEP).into())),
        11 => Reply::Sweep(SWEEP.into(), Err("gone".into())),
        0 => Reply::Started(Ok(Started::Run(RUN.into()))),
        1 => Reply::Stopping(RUN.into(), Err("no".into())),
        2 => Reply::Runs(Ok(Vec::new())),
        3 => Reply::Runs(Err("unreadable".into())),
        4 => Reply::Plugins(Ok(Vec::new())),
        5 => Reply::Devices(Ok(Vec::new())),
        6 => Reply::Preview(
            RUN.into(),
            Ok(Box::new(fake::preview(fake::state(&feeds.strange)))),
        ),
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
    const CODES: [KeyCode; 21] = [
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
        KeyCode::Char(':'),
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
        Key::Named(code) => code,
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

/// A hostile name or figure must be shown, never obeyed.
#[test]
fn strange_figures_and_names_can_be_looked_at() {
    let mut app = watching(UNICODE, SMALL, &fake::four_arms(), 10);
    feed(&mut app, strange_records(), RunStatus::Live);
    for size in [SMALL, MIDDLE, LARGE] {
        app.update(Event::Resize(size));
        for _ in 0..9 {
            for c in "xym".chars() {
                keys(&mut app, &c.to_string());
                let shown = screen(&app, size);
                assert!(
                    !shown.contains("NaN") && !shown.contains('\u{1b}'),
                    "{shown}"
                );
            }
            key(&mut app, KeyCode::Down);
            key(&mut app, KeyCode::Enter);
            key(&mut app, KeyCode::Right);
            screen(&app, size);
            keys(&mut app, "cvj[");
        }
    }
}

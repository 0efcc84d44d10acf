//! What terminal labs before this one had to fix. Beside the tests here:
//!
//! - a panic on tiny terminals: `robust::a_small_terminal_is_told_so_kindly`, and `the_lab_survives_a_storm_of_resizes`
//!   end to end;
//! - a grid that overflows its pane: `widgets::grid`, and `screens::watch::layout` for the panes themselves;
//! - colours that collide: `theme::a_terminal_gets_only_what_it_can_show` for 64 curves, here for those of several runs;
//! - group means that change when others are hidden: `watch::hiding_filtering_and_sorting_change_no_figure`;
//! - a live run that has written nothing yet: `watch::a_run_without_anything_says_what_it_waits_for`.

use std::collections::BTreeSet;

use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::*;

/// Cells of the plots that are drawn on: Braille.
fn drawn(shown: &str) -> usize {
    let braille = |c: &char| ('\u{2801}'..='\u{28ff}').contains(c);
    shown.chars().filter(braille).count()
}

/// A plot without its curve, and without a word, is taken for a run without figures.
#[test]
fn a_plot_is_never_empty_without_a_note() {
    const NOTES: [&str; 5] = [
        "nothing was measured",
        "nothing is recorded",
        "no old data yet",
        "not evaluated",
        "no arm passes the filter",
    ];
    let arms = fake::four_arms();
    for size in [SMALL, MIDDLE, LARGE] {
        for until in [10, 210, 600] {
            let mut app = watching(UNICODE, size, &arms, until);
            app.update(Event::Resize(size));
            let has_curve = |app: &App, what: &str| {
                let shown = screen(app, size);
                let told = NOTES.iter().any(|note| shown.contains(note));
                // Ways that have not left their start are markers alone.
                let stays = what.starts_with("kept") && shown.contains(['●', '◎']);
                assert!(drawn(&shown) > 0 || told || stays, "{what}:\n{shown}");
            };
            for pane in ["kept", "curves", "losses", "panels"] {
                keys(&mut app, &format!(":arrange {pane}"));
                key(&mut app, KeyCode::Enter);
                keys(&mut app, "z");
                for metric in [
                    "accuracy of old data",
                    "ntp of new data",
                    "kl of old data",
                    "learning rate",
                ] {
                    keys(&mut app, &format!(":metric {metric}"));
                    key(&mut app, KeyCode::Enter);
                    // Every axis, on both scales, smoothed and zoomed in as far as it goes.
                    for press in [
                        "",
                        "y",
                        "+++",
                        "x",
                        "x",
                        "x",
                        "x",
                        "y",
                        "[[[[",
                        "[[[[[[[[[[[[",
                        "yx",
                        "c",
                        "]]]]",
                        "[[[[",
                    ] {
                        keys(&mut app, press);
                        has_curve(&app, &format!("{pane}, {metric}, {press}, until {until}"));
                    }
                    keys(&mut app, "Ac---");
                }
                keys(&mut app, "/nothing-is-called-this");
                key(&mut app, KeyCode::Enter);
                has_curve(&app, &format!("{pane}, everything filtered out"));
                keys(&mut app, "/");
                app.update(Event::Key(KeyEvent::new(
                    KeyCode::Char('u'),
                    KeyModifiers::CONTROL,
                )));
                key(&mut app, KeyCode::Enter);
                has_curve(&app, &format!("{pane}, the filter gone"));
                keys(&mut app, "z");
            }
        }
    }
}

/// Two runs side by side are told apart by colour and marker, and keep theirs when others are hidden.
#[test]
fn arms_of_several_runs_have_looks_of_their_own_and_keep_them() {
    let mut app = app(UNICODE, LARGE);
    let runs = open_two(&mut app);
    let names = [
        ["none", "true-data:kl:10"],
        ["none+lr=1e-4", "true-data:kl:10+lr=1e-4"],
    ];
    for (run, names) in runs.iter().zip(names) {
        let arms = names.map(|name| fake::arm_info(name, 0));
        finished(&mut app, run, &arms);
    }
    judge(&mut app);
    let looks = |app: &App| -> BTreeSet<(String, String)> {
        let terminal: Terminal<TestBackend> = terminal(app, LARGE);
        let buffer = terminal.backend().buffer();
        let rows = buffer.content.chunks(LARGE.width.into());
        let rows = rows.filter(|row| {
            let text: String = row.iter().map(|cell| cell.symbol()).collect();
            text.contains("finished") && (text.contains("none") || text.contains("true-data"))
        });
        rows.map(|row| {
            let colour: Color = row[0].fg;
            (row[0].symbol().to_owned(), format!("{colour:?}"))
        })
        .collect()
    };
    let all = looks(&app);
    assert_eq!(all.len(), 4, "{all:?}");
    let markers: BTreeSet<&String> = all.iter().map(|(marker, _)| marker).collect();
    assert_eq!(markers.len(), 4, "also without colour: {all:?}");
    keys(&mut app, "H");
    let others = looks(&app);
    assert!(
        others.len() == 3 && others.is_subset(&all),
        "{others:?} of {all:?}"
    );
}

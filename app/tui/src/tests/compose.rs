//! The form of a new run.

use super::super::lab::Prediction;
use super::*;

/// Whether a run was started since the last call.
fn starts(app: &mut App) -> bool {
    let commands = app.take_commands();
    commands
        .iter()
        .any(|command| matches!(command, Command::Start(_)))
}

#[test]
fn a_new_run_can_be_read_and_started() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "3");
    insta::assert_snapshot!("compose_80", screen(&app, SMALL));
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
    assert!(
        app.take_commands()
            .contains(&Command::Watch(vec![RUN.into()]))
    );
}

#[test]
fn an_arm_is_edited_with_the_fields_of_its_schema() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "3");
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
    keys(&mut app, "3");
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
    insta::assert_snapshot!("compose_settings_80", screen(&app, SMALL));
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

#[test]
fn a_form_that_cannot_be_run_says_why_and_where() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "3jjj");
    key(&mut app, KeyCode::Enter);
    key(&mut app, KeyCode::Backspace);
    app.take_commands();
    key(&mut app, KeyCode::Enter);
    assert!(screen(&app, SMALL).contains("give at least one seed"));
    keys(&mut app, "0,1");
    key(&mut app, KeyCode::Enter);
    // Digits change the screen again, and not the seeds.
    keys(&mut app, "13");
    assert!(screen(&app, SMALL).contains("0,1"));
    key(&mut app, KeyCode::Up);
    key(&mut app, KeyCode::Right);
    keys(&mut app, "s");
    assert!(!starts(&mut app));
    assert!(screen(&app, SMALL).contains("built without CUDA"));
}

/// Else a study of many runs would start as the one that they have in common.
#[test]
fn the_form_says_of_how_many_points_a_sweep_is() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "3");
    key(&mut app, KeyCode::Right);
    insta::assert_snapshot!("compose_sweep_80", screen(&app, SMALL));
    app.take_commands();
    keys(&mut app, "s");
    let commands = app.take_commands();
    let [Command::Start(request)] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!(request.experiment, "size-length-grid");
}

#[test]
fn errors_are_shown_whole_and_the_lab_goes_on() {
    let mut app = app(UNICODE, SMALL);
    keys(&mut app, "3");
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

/// Else what is not in a strategy's form could be changed only by leaving the lab.
#[test]
fn any_setting_is_found_by_words_changed_and_taken_back() {
    let mut app = app(UNICODE, MIDDLE);
    keys(&mut app, "3/optimizer lr");
    key(&mut app, KeyCode::Enter);
    key(&mut app, KeyCode::Enter);
    assert!(
        screen(&app, MIDDLE).contains("value: 0.003"),
        "{}",
        screen(&app, MIDDLE)
    );
    app.update(Event::Key(KeyEvent::new(
        KeyCode::Char('u'),
        KeyModifiers::CONTROL,
    )));
    keys(&mut app, "fast");
    key(&mut app, KeyCode::Enter);
    let shown = screen(&app, MIDDLE);
    assert!(
        shown.contains("optimizer.lr"),
        "it is refused where it is typed: {shown}"
    );
    app.update(Event::Key(KeyEvent::new(
        KeyCode::Char('u'),
        KeyModifiers::CONTROL,
    )));
    keys(&mut app, "1e-4");
    key(&mut app, KeyCode::Enter);
    insta::assert_snapshot!("compose_searched_120", screen(&app, MIDDLE));
    keys(&mut app, "Y");
    let copied = app.take_clipboard().unwrap();
    assert!(
        copied.starts_with("forgetlab run toy-continual --preset cpu"),
        "{copied}"
    );
    assert!(
        copied.contains("--set 'optimizer.lr=1e-4' --seed 0"),
        "{copied}"
    );
    app.take_commands();
    keys(&mut app, "s");
    let commands = app.take_commands();
    let [Command::Start(request)] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!(
        request.set,
        [("optimizer.lr".to_owned(), "1e-4".to_owned())]
    );
    app.update(Event::Reply(Reply::Started(Err("no".into()))));
    key(&mut app, KeyCode::Esc);
    keys(&mut app, "dY");
    assert!(!app.take_clipboard().unwrap().contains("--set"));
}

/// Half the learning rate, all else as it was: the most common next run.
#[test]
fn a_run_is_composed_again_with_changes() {
    let mut app = app(UNICODE, MIDDLE);
    keys(&mut app, "1g");
    assert!(app.take_commands().contains(&Command::Again(RUN.into())));
    let mut config = fake::experiments()[0].presets[0].config.clone();
    config.seeds = vec![3, 4];
    config.optimizer.lr = 1.5e-3;
    config.arms.truncate(2);
    app.update(Event::Reply(Reply::Config(Ok(Box::new(config)))));
    let shown = screen(&app, MIDDLE);
    assert!(
        shown.contains("3,4") && shown.contains("Arms (2)"),
        "{shown}"
    );
    app.take_commands();
    keys(&mut app, "s");
    let commands = app.take_commands();
    let [Command::Start(request)] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert!(
        request
            .set
            .contains(&("optimizer.lr".into(), "0.0015".into())),
        "{:?}",
        request.set
    );
    assert_eq!((request.seeds.clone(), request.arms.len()), (vec![3, 4], 2));
}

/// A newcomer would stare at an empty list.
#[test]
fn a_newcomer_lands_where_a_run_is_started_and_is_shown_round() {
    let mut app = App::new(UNICODE, SMALL, NOW, None);
    app.update(Event::Reply(Reply::Runs(Ok(Vec::new()))));
    app.update(Event::Reply(Reply::Experiments(Ok(fake::experiments()))));
    app.update(Event::Reply(Reply::Devices(Ok(fake::devices()))));
    let shown = screen(&app, MIDDLE);
    assert!(
        shown.contains("The lab in six lines") && shown.contains("toy-continual"),
        "{shown}"
    );
}

/// A run of days that was thought to take an hour is noticed the next morning.
#[test]
fn the_form_says_what_the_run_will_take_before_it_starts() {
    let mut app = app(UNICODE, MIDDLE);
    app.take_commands();
    keys(&mut app, "3");
    let [Command::FollowRuns(false), Command::Predict(request)] = &app.take_commands()[..] else {
        panic!();
    };
    assert!(screen(&app, MIDDLE).contains("being worked out"));
    keys(&mut app, "j");
    assert_eq!(app.take_commands(), [], "it is asked once");
    let prediction = Prediction {
        tokens: 4_800_000,
        generated: 1_200_000,
        flops: 3.1e13,
        memory: Some(310 << 20),
        seconds: Some(203.0),
        seconds_from: "from 2 past runs".into(),
        notes: vec!["another run is live on cpu".into()],
        ..Prediction::default()
    };
    app.update(Event::Reply(Reply::Predicted(
        Box::new(request.clone()),
        Ok(prediction),
    )));
    insta::assert_snapshot!("compose_predicted_120", screen(&app, MIDDLE));
    keys(&mut app, "T");
    assert!(
        screen(&app, MIDDLE).contains("experiment = \"toy-continual\""),
        "{}",
        screen(&app, MIDDLE)
    );
}

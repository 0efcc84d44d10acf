//! Strategy libraries that do harm by being there, or that change what others compute: each is named, and costs
//! nobody else anything.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use std::process::Command;

use forgetlab_tests::{
    Done, Lab, SMOKE, Table, altered_template, binary, events_say, library, when_loaded,
};

/// Else figures of `none` in a paper could be those of whatever lies in a folder under its name.
#[test]
fn a_library_that_takes_the_name_of_a_built_in_strategy_is_told_where_an_arm_uses_it() {
    let lab = Lab::new();
    altered_template(&lab.path("taken"), &[("my-strategy", "true-data")], "");
    let run = |arms: &str, out: &str| {
        let more = ["--plugin-dir", "taken", "--arms", arms, "--out", out];
        lab.smoke(&more).exits(0);
        events_say(
            &lab.path(out),
            "taken/libaltered.so is not used: `true-data` comes with this program",
        )
    };
    assert!(run("true-data:kl", "used"));
    assert!(!run("none", "unused"));
    lab.smoke(&["--arms", "true-data:kl", "--out", "plain"])
        .exits(0);
    let metrics = |run: &str| Table::read(&lab.path(run).join("metrics.csv")).timeless();
    assert_eq!(metrics("used"), metrics("plain"));
    // Of two strangers the first in the search path is used, and the other one named.
    let other = [("every few steps\"", "every so many steps\"")];
    for (folder, changes) in [("first", &[][..]), ("second", &other)] {
        altered_template(&lab.path(folder), changes, "");
    }
    let dirs = ["--plugin-dir", "first", "--plugin-dir", "second"];
    lab.smoke(&[&dirs[..], &["--arms", "my-strategy:kl", "--out", "two"]].concat())
        .exits(0);
    assert!(events_say(
        &lab.path("two"),
        "first/libaltered.so, which also provides `my-strategy`"
    ));
}

/// Else a stale build that no arm uses would take every run, resume and check of the machine down, unnamed.
#[test]
fn a_library_that_ends_who_loads_it_is_a_warning_where_no_arm_uses_it() {
    let lab = Lab::new();
    let (crash, exit) = ("*(volatile int *)8 = 1;", "exit(0);");
    altered_template(&lab.path("crashes"), &[], &when_loaded(crash));
    altered_template(&lab.path("exits"), &[], &when_loaded(exit));
    let dirs = ["--plugin-dir", "crashes", "--plugin-dir", "exits"];
    let named = [
        "crashes/libaltered.so ends the process",
        "exits/libaltered.so ends the process",
    ];
    lab.smoke(&[&dirs[..], &["--arms", "none", "--out", "run"]].concat())
        .exits(0);
    for name in named {
        assert!(events_say(&lab.path("run"), name), "{name}");
    }
    lab.forgetlab(&[&["resume", "run"], &dirs[..]].concat())
        .exits(0);
    for command in [&["plugins", "list"][..], &["doctor"]] {
        let done = lab.forgetlab(&[command, &dirs].concat());
        done.exits(0).says(&named).says(&["true-data"]);
    }
    // Where an arm would use it, it is an error that names it, and nothing begins.
    let asked = [
        SMOKE,
        &dirs,
        &["--arms", "none,altered:kl", "--out", "none"],
    ]
    .concat();
    lab.forgetlab(&asked).exits(2).says(&named[..1]);
    assert!(!lab.path("none").exists());
}

/// Else nobody would know what a command waits for.
#[test]
fn a_library_that_is_slow_to_load_is_named_while_it_loads() {
    let lab = Lab::new();
    let slow = when_loaded("for (clock_t end = clock() + 2 * CLOCKS_PER_SEC; clock() < end;) {}");
    let changes = [(
        "#include <stdlib.h>",
        "#include <stdlib.h>\n#include <time.h>",
    )];
    altered_template(&lab.path("slow"), &changes, &slow);
    let done = lab.forgetlab(&["plugins", "list", "--plugin-dir", "slow"]);
    done.exits(0).says(&[
        "slow/libaltered.so is slow to load; waiting for it, 10 s at most",
        "my-strategy",
    ]);
}

/// Else one library would change the numbers of all other arms, in their last bits and without a word.
#[test]
fn a_strategy_that_rounds_otherwise_leaves_the_numbers_of_others_alone() {
    let lab = Lab::new();
    let round_up = "fesetround(FE_UPWARD);";
    let (draws, observes) = ("int32_t status = host->draw_old(", "    (void)seen;\n");
    let changes = [
        (
            "#include <stdlib.h>",
            "#include <fenv.h>\n#include <stdlib.h>".to_owned(),
        ),
        // Before a service, which is to work as ever.
        (draws, format!("{round_up}\n    {draws}")),
        (observes, format!("{observes}    {round_up}\n")),
    ];
    let changes: Vec<(&str, &str)> = changes.iter().map(|(a, b)| (*a, b.as_str())).collect();
    altered_template(&lab.path("rounds"), &changes, &when_loaded(round_up));
    altered_template(&lab.path("plain"), &[], "");
    for folder in ["rounds", "plain"] {
        let arms = "none,my-strategy:kl,true-data:kl,self-generated:kl";
        lab.smoke(&[
            "--plugin-dir",
            folder,
            "--arms",
            arms,
            "--out",
            &format!("run-{folder}"),
        ])
        .exits(0);
    }
    for file in ["metrics.csv", "summary.csv"] {
        let of = |run: &str| Table::read(&lab.path(run).join(file)).timeless();
        // Its own rows, too: all it does is draw, and the lab trains.
        assert_eq!(of("run-rounds"), of("run-plain"), "{file}");
    }
}

/// Else a script would take a library for good that ends whatever loads it.
#[test]
fn a_check_is_passed_only_by_its_last_word() {
    let lab = Lab::new();
    let (batch, end) = ("self->drawn++;", "free(instance);");
    for (what, from, call) in [
        ("next_batch", batch, "next_batch"),
        ("destroy", end, "destroy"),
    ] {
        let to = format!("{from} exit(0);");
        let file = altered_template(&lab.path(what), &[(from, &to)], "");
        let done = lab.forgetlab(&["plugins", "check", file.to_str().expect("UTF-8")]);
        let done = done
            .exits(1)
            .says(&["it ended the process", call, "exit status: 0"]);
        assert!(!done.out.contains("my-strategy works"), "{done}");
    }
    let at_exit = "__attribute__((destructor)) static void at_exit(void) { abort(); }\n";
    let file = altered_template(&lab.path("at-exit"), &[], at_exit);
    lab.forgetlab(&["plugins", "check", file.to_str().expect("UTF-8")])
        .exits(1)
        .says(&["during its exit", "SIGABRT"]);
    let file = altered_template(&lab.path("good"), &[], "");
    lab.forgetlab(&["plugins", "check", file.to_str().expect("UTF-8")])
        .exits(0)
        .says(&[
            "tried  saved after 0, 1, 2, 5, 9, 50 steps",
            "tried  the same three phases twice",
            "tried  a phase after another",
            "tried  another student, other losses",
            "tried  services: it asked for the true old data",
            "my-strategy works",
        ]);
}

/// Else anybody on the machine, or whoever made the current folder, could have their code run.
#[test]
fn code_from_where_others_write_runs_only_if_it_is_allowed() {
    let mut lab = Lab::new();
    let file = altered_template(&lab.path("shared"), &[], "");
    fs::set_permissions(&file, Permissions::from_mode(0o666)).expect("mode");
    let list = ["plugins", "list", "--plugin-dir", "shared"];
    let arms = ["--plugin-dir", "shared", "--arms", "none,my-strategy:kl"];
    let done = lab.forgetlab(&list).exits(0);
    assert!(!done.out.contains("my-strategy 0.1.0"), "{done}");
    let allow = "FORGETLAB_ALLOW_UNSAFE_PLUGINS";
    done.says(&["shared/libaltered.so", "every user of this machine", allow]);
    lab.forgetlab(&["plugins", "check", "shared/libaltered.so"])
        .exits(1)
        .says(&[allow]);
    lab.smoke(&arms).exits(2).says(&["`my-strategy`"]);
    lab.set(allow, "1");
    lab.forgetlab(&list).exits(0).says(&["my-strategy 0.1.0"]);
    lab.smoke(&arms).exits(0);

    let lab = Lab::new();
    let user = lab.path(".local/share/forgetlab/strategies");
    let built = altered_template(&lab.path("built"), &[], "");
    fs::create_dir_all(&user).expect("folder");
    fs::copy(&built, user.join(library("mine"))).expect("copy");
    for (home, found) in [
        ("", false),
        (".", false),
        (lab.path(".").to_str().expect("UTF-8"), true),
    ] {
        let mut list = lab.command(&["plugins", "list"]);
        let output = list.env("HOME", home).output().expect("starts");
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success());
        assert_eq!(
            out.contains("my-strategy 0.1.0"),
            found,
            "HOME={home:?}: {out}"
        );
    }
}

/// Else a shell with a low limit would have no strategies at all.
#[test]
fn strategies_are_found_where_there_are_few_descriptors() {
    let lab = Lab::new();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 16; exec \"$0\" plugins list"]);
    shell.arg(binary()).env("HOME", lab.path("."));
    let done: Done = shell.output().expect("starts").into();
    done.exits(0).says(&[
        "none 0.1.0",
        "true-data 0.1.0",
        "self-generated 0.1.0",
        "bos-prompted 0.1.0",
    ]);
}

//! Builds that cannot be done: the line is shown, the exit code told, and nothing stays.

use crate::inventory::Inventory;
use crate::support::{Daemon, text};

struct Room<'a> {
    daemon: &'a Daemon,
}

impl Room<'_> {
    fn write(&self, dockerfile: &str) -> String {
        let context = self.daemon.dir.path().join("context");
        std::fs::create_dir_all(&context).unwrap();
        std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        context.display().to_string()
    }
}

#[test]
fn mistakes_in_dockerfiles_show_the_line() {
    guard!();
    let daemon = Daemon::start();
    let room = Room { daemon: &daemon };
    room.write("");
    let before = Inventory::of(&daemon);
    let mut wrong = Vec::new();
    for (dockerfile, line, words) in [
        ("", "", "file with no instructions"),
        ("RUN true\n", "1 | RUN true", "no build stage in current context"),
        (
            "FROM box:1\nRNU true\n",
            "2 | RNU true",
            "unknown instruction: RNU",
        ),
        (
            "FROM box:1\n\nCOPY one\n",
            "3 | COPY one",
            "COPY requires at least two arguments",
        ),
        ("FROM box:1\nENV a\n", "2 | ENV a", "ENV"),
        ("FROM box:1\nEXPOSE what\n", "2 | EXPOSE what", "what"),
        ("FROM box:1\nCOPY --from=nosuch /a /b\n", "2 | COPY", "nosuch"),
        ("FROM box:1\nCOPY --what=1 a /b\n", "2 | COPY", "what"),
        ("FROM box:1\nCOPY nosuch /\n", "2 | COPY nosuch /", "nosuch"),
        (
            "FROM box:1\nCOPY ../outside /\n",
            "2 | COPY ../outside /",
            "outside",
        ),
        (
            "FROM box:1\nUSER\n",
            "2 | USER",
            "USER requires exactly one argument",
        ),
        ("FROM box:1\nRUN --mount=type=what true\n", "2 | RUN", "what"),
        ("FROM Upper\n", "1 | FROM Upper", "must be lowercase"),
        ("FROM 127.0.0.1:1/nosuch:1\n", "1 | FROM", "connection refused"),
        ("FROM box:1\nHEALTHCHECK CMD\n", "2 | HEALTHCHECK", ""),
        ("FROM box:1\nSHELL bash\n", "2 | SHELL", ""),
        ("FROM box:1\nSTOPSIGNAL NOSUCH\n", "2 | STOPSIGNAL", "NOSUCH"),
    ] {
        let context = room.write(dockerfile);
        // The line is shown where the build's output goes, once that has begun.
        let output = daemon.run(&["build", "-t", "bad:1", &context]);
        let code = output.status.code().unwrap_or(-1);
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        if code != 1 || !said.contains(line) || !said.contains(words) {
            wrong.push(format!(
                "{dockerfile:?}: {code}, instead of {line:?} and {words:?}:\n{said}"
            ));
        }
        before.assert_unchanged(&daemon, dockerfile);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let context = room.write("FROM box:1\n");
    for (args, words) in [
        (&["-t", "Upper"][..], "invalid reference format"),
        (&["--target", "nosuch"], "nosuch"),
        (&["-f", "nosuch"], "nosuch"),
        (&["--platform", "what/ever/is/this"], "what/ever/is/this"),
    ] {
        let line: Vec<&str> = ["build"]
            .iter()
            .chain(args)
            .copied()
            .chain([context.as_str()])
            .collect();
        let output = daemon.run(&line);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{args:?}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
}

#[test]
fn a_failing_command_ends_the_build_with_its_code() {
    guard!();
    let daemon = Daemon::start();
    let room = Room { daemon: &daemon };
    for (run, code, words) in [
        ("exit 7", 7, "returned a non-zero code: 7"),
        ("nosuch", 127, "returned a non-zero code: 127"),
        (
            "sh -c 'kill -9 $$'; exit $?",
            137,
            "returned a non-zero code: 137",
        ),
        ("[\"/bin/nosuch\"]", 127, "returned a non-zero code: 127"),
    ] {
        let context = room.write(&format!("FROM box:1\nRUN echo kept > /kept\nRUN {run}\n"));
        // The step before is cached by the first build, so that only what the failing one leaves is seen.
        daemon.run(&["build", "-t", "bad:1", &context]);
        let before = Inventory::of(&daemon);
        let (got, said) = daemon.fails(&["build", "-t", "bad:1", &context]);
        assert_eq!(got, code, "{run}: {said}");
        assert!(said.contains(words), "{run}: {said}");
        before.assert_unchanged(&daemon, run);
        let Some(docker) = daemon.docker(&["build", "-t", "bad:1", &context]) else {
            continue;
        };
        let said = text(&docker.stderr);
        assert_eq!(docker.status.code(), Some(code), "{run}: {said}");
        assert!(said.contains(words), "{run}: {said}");
    }
}

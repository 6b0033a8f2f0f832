//! Progress on a terminal: what a user of either client sees in the end, and that lines change in place until then.

use std::process::{Command, Stdio};

use crate::commands::neutral;
use crate::private::Registry;
use crate::support::{BERTH, Daemon, text};

/// As much of a terminal as progress needs: a cursor that goes up and down, and lines that are erased.
struct Screen {
    columns: usize,
    lines: Vec<String>,
    row: usize,
    column: usize,
}

impl Screen {
    fn show(columns: usize, output: &str) -> Vec<String> {
        let mut screen = Screen {
            columns,
            lines: vec![String::new()],
            row: 0,
            column: 0,
        };
        let mut rest = output.chars();
        while let Some(c) = rest.next() {
            match c {
                '\r' => screen.column = 0,
                '\n' => screen.down(1),
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['), "an escape that is no control sequence");
                    let mut number = String::new();
                    let end = loop {
                        match rest.next().unwrap() {
                            digit if digit.is_ascii_digit() => number.push(digit),
                            end => break end,
                        }
                    };
                    screen.control(end, number.parse().unwrap_or(0));
                }
                c => screen.put(c),
            }
        }
        let lines = screen.lines.iter().map(|line| line.trim_end().to_owned());
        let mut lines: Vec<String> = lines.collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        assert_eq!(
            screen.column, 0,
            "the next prompt would not begin a line: {lines:?}"
        );
        lines
    }

    fn control(&mut self, end: char, number: usize) {
        match end {
            'A' => self.row = self.row.checked_sub(number.max(1)).expect("above the screen"),
            'B' => self.down(number.max(1)),
            'K' if number == 2 => self.lines[self.row].clear(),
            'K' => self.lines[self.row].truncate(self.column),
            other => panic!("a sequence of another kind: {number}{other}"),
        }
    }

    fn down(&mut self, rows: usize) {
        self.row += rows;
        while self.lines.len() <= self.row {
            self.lines.push(String::new());
        }
    }

    fn put(&mut self, c: char) {
        let (columns, column) = (self.columns, self.column);
        let line = &mut self.lines[self.row];
        assert!(column < columns, "a line wraps: {line}");
        let mut cells: Vec<char> = line.chars().collect();
        cells.resize(cells.len().max(column + 1), ' ');
        cells[column] = c;
        *line = cells.into_iter().collect();
        self.column += 1;
    }
}

/// What a command writes to a terminal of so many columns.
fn on_terminal(daemon: &Daemon, columns: usize, program: &str, args: &[&str]) -> String {
    let line = format!("stty rows 40 cols {columns}; exec {program} {}", args.join(" "));
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("DOCKER_HOST", daemon.socket())
        .env("DOCKER_BUILDKIT", "0")
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    said
}

fn seen(daemon: &Daemon, columns: usize, output: &str) -> Vec<String> {
    let lines = Screen::show(columns, output).join("\n");
    let dir = daemon.dir.path().display().to_string();
    neutral(&lines, &dir).lines().map(str::to_owned).collect()
}

#[test]
fn lines_change_in_place_on_a_terminal() {
    guard!();
    let Some(registry) = Registry::start("") else {
        return;
    };
    let daemon = Daemon::start();
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    // Nothing compresses it, and two layers of it take longer than the first count of bytes.
    for (name, megabytes) in [("a", "24"), ("b", "12")] {
        let count = format!("count={megabytes}");
        let out = format!("of={}", context.join(name).display());
        let made = Command::new("dd")
            .args(["if=/dev/urandom", "bs=1M", &count, &out, "status=none"])
            .status();
        assert!(made.unwrap().success());
    }
    std::fs::write(context.join("Dockerfile"), "FROM box:1\nCOPY a /a\nCOPY b /b\n").unwrap();
    let context = context.display().to_string();
    let has_docker = daemon.docker(&["--version"]).is_some();
    let mut ends = Vec::new();
    for (name, program) in [("ours", BERTH), ("theirs", "docker")] {
        if program == "docker" && !has_docker {
            println!("skipped: needs the docker client (package docker.io)");
            continue;
        }
        let image = format!("127.0.0.1:{}/{name}:1", registry.port);
        let mut shown = Vec::new();
        let mut both = |args: &[&str], columns| {
            let said = on_terminal(&daemon, columns, program, args);
            let end = seen(&daemon, columns, &said).join("\n").replace(name, "NAME");
            shown.push(end.replace("NAMEs", "theirs"));
            said
        };
        let built = both(&["build", "--no-cache", "-t", &image, &context], 150);
        let pushed = both(&["push", &image], 150);
        for columns in [150, 80] {
            daemon.ok(&["rmi", "-f", &image]);
            daemon.ok(&["builder", "prune", "-af"]);
            let pulled = both(&["pull", &image], columns);
            assert!(pulled.contains("\x1b["), "{program} moves no cursor: {pulled}");
            assert!(pulled.contains("MB/"), "{program} counts nothing: {pulled}");
            assert_eq!(
                pulled.contains("ing ["),
                columns == 150,
                "{program} at {columns}: {pulled}"
            );
        }
        assert!(pushed.contains("ing ["), "{program}: {pushed}");
        assert!(
            built.contains("Sending build context to Docker daemon"),
            "{program}: {built}"
        );
        daemon.ok(&["rmi", "-f", &image]);
        ends.push(shown);
    }
    let ours = &ends[0];
    assert_eq!(
        ours[2],
        "1: Pulling from NAME\n<id>: Already exists\n<id>: Pull complete\n<id>: Pull complete\nDigest: <digest>\n\
         Status: Downloaded newer image for 127.0.0.1:PORT/NAME:1\n127.0.0.1:PORT/NAME:1"
            .replace("PORT", &registry.port.to_string())
    );
    if let Some(theirs) = ends.get(1) {
        // The pulls leave the same on the screen. (A push may find layers that an earlier one brought.)
        assert_eq!(ours[2..], theirs[2..]);
    }
    // Elsewhere there is nothing to redraw.
    let image = format!("127.0.0.1:{}/ours:1", registry.port);
    let plain = daemon.ok(&["pull", &image]);
    assert!(
        !plain.contains('\x1b') && !plain.contains('\r') && !plain.contains("MB/"),
        "{plain}"
    );
    assert!(plain.contains(": Pull complete\n"), "{plain}");
}

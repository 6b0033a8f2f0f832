//! Progress on a terminal: what a user of either client sees in the end, and that lines change in place until then.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::commands::neutral;
use crate::docker;
use crate::private::Registry;
use crate::support::{Daemon, clients, text};

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
            'J' if number == 0 => {
                self.lines[self.row].truncate(self.column);
                self.lines.truncate(self.row + 1);
            }
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
pub fn on_terminal(daemon: &Daemon, columns: usize, program: &str, args: &[&str]) -> String {
    let line = format!("stty rows 40 cols {columns}; exec {program} {}", args.join(" "));
    let (code, said) = typed(daemon, &line, "", "");
    assert_eq!(code, Some(0), "{program} {args:?}: {said}");
    said
}

/// Runs a line on a terminal, and types `keys` from when it has shown `prompt` until it ends: a client that is not attached
/// yet misses some. Its exit code, and what it showed.
fn typed(daemon: &Daemon, line: &str, prompt: &str, keys: &str) -> (Option<i32>, String) {
    typed_in_turn(daemon, line, &[(prompt, keys)])
}

/// The same with several prompts and keys: those of one are typed until the next one has been shown.
pub fn typed_in_turn(daemon: &Daemon, line: &str, turns: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut child = Command::new("script")
        .args(["-qec", line, "/dev/null"])
        .env("DOCKER_HOST", daemon.socket())
        .env("DOCKER_BUILDKIT", "0")
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let shown = Arc::new(Mutex::new(Vec::new()));
    let so_far = Arc::clone(&shown);
    let reader = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = stdout.read(&mut piece) {
            so_far.lock().unwrap().extend_from_slice(&piece[..count]);
        }
    });
    let mut turn = 0;
    while child.try_wait().unwrap().is_none() {
        let so_far = text(&shown.lock().unwrap());
        let is_up = |turn: usize| turns.get(turn).is_some_and(|(prompt, _)| so_far.contains(prompt));
        if is_up(turn + 1) {
            turn += 1;
        }
        if is_up(turn) {
            // It may end meanwhile.
            let _ = stdin.write_all(turns[turn].1.as_bytes());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    reader.join().unwrap();
    let shown = text(&shown.lock().unwrap());
    (child.wait().unwrap().code(), shown)
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
    // Two layers take longer than the first count of bytes.
    let daemon = Daemon::start_with(&["--limit-rate", "10m"]);
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    // Nothing compresses it.
    for (name, megabytes) in [("a", "8"), ("b", "4")] {
        let count = format!("count={megabytes}");
        let out = format!("of={}", context.join(name).display());
        let made = Command::new("dd")
            .args(["if=/dev/urandom", "bs=1M", &count, &out, "status=none"])
            .status();
        assert!(made.unwrap().success());
    }
    std::fs::write(context.join("Dockerfile"), "FROM box:1\nCOPY a /a\nCOPY b /b\n").unwrap();
    let context = context.display().to_string();
    let mut ends = Vec::new();
    for (name, (client, program)) in ["ours", "theirs"].into_iter().zip(clients(docker::RECENT)) {
        let image = format!("127.0.0.1:{}/{name}:1", registry.port);
        let mut shown = Vec::new();
        let mut both = |args: &[&str], columns| {
            let said = on_terminal(&daemon, columns, &program, args);
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
        let words = match client {
            "docker" => "Sending build context to Docker daemon",
            _ => "[+] Building",
        };
        assert!(built.contains(words), "{program}: {built}");
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

/// A container's terminal has the size of ours from its first moment, and its exit code is the client's.
#[test]
fn a_containers_terminal_is_as_large_as_ours() {
    guard!();
    let daemon = Daemon::start();
    for (_, program) in clients(docker::RECENT) {
        let shown = on_terminal(
            &daemon,
            97,
            &program,
            &["run", "--rm", "-it", "box:1", "busybox", "stty", "size"],
        );
        assert_eq!(shown.lines().next(), Some("40 97"), "{program}: {shown}");
        let command = "run --rm -it box:1 sh -c 'test -t 0 && test -t 1 && exit 7'";
        let (code, shown) = typed(&daemon, &format!("{program} {command}"), "", "");
        assert_eq!(code, Some(7), "{program}: {shown}");
    }
}

/// A terminal that changes its size while a client is attached changes the container's.
#[test]
fn a_containers_terminal_follows_the_size_of_ours() {
    guard!();
    let daemon = Daemon::start();
    let dir = daemon.dir.path().display().to_string();
    let volume = format!("{dir}:/shared");
    daemon.ok(&[
        "run", "-d", "--name", "one", "-v", &volume, "box:1", "sleep", "1000",
    ]);
    // What runs inside has seen the first size before the second one is set, and waits for it.
    let inside = "busybox stty size; touch /shared/seen; i=0; \
                  until [ \"$(busybox stty size)\" = \"51 112\" ] || [ $i = 600 ]; do i=$((i+1)); sleep 0.05; done; \
                  busybox stty size";
    let outside = format!(
        "for i in $(seq 600); do [ -e {dir}/seen ] && break; sleep 0.05; done; stty rows 51 cols 112 </dev/tty"
    );
    for (_, program) in clients(docker::RECENT) {
        for command in [
            format!("run --rm -it -v {volume} box:1 sh -c '{inside}'"),
            format!("exec -it one sh -c '{inside}'"),
        ] {
            let line = format!("stty rows 40 cols 97; ({outside}) & exec {program} {command}");
            let (code, shown) = typed(&daemon, &line, "", "");
            std::fs::remove_file(daemon.dir.path().join("seen")).unwrap();
            let shown: Vec<&str> = shown.lines().collect();
            assert_eq!(
                (code, shown.as_slice()),
                (Some(0), ["40 97", "51 112"].as_slice()),
                "{program} {command}"
            );
        }
    }
}

#[test]
fn keys_detach_and_an_attached_client_ends_with_the_container() {
    guard!();
    let daemon = Daemon::start();
    for (name, program) in clients(docker::RECENT) {
        let line = format!("{program} run -it --name {name} box:1 sh");
        let (code, shown) = typed(&daemon, &line, "# ", "\x10\x11");
        assert_eq!(code, Some(0), "{program}: {shown}");
        let running = || daemon.ok(&["inspect", "-f", "{{.State.Running}}", name]);
        assert_eq!(running(), "true\n", "{program}: {shown}");
        let line = format!("{program} attach --detach-keys ctrl-x,y {name}");
        let (code, shown) = typed(&daemon, &line, "", "\x18y");
        assert_eq!(
            (code, running().as_str(), shown.contains("read escape sequence")),
            (Some(1), "true\n", true),
            "{program}: {shown}"
        );
        let (code, shown) = typed(&daemon, &format!("{program} attach {name}"), "", "exit 5\n");
        assert_eq!(
            (code, running().as_str()),
            (Some(5), "false\n"),
            "{program}: {shown}"
        );
    }
}

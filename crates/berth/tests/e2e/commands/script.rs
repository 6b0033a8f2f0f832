//! Reads scripts, runs them with each client, and compares.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::neutral::neutral;
use crate::docker;
use crate::support::{Daemon, clients, text};

/// Who runs a line.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Client,
    /// The same in both, whatever it prints.
    Alike,
    Shell,
    ShellAlike,
}

impl Kind {
    fn alike(self) -> bool {
        matches!(self, Kind::Alike | Kind::ShellAlike)
    }
}

struct Step {
    kind: Kind,
    line: String,
    input: String,
    stdout: Vec<String>,
    stderr: Vec<String>,
    code: i32,
}

fn parse(script: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in script
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty())
    {
        let kind = match line.get(..2) {
            Some("# ") => continue,
            Some("$ ") => Some(Kind::Client),
            Some("% ") => Some(Kind::Alike),
            Some("@ ") => Some(Kind::Shell),
            Some("& ") => Some(Kind::ShellAlike),
            _ => None,
        };
        if let Some(kind) = kind {
            steps.push(Step {
                kind,
                line: line[2..].to_owned(),
                input: String::new(),
                stdout: Vec::new(),
                stderr: Vec::new(),
                code: 0,
            });
            continue;
        }
        let step = steps.last_mut().expect("a script begins with a command");
        let code = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match (line.split_once(' '), code.and_then(|code| code.parse().ok())) {
            (_, Some(code)) => step.code = code,
            (Some(("!", rest)), _) => step.stderr.push(rest.to_owned()),
            (Some(("<", rest)), _) => step.input.push_str(&format!("{rest}\n")),
            _ => step.stdout.push(line.to_owned()),
        }
    }
    steps
}

/// Words as a shell reads them: single and double quotes, no expansion.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// One client and its place.
struct Side<'a> {
    daemon: &'a Daemon,
    client: &'a str,
    dir: PathBuf,
}

/// What a line did.
#[derive(PartialEq)]
struct Done {
    stdout: String,
    stderr: String,
    code: i32,
}

impl Side<'_> {
    fn command(&self, step: &Step) -> Command {
        let dir = self.dir.display().to_string();
        let line = step.line.replace("$DIR", &dir);
        let mut command = match step.kind {
            Kind::Shell | Kind::ShellAlike => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(&line);
                command
            }
            Kind::Client | Kind::Alike => {
                let mut command = Command::new(self.client);
                command.args(split(&line));
                command
            }
        };
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .current_dir(&self.dir)
            .env("CLIENT", self.client)
            .env("DIR", &dir)
            .env("HOME", &dir)
            .env("PATH", format!("{dir}/bin:{path}"))
            .env("DOCKER_CONFIG", self.dir.join("config"))
            .env("DOCKER_HOST", self.daemon.socket())
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_CLI_HINTS", "false")
            .env("TZ", "UTC")
            .env("INHERITED", "from outside")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, step: &Step) -> Done {
        let mut child = self.command(step).spawn().unwrap();
        // A command that reads nothing may be gone.
        let _ = child.stdin.take().unwrap().write_all(step.input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let dir = self.dir.display().to_string();
        Done {
            stdout: neutral(&text(&output.stdout), &dir),
            stderr: text(&output.stderr).replace(&dir, "<dir>"),
            code: output.status.code().unwrap_or(-1),
        }
    }
}

/// Whether a line is as written; `…` stands for the rest.
fn fits(written: &str, line: &str) -> bool {
    match written.split_once('…') {
        Some((head, "")) => line.starts_with(head),
        Some((head, tail)) => line.starts_with(head) && line.ends_with(tail),
        None => line == written,
    }
}

/// What of an expectation is not so.
fn differences(step: &Step, done: &Done) -> Vec<String> {
    let mut found = Vec::new();
    if done.code != step.code {
        found.push(format!("exit code {}, expected {}", done.code, step.code));
    }
    let lines: Vec<&str> = done.stdout.lines().filter(|line| !line.is_empty()).collect();
    let expected = &step.stdout;
    let same = lines.len() == expected.len()
        && expected
            .iter()
            .zip(&lines)
            .all(|(written, line)| fits(written, line.trim_start()));
    if !same && (!step.kind.alike() || !expected.is_empty()) {
        found.push(format!(
            "stdout\n{}\nexpected\n{}",
            done.stdout,
            expected.join("\n")
        ));
    }
    for words in &step.stderr {
        if !done.stderr.contains(words.as_str()) {
            found.push(format!("stderr without {words:?}"));
        }
    }
    if !found.is_empty() {
        found.push(format!("stderr was\n{}", done.stderr));
    }
    found
}

/// Runs the script with both clients on a daemon of its own; fails with everything that is not as written.
pub fn both(script: &str) {
    let daemon = Daemon::start();
    both_on(&daemon, script);
}

/// The same on a daemon that is there.
pub fn both_on(daemon: &Daemon, script: &str) {
    let clients = clients(docker::RECENT);
    // Several of these tests, and those of another checkout, may run at once on one host.
    let own = std::process::id();
    let net = format!("10.{}.{}", 200 + own / 256 % 50, own % 256);
    let port = (20_000 + own % 10_000).to_string();
    let steps = parse(&script.replace("$NET", &net).replace("$PORT", &port));
    assert!(!steps.is_empty());
    let mut wrong = Vec::new();
    let mut transcripts: Vec<Vec<Done>> = Vec::new();
    for (name, client) in &clients {
        let dir = daemon.dir.path().join(format!("as-{name}"));
        std::fs::create_dir_all(&dir).unwrap();
        let side = Side { daemon, client, dir };
        let mut transcript = Vec::new();
        for step in &steps {
            let done = side.run(step);
            for difference in differences(step, &done) {
                wrong.push(format!("{name} {}: {difference}", step.line));
            }
            transcript.push(done);
        }
        transcripts.push(transcript);
        clear(daemon);
    }
    // Of one client there is nothing to compare, only what is written to be expected.
    let theirs = transcripts.last().unwrap_or(&transcripts[0]);
    for ((step, ours), theirs) in steps.iter().zip(&transcripts[0]).zip(theirs) {
        if step.kind.alike() && ours.stdout != theirs.stdout {
            wrong.push(format!(
                "{}: ours\n{}\ndocker's\n{}",
                step.line, ours.stdout, theirs.stdout
            ));
        }
    }
    if std::env::var_os("BERTH_SHOW_TRANSCRIPTS").is_some() {
        for ((step, ours), theirs) in steps.iter().zip(&transcripts[0]).zip(theirs) {
            println!(
                "$ {}\n{}\n2> {}\n2> {}",
                step.line, ours.stdout, ours.stderr, theirs.stderr
            );
        }
    }
    assert!(wrong.is_empty(), "{}\n\n{}", wrong.join("\n"), daemon.log());
}

/// Everything but the base image, so that the next client finds what the first found.
fn clear(daemon: &Daemon) {
    let all = |args: &[&str]| -> Vec<String> { daemon.ok(args).lines().map(str::to_owned).collect() };
    for id in all(&["ps", "-aq"]) {
        daemon.ok(&["rm", "-f", "-v", &id]);
    }
    for id in all(&["network", "ls", "-q", "--filter", "type=custom"]) {
        daemon.ok(&["network", "rm", &id]);
    }
    for name in all(&["volume", "ls", "-q"]) {
        daemon.ok(&["volume", "rm", &name]);
    }
    for image in all(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]) {
        let (name, id) = image.split_once(' ').unwrap();
        match name {
            "box:1" => {}
            _ if name.contains("<none>") => {
                daemon.run(&["rmi", "-f", id]);
            }
            _ => {
                daemon.run(&["rmi", "-f", name]);
            }
        }
    }
    daemon.ok(&["builder", "prune", "-af"]);
}

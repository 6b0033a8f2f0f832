//! Clients that are suspended while their build is under way: other builds that want the same go on, and so does theirs once it
//! is woken.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use super::ours::{Place, until};
use crate::docker;
use crate::support::{ANY_DOCKER, Running, retry, signal, text};

fn send(client: &Running, name: &str) {
    signal(&client.0.id().to_string(), name);
}

/// Whether a client succeeds, once it has ended.
fn succeeds(client: &mut Running) -> Option<bool> {
    retry(|| client.0.try_wait().unwrap()).map(|status| status.success())
}

/// A build by our client, and where it writes what it shows.
fn build(place: &Place, args: &[&str], shown: &str) -> (Running, std::path::PathBuf) {
    let path = place.daemon.dir.path().join(shown);
    let mut command = place.command(args);
    command.stderr(File::create(&path).unwrap()).stdout(Stdio::null());
    (Running(command.spawn().unwrap()), path)
}

fn read(path: &std::path::Path) -> String {
    text(&std::fs::read(path).unwrap_or_default())
}

/// A build that comes to its end while another client is suspended.
fn built_meanwhile(place: &Place, args: &[&str]) {
    let (mut second, shown) = build(place, args, "shown");
    assert_eq!(
        succeeds(&mut second),
        Some(true),
        "{}{}",
        read(&shown),
        place.daemon.log()
    );
}

#[test]
fn a_client_that_takes_no_output_holds_nobody_up() {
    guard!();
    let program = match docker::client(ANY_DOCKER) {
        Ok(program) => program,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let place = Place::start();
    // Far more than all buffers on the way take.
    place.write(
        "Dockerfile",
        "FROM box:1\nRUN busybox seq 1 4000000; echo made > /made\nRUN echo the last words\n",
    );
    let context = place.daemon.dir.path().join("context");
    let first = Command::new(program)
        .args(["build", "-t", "first:1"])
        .arg(&context)
        .env("DOCKER_HOST", place.daemon.socket())
        .env("DOCKER_BUILDKIT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut first = Running(first.unwrap());
    let mut heard = BufReader::new(first.0.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim() != "1000" {
        line.clear();
        assert_ne!(heard.read_line(&mut line).unwrap(), 0, "{}", place.daemon.log());
    }
    send(&first, "-STOP");
    built_meanwhile(&place, &["--progress", "plain", "-t", "second:1", "."]);
    assert_eq!(place.said("second:1", "cat /made"), "made\n");
    send(&first, "-CONT");
    let mut rest = Vec::new();
    heard.read_to_end(&mut rest).unwrap();
    assert_eq!(succeeds(&mut first), Some(true));
    let rest = text(&rest);
    let end = rest.get(rest.len().saturating_sub(2000)..).unwrap_or_default();
    assert!(rest.contains("bytes of output were dropped"), "{end}");
    assert!(
        rest.contains("the last words") && rest.contains("Successfully tagged first:1"),
        "{end}"
    );
    place.daemon.ok(&["system", "check"]);
}

/// The first build has the step begun that needs the secret, and its client does not answer.
#[test]
fn a_client_that_gives_no_secret_holds_nobody_up() {
    guard!();
    let place = Place::start();
    place.write(
        "Dockerfile",
        "FROM box:1\n\
         RUN --mount=type=cache,target=/meet echo begun; until [ -e /meet/go ]; do sleep 0.05; done\n\
         RUN --mount=type=secret,id=word,required wc -c < /run/secrets/word > /length\n",
    );
    place.write(
        "Go",
        "FROM box:1\nRUN --mount=type=cache,target=/meet touch /meet/go\n",
    );
    place.write("word", "hidden word");
    let secret = "id=word,src=word";
    let words = |tag: &'static str| ["--progress", "plain", "--secret", secret, "-t", tag, "."];
    let (mut first, its) = build(&place, &words("first:1"), "first");
    until("the first step runs", &|| read(&its).contains("begun"));
    send(&first, "-STOP");
    place.ok(&["-f", "Go", "."]);
    // What the first has asked for now is not given.
    until("the first step has ended", &|| {
        let containers = place.daemon.dir.path().join("root/containers");
        std::fs::read_dir(containers).is_ok_and(|mut entries| entries.next().is_none())
    });
    built_meanwhile(&place, &words("second:1"));
    assert_eq!(place.said("second:1", "cat /length"), "11\n");
    send(&first, "-CONT");
    assert_eq!(succeeds(&mut first), Some(true), "{}", read(&its));
    assert_eq!(place.said("first:1", "cat /length"), "11\n");
    place.daemon.ok(&["system", "check"]);
}

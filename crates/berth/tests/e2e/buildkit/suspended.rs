//! Clients that are suspended while their build is under way: other builds that want the same go on, and so does theirs once it
//! is woken.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use super::ours::{Place, until};
use crate::docker;
use crate::support::{ANY_DOCKER, retry, signal, text};

/// A client that is ended with the test, whatever becomes of it.
struct Client(Child);

impl Client {
    fn start(command: &mut Command) -> Client {
        Client(command.spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        signal(&self.0.id().to_string(), name);
    }

    /// Whether it succeeds, once it has ended.
    fn succeeds(&mut self) -> Option<bool> {
        retry(|| self.0.try_wait().unwrap()).map(|status| status.success())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A build by our client, and where it writes what it shows.
fn build(place: &Place, args: &[&str], shown: &str) -> (Client, std::path::PathBuf) {
    let path = place.daemon.dir.path().join(shown);
    let mut command = place.command(args);
    command.stderr(File::create(&path).unwrap()).stdout(Stdio::null());
    (Client::start(&mut command), path)
}

fn read(path: &std::path::Path) -> String {
    text(&std::fs::read(path).unwrap_or_default())
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
    let mut first = Client::start(
        Command::new(program)
            .args(["build", "-t", "first:1"])
            .arg(&context)
            .env("DOCKER_HOST", place.daemon.socket())
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    let mut heard = BufReader::new(first.0.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim() != "1000" {
        line.clear();
        assert_ne!(heard.read_line(&mut line).unwrap(), 0, "{}", place.daemon.log());
    }
    first.signal("-STOP");
    let (mut second, shown) = build(&place, &["--progress", "plain", "-t", "second:1", "."], "shown");
    assert_eq!(
        second.succeeds(),
        Some(true),
        "{}{}",
        read(&shown),
        place.daemon.log()
    );
    assert_eq!(place.said("second:1", "cat /made"), "made\n");
    first.signal("-CONT");
    let mut rest = Vec::new();
    heard.read_to_end(&mut rest).unwrap();
    assert_eq!(first.succeeds(), Some(true));
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
    first.signal("-STOP");
    place.ok(&["-f", "Go", "."]);
    // What the first has asked for now is not given.
    until("the first step has ended", &|| {
        let containers = place.daemon.dir.path().join("root/containers");
        std::fs::read_dir(containers).is_ok_and(|mut entries| entries.next().is_none())
    });
    let (mut second, shown) = build(&place, &words("second:1"), "second");
    assert_eq!(
        second.succeeds(),
        Some(true),
        "{}{}",
        read(&shown),
        place.daemon.log()
    );
    assert_eq!(place.said("second:1", "cat /length"), "11\n");
    first.signal("-CONT");
    assert_eq!(first.succeeds(), Some(true), "{}", read(&its));
    assert_eq!(place.said("first:1", "cat /length"), "11\n");
    place.daemon.ok(&["system", "check"]);
}

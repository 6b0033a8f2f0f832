//! Compose projects whose services are built here, with what Compose says of a build beyond a directory.

use std::os::unix::fs::MetadataExt as _;

use super::lab;
use crate::support::retry;

const WEB: &str = "FROM box:1 AS common\nARG WORD=none\nCOPY --from=shared note /note\n\
                   RUN --mount=type=secret,id=word wc -c < /run/secrets/word > /length; echo $WORD > /word; \
                   cat /etc/hosts > /hosts; ulimit -n > /files; busybox df -k /dev/shm > /shm\n\
                   FROM common AS serve\nCMD [\"sh\", \"-c\", \"cat /word /note /length; sleep 600\"]\n\
                   FROM common AS work\nRUN echo work > /kind\nCMD [\"cat\", \"/kind\", \"/word\"]\n";

const PROJECT: &str = r#"
name: shop
services:
  web:
    image: web:1
    build: &web
      context: web
      target: serve
      args:
        WORD: open
      labels:
        of: the shop
      tags: ["web:2"]
      extra_hosts: ["there=192.0.2.7"]
      ulimits:
        nofile: {soft: 123, hard: 456}
      shm_size: 8m
      secrets: [word]
      additional_contexts:
        shared: ./shared
  work:
    image: work:1
    build:
      <<: *web
      target: work
      tags: []
  near:
    build:
      context: .
      network: host
      dockerfile_inline: |
        FROM box:1
        RUN busybox readlink /proc/self/ns/net > /net
        CMD ["cat", "/net"]
secrets:
  word:
    file: ./word
"#;

#[test]
fn the_services_of_a_project_are_built_and_run() {
    let lab = lab!();
    lab.write("web/Dockerfile", WEB);
    lab.write("shared/note", "noted\n");
    lab.write("word", "hidden word");
    lab.write("compose.yaml", PROJECT);
    lab.ok(&["compose", "build"]);
    let said = lab.run_image(
        "web:2",
        &["cat", "/word", "/note", "/length", "/files", "/hosts", "/shm"],
    );
    assert!(said.starts_with("open\nnoted\n11\n123\n"), "{said}");
    assert!(
        said.lines()
            .any(|line| line.split_whitespace().eq(["192.0.2.7", "there"])),
        "{said}"
    );
    assert!(said.contains(" 8192 "), "{said}");
    let label = lab
        .daemon
        .ok(&["inspect", "-f", "{{index .Config.Labels \"of\"}}", "web:1"]);
    assert_eq!(label, "the shop\n");
    assert_eq!(lab.run_image("work:1", &[]), "work\nopen\n");
    let host = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    assert_eq!(lab.run_image("shop-near", &[]), format!("net:[{host}]\n"));
    // Nothing is made again, and what is changed is: an argument of one service, while the others stay as they are.
    let id = |name: &str| lab.daemon.ok(&["inspect", "-f", "{{.Id}}", name]);
    let before = ["web:1", "work:1", "shop-near"].map(id);
    lab.ok(&["compose", "build"]);
    assert_eq!(["web:1", "work:1", "shop-near"].map(id), before);
    lab.ok(&["compose", "build", "--build-arg", "WORD=closed", "work"]);
    assert_eq!(lab.run_image("work:1", &[]), "work\nclosed\n");
    assert_eq!(id("web:1"), before[0]);
    lab.ok(&["compose", "up", "-d", "--build", "web"]);
    let logs = || {
        let (logs, _) = lab.ok(&["compose", "logs", "--no-log-prefix", "web"]);
        logs.contains("open\nnoted\n11\n").then_some(())
    };
    assert!(retry(logs).is_some(), "{:?}", lab.ok(&["compose", "logs"]));
    lab.ok(&["compose", "down", "-t", "0"]);
}

#[test]
fn a_service_that_cannot_be_built_is_named_and_the_rest_stays() {
    let lab = lab!();
    lab.write("Dockerfile", "FROM box:1\nRUN echo why >&2; exit 9\n");
    lab.write(
        "compose.yaml",
        "name: broken\nservices:\n  bad:\n    build: .\n  good:\n    image: good:1\n    build:\n      context: .\n      \
         dockerfile_inline: |\n        FROM box:1\n",
    );
    let (_, shown) = lab.fails(&["compose", "build"]);
    assert!(shown.contains("why") && shown.contains("exit code: 9"), "{shown}");
    lab.ok(&["compose", "build", "good"]);
    lab.daemon.ok(&["inspect", "good:1"]);
    let (_, shown) = lab.fails(&["compose", "up", "-d"]);
    assert!(shown.contains("exit code: 9"), "{shown}");
    lab.ok(&["compose", "down", "-t", "0"]);
}

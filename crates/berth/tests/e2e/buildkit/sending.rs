//! What travels from the client: only what is needed, only what changed, and nothing that is ignored.

use std::path::PathBuf;

use super::{Lab, lab};

/// How many bytes of the context the last build says it was sent.
fn transferred(shown: &str) -> f64 {
    let said = shown.split("load build context").nth(1).unwrap();
    // The last word about it is the whole.
    let last = said
        .lines()
        .rfind(|line| line.contains("transferring context:"))
        .unwrap();
    let amount = last.split("transferring context: ").nth(1).unwrap();
    let amount = amount.split_whitespace().next().unwrap();
    let digits: String = amount
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    let factor = match &amount[digits.len()..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        other => panic!("an amount in {other:?}: {last}"),
    };
    digits.parse::<f64>().unwrap() * factor
}

/// The directory in which the daemon keeps the context.
fn kept(lab: &Lab) -> Vec<PathBuf> {
    let local = lab.daemon.dir.path().join("root/buildkit/local");
    let homes = std::fs::read_dir(local)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    homes
        .filter(|home| home.is_dir())
        .map(|home| home.join("0/tree"))
        .collect()
}

#[test]
fn only_what_changed_is_sent_again() {
    let lab = lab!();
    lab.write("Dockerfile", "FROM box:1\nCOPY . /all\n");
    let big = "x".repeat(3_000_000);
    lab.write("big", &big);
    lab.write("small", "one");
    let (_, shown) = lab.ok(&["build", "-t", "sent:1", "."]);
    assert!(transferred(&shown) > 2.9e6, "{shown}");
    lab.write("small", "two!");
    let (_, shown) = lab.ok(&["build", "-t", "sent:1", "."]);
    assert!(transferred(&shown) < 1e5, "{shown}");
    assert_eq!(lab.run_image("sent:1", &["cat", "/all/small"]), "two!");
    std::fs::remove_file(lab.context().join("small")).unwrap();
    lab.ok(&["build", "-t", "sent:1", "."]);
    assert_eq!(
        lab.run_image("sent:1", &["sh", "-c", "ls /all"]),
        "Dockerfile\nbig\n"
    );
    // A daemon that follows knows the files, too.
    let mut lab = lab;
    lab.daemon.crash_and_restart();
    lab.write("small", "three");
    let (_, shown) = lab.ok(&["build", "-t", "sent:1", "."]);
    assert!(transferred(&shown) < 1e5, "{shown}");
}

/// Clients name a directory by the last part of its path, and say of a file no more than its size and its times.
#[test]
fn two_directories_of_one_name_are_two() {
    let lab = lab!();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_600_000_000, 123_456_789);
    let made = ["one", "two"].map(|which| {
        let dir = lab.daemon.dir.path().join(which).join("app");
        std::fs::create_dir_all(&dir).unwrap();
        let write = |name: &str, content: &str| {
            let file = std::fs::File::create(dir.join(name)).unwrap();
            std::io::Write::write_all(&mut &file, content.as_bytes()).unwrap();
            file.set_modified(time).unwrap();
        };
        write(
            "Dockerfile",
            &format!("FROM box:1\nENV WHICH={which}\nCOPY . /all\n"),
        );
        write("small", which);
        write("large", &which.repeat(100_000));
        (which, dir.display().to_string())
    });
    for _ in 0..2 {
        for (which, dir) in &made {
            let tag = format!("twin-{which}:1");
            lab.ok(&["build", "-t", &tag, dir]);
            let command = "echo $WHICH $(cat /all/small) $(head -c 3 /all/large)";
            let said = lab.run_image(&tag, &["sh", "-c", command]);
            assert_eq!(said, format!("{which} {which} {which}\n"));
        }
    }
}

#[test]
fn only_what_is_needed_and_not_ignored_is_sent() {
    let lab = lab!();
    lab.write("Dockerfile", "FROM box:1\nCOPY wanted /wanted\n");
    lab.write(".dockerignore", "# no\nwanted/not\n!wanted/not/but\n");
    lab.write("wanted/file", "1");
    lab.write("wanted/not/this", "2");
    lab.write("wanted/not/but", "3");
    lab.write("other/file", "4");
    lab.ok(&["build", "-t", "sent:2", "."]);
    let listed = lab.run_image("sent:2", &["sh", "-c", "cd /wanted; echo *; echo not/*"]);
    assert_eq!(listed, "file not\nnot/but\n");
    for tree in kept(&lab) {
        assert!(
            !tree.join("other").exists(),
            "{} holds what nobody asked for",
            tree.display()
        );
    }
}

#[test]
fn every_kind_of_file_comes_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let lab = lab!();
    lab.write("Dockerfile", "FROM box:1\nCOPY . /all\n");
    lab.write("dir ectory/ünï", "x");
    let script = lab.write("run", "#!/bin/sh\necho ran\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::symlink("run", lab.context().join("link")).unwrap();
    std::fs::hard_link(&script, lab.context().join("same")).unwrap();
    lab.ok(&["build", "-t", "kinds:1", "."]);
    let command = "cat '/all/dir ectory/ünï'; /all/link; /all/same; ls -l /all/run /all/link";
    let said = lab.run_image("kinds:1", &["sh", "-c", command]);
    assert!(said.starts_with("xran\nran\n"), "{said}");
    assert!(
        said.contains("-rwsr-x--x") && said.contains("/all/link -> run"),
        "{said}"
    );
}

#[test]
fn named_contexts_take_the_place_of_stages_and_images() {
    let lab = lab!();
    lab.write(
        "Dockerfile",
        "FROM base\nCOPY --from=files /a /a\nCOPY --from=files /sub/ /sub/\n",
    );
    let other = lab.daemon.dir.path().join("other");
    std::fs::create_dir_all(other.join("sub")).unwrap();
    std::fs::write(other.join("a"), "named").unwrap();
    std::fs::write(other.join("sub/b"), "below").unwrap();
    let files = format!("files={}", other.display());
    let base = "base=docker-image://box:1";
    lab.ok(&[
        "buildx",
        "build",
        "-t",
        "named:1",
        "--build-context",
        base,
        "--build-context",
        &files,
        ".",
    ]);
    assert_eq!(lab.run_image("named:1", &["cat", "/a", "/sub/b"]), "namedbelow");
}

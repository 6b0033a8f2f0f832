//! Data that outlives containers.

mod mounts;
mod nfs;
mod options;
mod ownership;
mod plugins;
mod snapshots;
mod trash;

use std::process::Command;

use crate::support::{BERTH, Daemon, text};

/// A volume that its options mount.
fn in_memory(daemon: &Daemon, name: &str) {
    let options = ["-o", "type=tmpfs", "-o", "device=tmpfs"];
    daemon.ok(&[&["volume", "create"], &options[..], &[name]].concat());
}

#[test]
fn volumes_are_filled_shared_and_outlive_containers() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["volume", "create", "data"]);
    assert_eq!(
        daemon
            .ok(&["run", "--rm", "-v", "data:/srv", "box:1", "cat", "/srv/seed"])
            .trim(),
        "from the image"
    );
    daemon.ok(&[
        "run",
        "--rm",
        "-v",
        "data:/srv",
        "box:1",
        "sh",
        "-c",
        "echo kept > /srv/note",
    ]);
    assert_eq!(
        daemon
            .ok(&["run", "--rm", "-v", "data:/x:ro", "box:1", "cat", "/x/note"])
            .trim(),
        "kept"
    );
    let (_, text) = daemon.fails(&["run", "--rm", "-v", "data:/x:ro", "box:1", "touch", "/x/new"]);
    assert!(text.contains("Read-only"), "{text}");
    daemon.ok(&["volume", "rm", "data"]);
}

#[test]
fn volumes_get_other_names_and_copies() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&[
        "run",
        "--rm",
        "-v",
        "first:/d",
        "box:1",
        "sh",
        "-c",
        "echo one > /d/note; chown 7:8 /d/note",
    ]);
    assert_eq!(daemon.ok(&["volume", "rename", "first", "second"]), "second\n");
    assert_eq!(daemon.ok(&["volume", "clone", "second", "third"]), "third\n");
    daemon.ok(&[
        "run",
        "--rm",
        "-v",
        "third:/d",
        "box:1",
        "sh",
        "-c",
        "echo two >> /d/note",
    ]);
    let show = |volume: &str| {
        daemon.ok(&[
            "run",
            "--rm",
            "-v",
            &format!("{volume}:/d"),
            "box:1",
            "cat",
            "/d/note",
        ])
    };
    assert_eq!(
        (show("second").as_str(), show("third").as_str()),
        ("one\n", "one\ntwo\n")
    );
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "second\nthird\n");
    daemon.ok(&["create", "--name", "holder", "-v", "second:/d", "box:1", "true"]);
    let refused = daemon.fails(&["volume", "rename", "second", "fourth"]).1;
    assert!(refused.contains("rename second: volume is in use"), "{refused}");
    assert!(
        daemon
            .fails(&["volume", "clone", "second", "third"])
            .1
            .contains("must be unique")
    );
    assert!(
        daemon
            .fails(&["volume", "clone", "nosuch", "fifth"])
            .1
            .contains("no such volume")
    );
    assert!(
        daemon
            .fails(&["volume", "rename", "third", "../x"])
            .1
            .contains("invalid characters")
    );
}

/// What a volume holds, as far as anybody can see it: names, owners, modes, times, links, devices, attributes, and where
/// files have data.
fn census(daemon: &Daemon, volume: &str) -> String {
    let path = daemon.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", volume]);
    let script = "find . -printf '%p %y %u:%g %m %T@ %l %n\\n' | sort; \
                  find . -type f -printf '%p %s\\n' | sort; find . -type f -exec sha256sum {} + | sort";
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(path.trim())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_volume_goes_into_an_archive_and_comes_back_as_it_was() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["volume", "create", "--label", "kept=no", "one"]);
    let fill = "b() { busybox \"$@\"; }; cd /d && b mkdir sub && echo text > sub/file && b chown 33:44 sub/file && \
                b chmod 4750 sub/file && ln sub/file hard && ln -s ../outside soft && b mkfifo pipe && \
                b mknod null c 1 3 && b truncate -s 300M sparse && echo end >> sparse && \
                echo x > \"$(printf 'a\\nb')\" && b touch -d @1000000000 sub && b chown 7:8 . && b chmod 1770 .";
    daemon.ok(&["run", "--rm", "-v", "one:/d", "box:1", "sh", "-c", fill]);
    let path = daemon.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", "one"]);
    let file = std::path::Path::new(path.trim()).join("sub/file");
    rustix::fs::setxattr(&file, "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    let tar = daemon.dir.path().join("one.tar").display().to_string();
    daemon.ok(&["volume", "export", "-o", &tar, "one"]);
    let length = std::fs::metadata(&tar).unwrap().len();
    assert!(length < 1 << 20, "300 MiB of nothing take {length} bytes");
    // Other tools read it, too.
    let listed = Command::new("tar").args(["-tvf", &tar]).output().unwrap();
    let listed = text(&listed.stdout);
    assert!(
        listed.contains("314572804")
            && listed.contains("./sub/file")
            && listed.contains("./soft -> ../outside"),
        "{listed}"
    );
    assert_eq!(
        daemon.ok(&["volume", "import", "--label", "a=b", "two", &tar]),
        "two\n"
    );
    let (one, two) = (census(&daemon, "one"), census(&daemon, "two"));
    assert_eq!(one, two);
    let labels = ["volume", "inspect", "-f", "{{json .Labels}}", "two"];
    assert_eq!(daemon.ok(&labels), "{\"a\":\"b\"}\n");
    let copy = std::path::Path::new(&path.trim().replace("/one/", "/two/")).join("sub/file");
    let mut note = [0; 4];
    rustix::fs::getxattr(&copy, "user.note", &mut note).unwrap();
    assert_eq!(&note, b"kept");
    // Compressed, through both standard streams.
    let pipe = format!(
        "{BERTH} volume export one | gzip | {BERTH} volume import three && {BERTH} volume export three | cmp - {tar}"
    );
    let output = Command::new("sh")
        .args(["-c", &pipe])
        .env("DOCKER_HOST", daemon.socket())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    // One that containers have is exported as it is, and is no place to import to.
    daemon.ok(&[
        "run", "-d", "--name", "user", "-v", "two:/d", "box:1", "sleep", "100",
    ]);
    daemon.ok(&["volume", "export", "-o", &tar, "two"]);
    for (args, words) in [
        (&["volume", "import", "two", &tar][..], "must be unique"),
        (&["volume", "import", "../x", &tar], "invalid characters"),
        (
            &["volume", "import", "new", "/no/such.tar"],
            "no such file or directory",
        ),
        (
            &["volume", "export", "-o", "/dev/null", "nosuch"],
            "get nosuch: no such volume",
        ),
    ] {
        let (code, said) = daemon.fails(args);
        assert!(code == 1 && said.contains(words), "{args:?}: {code} {said}");
    }
    daemon.ok(&[
        "volume",
        "create",
        "--opt",
        "type=tmpfs",
        "--opt",
        "device=tmpfs",
        "memory",
    ]);
    let (_, said) = daemon.fails(&["volume", "export", "-o", "/dev/null", "memory"]);
    assert!(said.contains("what its options mount"), "{said}");
}

/// While others start with it and end, a volume that is in use stays, and one that is not is removed whole or not at all.
#[test]
fn starts_and_removals_at_once_lose_nothing() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&[
        "run",
        "--rm",
        "-v",
        "held:/d",
        "box:1",
        "sh",
        "-c",
        "echo kept > /d/kept",
    ]);
    daemon.ok(&["create", "--name", "holder", "-v", "held:/d", "box:1", "true"]);
    let done = std::sync::atomic::AtomicBool::new(false);
    let (mut removed, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| {
            let both = || {
                for _ in 0..12 {
                    assert_eq!(
                        daemon.ok(&["run", "--rm", "-v", "held:/d", "box:1", "cat", "/d/kept"]),
                        "kept\n"
                    );
                    // This one comes and goes: whoever runs has it for as long as he runs.
                    let script = "echo own > /d/own; cat /d/own";
                    let mount = "free:/d";
                    assert_eq!(
                        daemon.ok(&["run", "--rm", "-v", mount, "box:1", "sh", "-c", script]),
                        "own\n"
                    );
                }
            };
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(both));
            done.store(true, std::sync::atomic::Ordering::SeqCst);
            ended
        });
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            let (_, said) = daemon.fails(&["volume", "rm", "held"]);
            assert!(said.contains("volume is in use"), "{said}");
            let output = daemon.run(&["volume", "rm", "--purge", "free"]);
            let said = text(&output.stderr);
            match output.status.success() {
                true => removed += 1,
                false if said.contains("volume is in use") => refused += 1,
                false => assert!(said.contains("no such volume"), "{said}"),
            }
        }
        if let Err(panic) = starting.join().unwrap() {
            std::panic::resume_unwind(panic);
        }
    });
    println!("{removed} removed, {refused} refused");
    assert!(removed > 0, "nothing was removed meanwhile");
    daemon.run(&["volume", "rm", "--purge", "free"]);
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

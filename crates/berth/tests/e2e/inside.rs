//! Looking inside images, and accounting for every byte of the data root.

use std::process::Command;

use crate::support::{BERTH, Daemon, text};
use crate::tarball::{Image, Tar};
use crate::terminal::typed_in_turn;

/// What `du` says of a path in bytes.
fn du(path: &std::path::Path) -> u64 {
    let output = Command::new("du")
        .args(["-s", "--block-size=1"])
        .arg(path)
        .output()
        .unwrap();
    let said = text(&output.stdout);
    said.split_whitespace().next().unwrap().parse().unwrap()
}

/// Bytes that no compression makes fewer.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn space(daemon: &Daemon) -> serde_json::Value {
    let answer = crate::http::request(daemon, "GET", "/system/space", "", b"");
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
}

#[test]
fn every_byte_of_the_root_is_accounted_for() {
    guard!();
    let daemon = Daemon::start();
    let root = daemon.dir.path().join("root");
    let before = space(&daemon);
    // So much of each kind that it is seen: an image, a container that wrote and printed, a volume, half a download.
    let big = Image::of(&[Tar::default().file("big", &noise(8 << 20)).finish()]);
    let archive = daemon.dir.path().join("big.tar");
    std::fs::write(&archive, big.archive("big:1")).unwrap();
    daemon.ok(&["load", "-i", &archive.display().to_string()]);
    let script = "head -c 4000000 /dev/zero > /written; head -c 3000000 /dev/zero > /data/kept; \
                  head -c 1500000 /dev/zero | busybox tr '\\0' x";
    daemon.ok(&[
        "run",
        "--name",
        "writer",
        "-v",
        "kept:/data",
        "box:1",
        "sh",
        "-c",
        script,
    ]);
    let context = daemon.dir.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(
        context.join("Dockerfile"),
        "FROM box:1\nRUN head -c 2000000 /dev/zero > /b\nRUN true\n",
    )
    .unwrap();
    daemon.ok(&["build", "-t", "built:1", context.to_str().unwrap()]);
    daemon.ok(&["rmi", "built:1"]);
    std::fs::write(root.join("content/ingest").join("0".repeat(64)), noise(1 << 20)).unwrap();
    let now = space(&daemon);
    let grown = |kind: &str| now[kind].as_u64().unwrap() - before[kind].as_u64().unwrap();
    for (kind, least, most) in [
        ("Images", 16 << 20, 17 << 20),
        ("Containers", 4_000_000, 4_100_000),
        ("Logs", 1_500_000, 1_800_000),
        ("Volumes", 3_000_000, 3_100_000),
        ("BuildCache", 2_000_000, 2_300_000),
        ("Downloads", 1 << 20, 1_100_000),
    ] {
        let bytes = grown(kind);
        assert!((least..most).contains(&bytes), "{kind} grew by {bytes}: {now}");
    }
    let (told, real) = (now["Total"].as_u64().unwrap(), du(&root));
    assert!(
        told.abs_diff(real) * 100 <= real,
        "{told} told, {real} there: {now}"
    );
    let listed = daemon.ok(&["system", "df", "-v"]);
    assert!(
        listed.contains("Disk space by what it is there for:") && listed.contains("Half downloads"),
        "{listed}"
    );
    // A removal gives the space back before it is told.
    daemon.ok(&["rm", "-f", "-v", "writer"]);
    daemon.ok(&["volume", "rm", "--purge", "kept"]);
    daemon.ok(&["rmi", "big:1"]);
    daemon.ok(&["system", "prune", "-a", "-f"]);
    let left = space(&daemon);
    for kind in [
        "Images",
        "Containers",
        "Logs",
        "Volumes",
        "BuildCache",
        "Downloads",
        "Trash",
    ] {
        let (left, at_first) = (left[kind].as_u64().unwrap(), before[kind].as_u64().unwrap());
        assert!(left <= at_first, "{kind}: {left} left, {at_first} at first");
    }
}

/// Two images, of which one is the other with something changed.
fn load_two(daemon: &Daemon) {
    let base = Tar::default()
        .file("etc/a", &[1; 1000])
        .file("etc/\x1b[31mred", b"x")
        .finish();
    let change = Tar::default()
        .file("etc/a", b"less")
        .file("etc/new", b"n")
        .finish();
    for (name, image) in [
        ("one:1", Image::of(std::slice::from_ref(&base))),
        ("two:1", Image::of(&[base, change])),
    ] {
        let archive = daemon.dir.path().join("image.tar");
        std::fs::write(&archive, image.archive(name)).unwrap();
        daemon.ok(&["load", "-i", &archive.display().to_string()]);
    }
}

/// Somebody moves to the upper layer, looks at what is wasted, and leaves; the terminal is as it was.
#[test]
fn the_inside_of_an_image_is_shown_on_a_terminal() {
    guard!();
    let daemon = Daemon::start();
    load_two(&daemon);
    let line = format!(
        "stty rows 24 cols 100; was=$(stty -g); {BERTH} image explore two:1; code=$?; \
         [ \"$was\" = \"$(stty -g)\" ] && exit $code; exit 99"
    );
    let turns = [
        ("q quit", "j"),
        ("A new (644 0:0 1B)", "w"),
        ("/etc/a of layer 0, replaced in layer 1", "q"),
    ];
    let (code, shown) = typed_in_turn(&daemon, &line, &turns);
    assert_eq!(code, Some(0), "{shown:?}");
    for words in [
        " in 2 layers, 1kB wasted",
        "A a (644 0:0 1kB)",
        "C a (644 0:0 4B)",
    ] {
        assert!(shown.contains(words), "{words}: {shown:?}");
    }
    assert!(
        !shown.contains("\x1b[31m"),
        "control characters of an image: {shown:?}"
    );
    assert!(shown.trim_end().ends_with("\x1b[?25h\x1b[?1049l"), "{shown:?}");
}

#[test]
fn images_are_looked_into_and_compared() {
    guard!();
    let daemon = Daemon::start();
    load_two(&daemon);
    let report = daemon.ok(&["image", "explore", "two:1"]);
    for line in [
        "C /etc/a (644 0:0 4B)",
        "A /etc/new (644 0:0 1B)",
        "1kB  /etc/a of layer 0, replaced in layer 1",
    ] {
        assert!(report.contains(line), "{line}: {report}");
    }
    assert!(
        !report.contains('\x1b'),
        "control characters of an image: {report:?}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&daemon.ok(&["image", "explore", "--format", "json", "two:1"])).unwrap();
    assert_eq!(json["WastedBytes"], 1000);
    assert_eq!(json["Layers"].as_array().unwrap().len(), 2);
    let diff = daemon.ok(&["image", "diff", "one:1", "two:1"]);
    assert!(
        diff.starts_with("1 layers in common\n")
            && diff.ends_with("C /etc/a (644 0:0 4B)\nA /etc/new (644 0:0 1B)\n"),
        "{diff}"
    );
    let same = daemon.ok(&["image", "diff", "one:1", "one:1"]);
    assert_eq!(same, "1 layers in common\n");
    for (args, words) in [
        (vec!["image", "explore", "nosuch:1"], "No such image: nosuch:1"),
        (
            vec!["image", "explore", "--format", "xml", "one:1"],
            "expected text or json",
        ),
        (
            vec!["image", "diff", "one:1", "nosuch:1"],
            "No such image: nosuch:1",
        ),
        (vec!["image", "verify", "one:1"], "no key to verify"),
        (
            vec!["image", "verify", "--key", "/etc/passwd", "one:1"],
            "no public key",
        ),
    ] {
        let (code, said) = daemon.fails(&args);
        assert!(code == 1 && said.contains(words), "{args:?}: {code} {said}");
    }
}

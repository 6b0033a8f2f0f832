//! `prune --dry-run` of every kind: it removes nothing, and says what the same command without it then does.

use crate::support::Daemon;

/// The lines behind a heading, sorted: the order in which things go is nobody's concern.
fn listed(text: &str) -> (Vec<String>, String) {
    let mut items: Vec<String> = Vec::new();
    let mut space = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("Total ") {
            Some(rest) => space = rest.rsplit(": ").next().unwrap().to_owned(),
            None => items.push(line.replace("Would delete", "Deleted")),
        }
    }
    items.sort();
    (items, space)
}

fn rehearsed_and_done(daemon: &Daemon, command: &[&str], expected: &[&str]) {
    let everything = || {
        let names = [
            &["ps", "-a", "--no-trunc", "-q"][..],
            &["images", "-a", "--no-trunc", "-q"],
            &["volume", "ls", "-q"],
            &["network", "ls", "-q"],
            &["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Size}}"],
        ];
        names.map(|words| daemon.ok(words))
    };
    let before = everything();
    let rehearsal = daemon.ok(&[command, &["--dry-run"]].concat());
    assert_eq!(everything(), before, "{command:?} --dry-run changed something");
    assert!(rehearsal.contains("Would delete"), "{rehearsal}");
    for word in expected {
        assert!(rehearsal.contains(word), "{word} in {rehearsal}");
    }
    let done = daemon.ok(&[command, &["--force"]].concat());
    assert_eq!(listed(&rehearsal), listed(&done), "{command:?}");
    assert_ne!(everything(), before, "{command:?} removed nothing");
    let again = daemon.ok(&[command, &["--dry-run"]].concat());
    assert!(!again.contains("Would delete"), "{again}");
}

#[test]
fn a_dry_run_says_what_the_real_one_does() {
    guard!();
    let daemon = Daemon::start();
    // Two images that share a layer: what frees space is what neither of the kept ones has.
    let context = daemon.dir.path().join("context");
    std::fs::create_dir(&context).unwrap();
    let build = |tag: &str, file: &str| {
        std::fs::write(context.join("Dockerfile"), file).unwrap();
        daemon.ok(&["build", "-q", "-t", tag, context.to_str().unwrap()]);
    };
    build("shared:1", "FROM box:1\nRUN head -c 3000000 /dev/zero >/big\n");
    build(
        "unused:1",
        "FROM shared:1\nRUN head -c 2000000 /dev/zero >/more\n",
    );
    daemon.ok(&["run", "--name", "kept", "shared:1", "true"]);
    daemon.ok(&["run", "-d", "--name", "alive", "box:1", "sleep", "100"]);
    daemon.ok(&["volume", "create", "named"]);
    daemon.ok(&[
        "run",
        "--name",
        "ended",
        "-v",
        "/data",
        "box:1",
        "sh",
        "-c",
        "echo x >/data/file",
    ]);
    daemon.ok(&["rm", "ended"]);
    daemon.ok(&["network", "create", "lonely"]);

    rehearsed_and_done(&daemon, &["volume", "prune"], &["Volumes", "reclaimable"]);
    rehearsed_and_done(&daemon, &["volume", "prune", "-a"], &["named"]);
    rehearsed_and_done(&daemon, &["network", "prune"], &["lonely"]);
    rehearsed_and_done(&daemon, &["image", "prune", "-a"], &["untagged: unused:1"]);
    rehearsed_and_done(&daemon, &["container", "prune"], &["Containers"]);
    rehearsed_and_done(&daemon, &["image", "prune", "-a"], &["untagged: shared:1"]);
    rehearsed_and_done(
        &daemon,
        &["builder", "prune", "-a"],
        &["build cache objects", "reclaimable"],
    );

    daemon.ok(&["create", "--name", "last", "box:1", "true"]);
    daemon.ok(&["network", "create", "lonely"]);
    rehearsed_and_done(&daemon, &["system", "prune"], &["Containers", "Networks"]);
    assert_eq!(daemon.ok(&["exec", "alive", "echo", "untouched"]), "untouched\n");
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

#[test]
fn filters_choose_what_goes() {
    guard!();
    let daemon = Daemon::start();
    let context = daemon.dir.path().join("context");
    std::fs::create_dir(&context).unwrap();
    for name in ["aa", "bb", "cc"] {
        let label = format!("tier={name}");
        let labelled = |words: &[&str]| daemon.ok(&[words, &["--label", &label]].concat());
        labelled(&["network", "create", name]);
        labelled(&["volume", "create", name]);
        std::fs::write(context.join("Dockerfile"), format!("FROM box:1\nLABEL {label}\n")).unwrap();
        daemon.ok(&["build", "-q", "-t", name, context.to_str().unwrap()]);
        daemon.ok(&["create", "--name", name, "--label", &label, "box:1", "true"]);
    }
    // Neither it nor its image goes, whatever is asked.
    daemon.ok(&["run", "-d", "--name", "alive", "box:1", "sleep", "1000"]);
    let kinds: [(&[&str], &[&str], &str); 4] = [
        (
            &["container", "prune"],
            &["ps", "-a", "--format", "{{.Names}}"],
            "alive",
        ),
        (
            &["network", "prune"],
            &[
                "network",
                "ls",
                "--filter",
                "type=custom",
                "--format",
                "{{.Name}}",
            ],
            "",
        ),
        (&["volume", "prune", "-a"], &["volume", "ls", "-q"], ""),
        (
            &["image", "prune", "-a"],
            &["images", "--format", "{{.Repository}}"],
            "box",
        ),
    ];
    for (prune, list, always) in kinds {
        let left = || {
            let listed = daemon.ok(list);
            let mut left: Vec<String> = listed.lines().map(str::to_owned).collect();
            left.retain(|name| name != always);
            left.sort();
            left.concat()
        };
        let with = |filter: &'static str| [prune, &["--filter", filter]].concat();
        let (_, said) = daemon.fails(&[&with("colour=red")[..], &["-f"]].concat());
        assert!(said.contains("invalid filter 'colour'"), "{prune:?}: {said}");
        let old = [&with("until=2001-01-01T00:00:00")[..], &["-f"]].concat();
        match prune[0] {
            "volume" => assert!(daemon.fails(&old).1.contains("invalid filter 'until'")),
            _ => drop(daemon.ok(&old)),
        }
        assert_eq!(left(), "aabbcc", "{prune:?}");
        rehearsed_and_done(&daemon, &with("label=tier=aa"), &[]);
        assert_eq!(left(), "bbcc", "{prune:?}");
        rehearsed_and_done(&daemon, &with("label!=tier=bb"), &[]);
        assert_eq!(left(), "bb", "{prune:?}");
        if prune[0] != "volume" {
            rehearsed_and_done(&daemon, &with("until=2100-01-01T00:00:00"), &[]);
            assert_eq!(left(), "", "{prune:?}");
        }
    }
}

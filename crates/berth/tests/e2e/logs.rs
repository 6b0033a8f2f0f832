//! Logs: what is kept of a container's output, where, and what `logs` shows of it.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{BERTH, Daemon, inspect, retry, text};

/// Prints numbered lines, some of them to the other stream.
const COUNT: &str =
    "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); echo error $i >&2; i=$((i+1)); done";

fn count(daemon: &Daemon, name: &str, options: &[&str]) {
    let run = ["run", "--name", name];
    daemon.ok(&[&run[..], options, &["box:1", "sh", "-c", COUNT]].concat());
}

/// Both streams of `logs`, in the order they came.
fn logs(daemon: &Daemon, args: &[&str]) -> Vec<String> {
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("exec {BERTH} logs \"$@\" 2>&1"))
        .arg("logs")
        .args(args)
        .env("DOCKER_HOST", daemon.socket())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {}", text(&output.stdout));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn every_combination_of_options_shows_the_same_lines() {
    guard!();
    let daemon = Daemon::start();
    for (name, options) in [
        ("json", vec![]),
        (
            "json-rotated",
            vec![
                "--log-opt",
                "max-size=5k",
                "--log-opt",
                "max-file=50",
                "--log-opt",
                "compress=true",
            ],
        ),
        ("local", vec!["--log-driver", "local"]),
        (
            "local-rotated",
            vec![
                "--log-driver",
                "local",
                "--log-opt",
                "max-size=4k",
                "--log-opt",
                "max-file=50",
            ],
        ),
    ] {
        count(&daemon, name, &options);
        let all = logs(&daemon, &["-t", name]);
        assert_eq!(all.len(), 400, "{name}");
        let time = |line: &str| line.split_once(' ').unwrap().0.to_owned();
        let plain = |lines: &[String]| -> Vec<String> {
            lines
                .iter()
                .map(|line| line.split_once(' ').unwrap().1.to_owned())
                .collect()
        };
        assert!(all.windows(2).all(|two| time(&two[0]) <= time(&two[1])));
        let mut numbers: Vec<String> = plain(&all);
        numbers.sort();
        numbers.dedup();
        assert_eq!(numbers.len(), 400, "{name}: each line once");
        let (since, until) = (time(&all[100]), time(&all[300]));
        for tail in [None, Some("0"), Some("7"), Some("150"), Some("9999")] {
            for from in [None, Some(since.as_str())] {
                for to in [None, Some(until.as_str())] {
                    let mut args = vec![];
                    let count = tail.map_or(400, |tail| tail.parse::<usize>().unwrap().min(400));
                    args.extend(tail.iter().flat_map(|tail| ["--tail", tail]));
                    args.extend(from.iter().flat_map(|from| ["--since", from]));
                    args.extend(to.iter().flat_map(|to| ["--until", to]));
                    let wanted: Vec<String> = all[400 - count..]
                        .iter()
                        .filter(|line| from.is_none_or(|from| time(line).as_str() >= from))
                        .filter(|line| to.is_none_or(|to| time(line).as_str() <= to))
                        .cloned()
                        .collect();
                    args.push(name);
                    let with_times = [&["-t"], &args[..]].concat();
                    assert_eq!(logs(&daemon, &with_times), wanted, "{args:?}");
                    // Following a container that has ended ends, too.
                    let following = [&["-f"], &args[..]].concat();
                    assert_eq!(logs(&daemon, &following), plain(&wanted), "{following:?}");
                }
            }
        }
    }
}

#[test]
fn details_are_in_the_file_and_before_the_lines() {
    guard!();
    let daemon = Daemon::start();
    let options = [
        "--label",
        "team=a b",
        "--label",
        "com.x=1",
        "-e",
        "FOO=bar",
        "-e",
        "SECRET=no",
        "--log-opt",
        "labels=team",
        "--log-opt",
        "labels-regex=^com",
        "--log-opt",
        "env=FOO",
        "--log-opt",
        "tag={{.Name}}/{{.ImageName}}",
    ];
    let run = |name: &str, driver: &str| {
        daemon.ok(&[
            &["run", "--name", name, "--log-driver", driver],
            &options[..],
            &["box:1", "echo", "hi"],
        ]
        .concat())
    };
    run("one", "json-file");
    let path = inspect(&daemon, "one", "{{.LogPath}}");
    assert!(path.ends_with("-json.log"), "{path}");
    let file = std::fs::read_to_string(&path).unwrap();
    let attributes = r#""attrs":{"FOO":"bar","com.x":"1","tag":"one/box:1","team":"a b"},"#;
    assert!(
        file.starts_with(&format!(
            r#"{{"log":"hi\n","stream":"stdout",{attributes}"time":""#
        )),
        "{file}"
    );
    let wanted = "FOO=bar,com.x=1,tag=NAME%2Fbox%3A1,team=a+b hi";
    assert_eq!(
        logs(&daemon, &["--details", "one"]),
        [wanted.replace("NAME", "one")]
    );
    run("two", "local");
    assert_eq!(inspect(&daemon, "two", "{{.LogPath}}"), "");
    assert_eq!(
        logs(&daemon, &["--details", "two"]),
        [wanted.replace("NAME", "two")]
    );
    let both = logs(&daemon, &["-t", "--details", "two"]).remove(0);
    let (time, rest) = both.split_once(' ').unwrap();
    assert!(time.ends_with('Z') && rest.starts_with("FOO="), "{both}");
    // Without any there is the space alone, as Docker has it.
    daemon.ok(&["run", "--name", "three", "box:1", "echo", "hi"]);
    assert_eq!(logs(&daemon, &["--details", "three"]), [" hi"]);
}

#[test]
fn options_that_make_no_sense_are_refused_before_anything_is_made() {
    guard!();
    let mut daemon = Daemon::start();
    for (args, wanted) in [
        (
            vec!["--log-driver", "nope"],
            "logger: no log driver named 'nope' is registered",
        ),
        (
            vec!["--log-opt", "x=1"],
            "unknown log opt 'x' for json-file log driver",
        ),
        (
            vec!["--log-driver", "local", "--log-opt", "x=1"],
            "unknown log opt 'x' for log driver local",
        ),
        (
            vec!["--log-driver", "gelf"],
            "gelf-address is a required parameter",
        ),
        (vec!["--log-opt", "tag={{.Nope}}"], "{{.Nope}} is not known here"),
    ] {
        let (code, error) = daemon.fails(&[&["create"], &args[..], &["box:1", "true"]].concat());
        assert_eq!(code, 125, "{error}");
        assert!(error.contains(wanted), "{error}");
    }
    assert_eq!(daemon.ok(&["ps", "-aq"]), "");
    let none = [
        "run",
        "--name",
        "quiet",
        "--log-driver",
        "none",
        "box:1",
        "echo",
        "hi",
    ];
    daemon.ok(&none);
    let (_, error) = daemon.fails(&["logs", "quiet"]);
    assert!(
        error.contains("configured logging driver does not support reading"),
        "{error}"
    );
    // The daemon's own defaults are checked when it starts.
    daemon.args = ["--log-driver", "local", "--log-opt", "nope=1"]
        .map(str::to_owned)
        .into();
    let wrong = Command::new(BERTH)
        .args(["daemon", "--validate"])
        .args(&daemon.args)
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    let error = text(&wrong.stderr);
    assert!(
        error.contains("failed to set log opts: unknown log opt 'nope' for log driver local"),
        "{error}"
    );
    daemon.args.clear();
}

#[test]
fn the_daemons_defaults_are_every_containers() {
    guard!();
    let daemon = Daemon::start_with(&["--log-driver", "local", "--log-opt", "max-size=1m"]);
    let format = "{{.HostConfig.LogConfig.Type}} {{json .HostConfig.LogConfig.Config}}";
    daemon.ok(&["create", "--name", "one", "box:1", "true"]);
    assert_eq!(inspect(&daemon, "one", format), r#"local {"max-size":"1m"}"#);
    // Options of the same driver are joined; another driver starts from nothing.
    let same = [
        "create",
        "--name",
        "two",
        "--log-driver",
        "local",
        "--log-opt",
        "max-file=3",
    ];
    daemon.ok(&[&same[..], &["box:1", "true"]].concat());
    assert_eq!(
        inspect(&daemon, "two", format),
        r#"local {"max-file":"3","max-size":"1m"}"#
    );
    daemon.ok(&[
        "create",
        "--name",
        "three",
        "--log-driver",
        "json-file",
        "box:1",
        "true",
    ]);
    assert_eq!(inspect(&daemon, "three", format), "json-file {}");
}

/// The forwarders of a daemon's containers.
fn forwarders(daemon: &Daemon) -> usize {
    let ids = daemon.ok(&["ps", "-aq"]);
    let lines = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(text(&line).replace('\0', " "))
    });
    lines
        .filter(|line| line.contains("log-forwarder") && ids.lines().any(|id| line.contains(id)))
        .count()
}

#[test]
fn a_log_goes_elsewhere_and_can_be_read_here_too() {
    guard!();
    let daemon = Daemon::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("syslog-address=tcp://{}", listener.local_addr().unwrap());
    let accepting = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        BufReader::new(stream)
            .lines()
            .map(Result::unwrap)
            .collect::<Vec<_>>()
    });
    let options = [
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "syslog-format=rfc3164",
        "--log-opt",
        "mode=blocking",
    ];
    count(&daemon, "away", &options);
    let arrived = accepting.join().unwrap();
    assert_eq!(arrived.len(), 400);
    assert_eq!(
        arrived.iter().filter(|line| line.starts_with("<27>")).count(),
        200
    );
    assert!(
        arrived.iter().any(|line| line.ends_with(": line 398")),
        "{arrived:?}"
    );
    assert_eq!(logs(&daemon, &["away"]).len(), 400, "the cache is read");
    let gone = retry(|| (forwarders(&daemon) == 0).then_some(()));
    assert!(gone.is_some(), "a forwarder stays behind");
    let info = daemon.ok(&["info", "--format", "{{json .Plugins.Log}}"]);
    assert_eq!(
        info.trim(),
        r#"["fluentd","gelf","journald","json-file","local","none","syslog"]"#
    );
}

#[test]
fn the_journal_hears_a_container() {
    guard!();
    let daemon = Daemon::start();
    let path = daemon.dir.path().join("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    journal.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let socket = format!("journald-socket={}", path.display());
    let options = [
        "--log-driver",
        "journald",
        "--log-opt",
        &socket,
        "--log-opt",
        "tag=t",
    ];
    daemon.ok(&[
        &["run", "--name", "journal"],
        &options[..],
        &["box:1", "echo", "hello"],
    ]
    .concat());
    let mut buffer = [0; 4096];
    let count = journal.recv(&mut buffer).unwrap();
    let entry = text(&buffer[..count]);
    for field in [
        "MESSAGE=hello",
        "CONTAINER_NAME=journal",
        "CONTAINER_TAG=t",
        "PRIORITY=6",
    ] {
        assert!(entry.lines().any(|line| line == field), "{entry}");
    }
}

#[test]
fn a_container_does_not_start_without_its_collector_and_leaves_nothing() {
    guard!();
    let daemon = Daemon::start();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = format!("fluentd-address={free}");
    let options = ["--log-driver", "fluentd", "--log-opt", &address];
    let run = [&["run", "--rm"], &options[..], &["box:1", "echo", "hi"]].concat();
    let (code, error) = daemon.fails(&run);
    assert_eq!(code, 125, "{error}");
    assert!(
        error.contains("failed to initialize logging driver: dial tcp 127.0.0.1:"),
        "{error}"
    );
    assert_eq!(daemon.ok(&["ps", "-aq"]), "");
    // Asynchronously it does, and what nobody takes stops nothing.
    let options = [&options[..], &["--log-opt", "fluentd-async=true"]].concat();
    // It lives until the trouble is told: what a monitor hears after its container's end, it keeps to itself.
    let run = [
        &["run", "-d", "--name", "alone"],
        &options[..],
        &["box:1", "sh", "-c", "echo hi; sleep 100"],
    ]
    .concat();
    daemon.ok(&run);
    let told = (0..10).find_map(|_| retry(|| daemon.log().contains("log cannot be delivered").then_some(())));
    assert!(told.is_some(), "{}", daemon.log());
    assert_eq!(logs(&daemon, &["alone"]), ["hi"]);
}

#[test]
fn nothing_is_lost_or_doubled_across_rotation_and_the_daemons_death() {
    guard!();
    let mut daemon = Daemon::start();
    let options = [
        "--log-driver",
        "local",
        "--log-opt",
        "max-size=20k",
        "--log-opt",
        "max-file=500",
        "--log-opt",
        "compress=true",
    ];
    let script = "i=0; while [ $i -lt 6000 ]; do echo $i; i=$((i+1)); done; touch /tmp/done; sleep 300";
    daemon.ok(&[
        &["run", "-d", "--name", "counts"],
        &options[..],
        &["box:1", "sh", "-c", script],
    ]
    .concat());
    let mut follower = Command::new(BERTH)
        .args(["logs", "-f", "counts"])
        .env("DOCKER_HOST", daemon.socket())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    for wanted in 0..1000 {
        assert_eq!(lines.next().unwrap().unwrap(), wanted.to_string());
    }
    daemon.crash_and_restart();
    let before = 1000 + lines.map_while(Result::ok).count();
    follower.wait().unwrap();
    let done = retry(|| {
        daemon
            .run(&["exec", "counts", "ls", "/tmp/done"])
            .status
            .success()
            .then_some(())
    });
    assert!(done.is_some());
    let all: Vec<String> = (0..6000).map(|number| number.to_string()).collect();
    assert!(before <= 6000);
    assert_eq!(logs(&daemon, &["counts"]), all);
    // A follower goes on with the next run of the container where the last one ended.
    let mut follower = Command::new(BERTH)
        .args(["logs", "-f", "--tail", "2", "counts"])
        .env("DOCKER_HOST", daemon.socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = follower.stdout.take().unwrap();
    let mut first = [0; 10];
    output.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"5998\n5999\n");
    daemon.ok(&["stop", "-t", "0", "counts"]);
    follower.wait().unwrap();
    daemon.ok(&["start", "counts"]);
    let again = retry(|| (logs(&daemon, &["counts"]).len() >= 12_000).then_some(()));
    assert!(again.is_some(), "the second run's lines follow the first's");
    assert_eq!(logs(&daemon, &["counts"])[6000..], all);
}

#[test]
fn all_logs_together_stay_within_the_budget() {
    guard!();
    let mut daemon = Daemon::start_with(&["--log-budget", "60k"]);
    for name in ["one", "two"] {
        let options = ["--log-opt", "max-size=10k", "--log-opt", "max-file=20"];
        count(&daemon, name, &options);
        count(&daemon, &format!("{name}-more"), &options);
    }
    let total = |daemon: &Daemon| -> u64 {
        let mut total = 0;
        for container in std::fs::read_dir(daemon.dir.path().join("root/containers")).unwrap() {
            for file in std::fs::read_dir(container.unwrap().path()).unwrap() {
                let file = file.unwrap();
                if file.file_name().to_str().unwrap().contains("-json.log") {
                    total += file.metadata().unwrap().len();
                }
            }
        }
        total
    };
    let names = ["one", "one-more", "two", "two-more"];
    let last = |daemon: &Daemon, name: &str| logs(daemon, &[name]).pop();
    let before = names.map(|name| last(&daemon, name));
    daemon.crash_and_restart();
    let within = retry(|| (total(&daemon) <= 60 << 10).then_some(()));
    assert!(within.is_some(), "{} bytes of logs", total(&daemon));
    // The newest line of each is there; which of the two streams it came by is nobody's to say.
    assert!(before.iter().all(Option::is_some), "{before:?}");
    assert_eq!(names.map(|name| last(&daemon, name)), before);
}

/// Bytes that the daemon has read so far, of whatever.
fn read_by(daemon: &Daemon) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/io", daemon.child.id())).unwrap();
    let read = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    read.unwrap().trim().parse().unwrap()
}

/// How long something takes depends on the machine, how much is read for it does not.
#[test]
fn the_last_lines_of_a_gigabyte_are_read_from_the_end() {
    guard!();
    let daemon = Daemon::start();
    let expected: String = (99_991..=100_000).map(|number| format!("{number}\n")).collect();
    for driver in ["json-file", "local"] {
        let options = format!("--log-driver={driver}");
        let count = ["busybox", "seq", "1", "100000"];
        let run = [
            "run",
            "--name",
            driver,
            &options,
            "--log-opt",
            "max-size=-1",
            "--log-opt",
            "max-file=3",
        ];
        daemon.ok(&[&run[..], &["box:1"], &count].concat());
        let id = daemon.ok(&["inspect", "-f", "{{.Id}}", driver]);
        let id = id.trim();
        let log = daemon
            .dir
            .path()
            .join("root/containers")
            .join(id)
            .join(match driver {
                "local" => "local-logs/container.log".to_owned(),
                _ => format!("{id}-json.log"),
            });
        // The same again and again, as entries may be.
        let entries = std::fs::read(&log).unwrap();
        let mut file = std::fs::File::options().append(true).open(&log).unwrap();
        while file.metadata().unwrap().len() < 1 << 30 {
            std::io::Write::write_all(&mut file, &entries).unwrap();
        }
        let tail = |expected: &str| {
            let before = read_by(&daemon);
            assert_eq!(daemon.ok(&["logs", "--tail", "10", driver]), expected, "{driver}");
            let read = read_by(&daemon) - before;
            assert!(read < 1 << 20, "{driver}: {read} bytes were read for ten lines");
        };
        tail(&expected);
        // The same where it was put aside, and the newest file has only some of the lines.
        let mut aside = log.clone().into_os_string();
        aside.push(".1");
        std::fs::rename(&log, &aside).unwrap();
        tail(&expected);
        daemon.ok(&["start", "-a", driver]);
        tail(&expected);
        daemon.ok(&["rm", driver]);
    }
}

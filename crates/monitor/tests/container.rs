//! Real containers under a real monitor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use fixture::{ALL, Box, OUTPUT, PATIENCE, events, frame, frames, program};
use monitor::client::Monitor;
use monitor::protocol::{AttachStreams, Event, ExecRequest, Hello, Response};
use rustix::fs::{CWD, FileType, Mode};
use serde_json::json;
use spec::ErrorClass;
use sys::program::Sealed;

#[test]
fn output_exit_code_log_and_cleanup() {
    let Some(mut container) = Box::new(&["sh", "-c", "echo out; echo err >&2; exit 3"]) else {
        return;
    };
    let (monitor, stream) = container.start_attached(OUTPUT);
    let (stdout, stderr) = frames(&stream);
    assert_eq!((&stdout[..], &stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    let record = container.exit();
    assert_eq!(
        (record.exit_code, record.signal, record.oom_killed),
        (3, None, false)
    );
    assert!(record.finished_at >= record.started_at);
    let log = container.log();
    assert!(
        log.contains("{\"log\":\"out\\n\",\"stream\":\"stdout\",\"time\":\""),
        "{log}"
    );
    assert!(
        log.contains("{\"log\":\"err\\n\",\"stream\":\"stderr\",\"time\":\""),
        "{log}"
    );
    // Late watchers hear of the exit all the same.
    assert_eq!(events(monitor.watch().unwrap()), [Event::Exited(record)]);
    assert_eq!(monitor.kill(15).unwrap_err().class, ErrorClass::Conflict);
    monitor.release().unwrap();
    assert!(!container.socket().exists() && !container.has_group());
    assert_eq!(monitor.state().unwrap_err().class, ErrorClass::Unavailable);
}

/// How many processes are monitors of this id.
fn monitors(id: &str) -> usize {
    let of_monitor = |line: Vec<u8>| {
        let mut words = line.split(|byte| *byte == 0).skip(1);
        words.next() == Some(b"monitor") && words.next() == Some(&id.as_bytes()[..12])
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    let lines = processes.filter_map(|entry| std::fs::read(entry.unwrap().path().join("cmdline")).ok());
    lines.filter(|line| of_monitor(line.clone())).count()
}

#[test]
fn a_monitor_may_stand_before_there_is_something_to_launch() {
    let Some(container) = Box::new(&["sh", "-c", "exit 3"]) else {
        return;
    };
    container.write_config();
    let (program, id) = (Sealed::of(&program()).unwrap(), container.launch.id.clone());
    let stand = |id: &str| {
        let mut standing = Monitor::stand(&program, id).unwrap();
        standing.wait().unwrap();
        assert!(standing.is_there());
        standing
    };
    let standing = stand(&id);
    assert_eq!(monitors(&id), 1);
    let (monitor, _) = standing.launch(&program, &container.launch, &[]).unwrap();
    assert_eq!((container.exit().exit_code, monitors(&id)), (3, 1));
    monitor.release().unwrap();
    container.eventually("its monitor leaves", || monitors(&id) == 0);
    drop(stand(&id));
    container.eventually("one that is not needed leaves", || monitors(&id) == 0);
    let other = stand(&id.chars().rev().collect::<String>());
    assert!(other.launch(&program, &container.launch, &[]).is_err());
}

#[test]
fn an_exit_that_nobody_comes_back_for_is_told_and_not_written() {
    let Some(mut container) = Box::new(&["sh", "-c", "exit 3"]) else {
        return;
    };
    container.launch.records_exit = false;
    let (monitor, stream) = container.start_attached(OUTPUT);
    let _ = frames(&stream);
    let told = events(monitor.watch().unwrap());
    let [Event::Exited(record)] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(record.exit_code, 3);
    monitor.release().unwrap();
    assert!(!container.launch.exit_file.exists());
}

#[test]
fn a_program_that_is_not_there() {
    let Some(container) = Box::new(&["/bin/nosuch"]) else {
        return;
    };
    let failed = container.start().unwrap_err();
    assert_eq!(
        (failed.exit_code, failed.class),
        (Some(127), ErrorClass::Invalid),
        "{failed}"
    );
    assert!(failed.message.contains("no such file or directory"), "{failed}");
    assert!(!container.has_group());
    container.eventually("the socket is gone", || !container.socket().exists());
    assert!(!container.launch.exit_file.exists());
}

#[test]
fn signals_reach_the_process() {
    let script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let Some(mut container) = Box::new(&["sh", "-c", script]) else {
        return;
    };
    let (monitor, stream) = container.start_attached(OUTPUT);
    assert_eq!(frame(&stream), "ready\n");
    monitor.kill(15).unwrap();
    assert_eq!(frames(&stream).0, b"got\n");
    assert_eq!(container.exit().exit_code, 9);
}

#[test]
fn a_kill_is_told_as_137() {
    let Some(container) = Box::new(&["sleep", "1000"]) else {
        return;
    };
    let (monitor, started) = container.start().unwrap();
    let state = monitor.state().unwrap();
    assert_eq!(
        (state.pid, state.started_at, state.exited),
        (started.pid, started.started_at, None)
    );
    assert_eq!(monitor.release().unwrap_err().class, ErrorClass::Conflict);
    let watch = monitor.watch().unwrap();
    monitor.kill(9).unwrap();
    let record = container.exit();
    assert_eq!(
        (record.exit_code, record.signal, record.oom_killed),
        (137, Some(9), false)
    );
    assert_eq!(events(watch), [Event::Exited(record)]);
}

#[test]
fn half_closed_input_ends_the_process_and_its_output_still_comes() {
    let Some(mut container) = Box::new(&["sh", "-c", "cat; echo end"]) else {
        return;
    };
    container.launch.open_stdin = true;
    container.launch.stdin_once = true;
    let (_monitor, mut stream) = container.start_attached(ALL);
    let input = vec![b'x'; 300_000];
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn({
        let input = input.clone();
        move || {
            writer.write_all(&input).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        }
    });
    let (stdout, _) = frames(&stream);
    sender.join().unwrap();
    assert_eq!(stdout.len(), input.len() + 4);
    assert!(stdout.ends_with(b"end\n"));
    assert_eq!(container.exit().exit_code, 0);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn input_stays_open_for_the_next_one() {
    let Some(mut container) = Box::new(&["cat"]) else {
        return;
    };
    container.launch.open_stdin = true;
    let (monitor, mut first) = container.start_attached(ALL);
    first.write_all(b"one\n").unwrap();
    assert_eq!(frame(&first), "one\n");
    drop(first);
    let (mut second, theirs) = UnixStream::pair().unwrap();
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    monitor.attach(ALL, theirs.as_fd()).unwrap();
    drop(theirs);
    second.write_all(b"two\n").unwrap();
    assert_eq!(frame(&second), "two\n");
    assert!(monitor.state().unwrap().exited.is_none());
}

#[test]
fn without_open_stdin_there_is_none() {
    let Some(mut container) = Box::new(&["sh", "-c", "cat; echo end"]) else {
        return;
    };
    let (_monitor, stream) = container.start_attached(ALL);
    assert_eq!(frames(&stream).0, b"end\n");
}

#[test]
fn a_terminal_has_the_asked_size_and_is_resized() {
    let script = "stty size; read x; stty size; echo $x; exit 5";
    let Some(mut container) = Box::new(&["sh", "-c", script]) else {
        return;
    };
    container.launch.tty = true;
    container.launch.open_stdin = true;
    container.launch.console_size = Some((40, 100));
    let (monitor, mut stream) = container.start_attached(ALL);
    let mut first = [0u8; 8];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"40 100\r\n");
    monitor.resize(50, 120).unwrap();
    stream.write_all(b"hello\n").unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "hello\r\n50 120\r\nhello\r\n");
    assert_eq!(container.exit().exit_code, 5);
    assert!(
        container
            .log()
            .contains("{\"log\":\"50 120\\r\\n\",\"stream\":\"stdout\"")
    );
}

/// More than a socket and the monitor together keep for a listener.
const MORE_THAN_IS_KEPT: usize = 96 << 20;

fn wordy(start: &str) -> String {
    format!(
        "{start}; yes 'a line of some length that is said again and again' | head -c {MORE_THAN_IS_KEPT}; exit 3"
    )
}

#[test]
fn the_process_waits_for_a_slow_consumer_who_gets_everything() {
    let Some(mut container) = Box::new(&["sh", "-c", &wordy("true")]) else {
        return;
    };
    container.launch.log = monitor::log::LogConfig::none();
    let (monitor, stream) = container.start_attached(OUTPUT);
    let watch = monitor.watch().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let (stdout, stderr) = frames(&stream);
    assert_eq!(stdout.len(), MORE_THAN_IS_KEPT);
    assert!(stderr.is_empty());
    assert!(matches!(events(watch)[..], [Event::Exited(_)]));
}

#[test]
fn nobody_waits_for_a_listener_who_came_later_and_it_is_told_what_it_misses() {
    let Some(mut container) = Box::new(&["sh", "-c", &wordy("read go")]) else {
        return;
    };
    container.launch.log = monitor::log::LogConfig::none();
    container.launch.open_stdin = true;
    let (monitor, mut first) = container.start_attached(ALL);
    let (silent, theirs) = UnixStream::pair().unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    monitor.attach(OUTPUT, theirs.as_fd()).unwrap();
    drop(theirs);
    let watch = monitor.watch().unwrap();
    first.write_all(b"go\n").unwrap();
    let first = std::thread::spawn(move || frames(&first));
    // It ends although one of two has taken nothing.
    let (stdout, stderr) = first.join().unwrap();
    assert_eq!((stdout.len(), stderr.len()), (MORE_THAN_IS_KEPT, 0));
    assert_eq!(container.exit().exit_code, 3);
    let (stdout, stderr) = frames(&silent);
    assert!(stdout.len() > 64 << 20);
    let missing = MORE_THAN_IS_KEPT - stdout.len();
    let word =
        format!("berth: {missing} bytes of output are missing here, since this client did not take them\r\n");
    assert_eq!(String::from_utf8(stderr).unwrap(), word);
    let told = events(watch);
    assert!(
        matches!(told[..], [Event::ListenerBehind, Event::Exited(_)]),
        "{told:?}"
    );
}

fn exec(id: &str, args: &[&str], streams: Option<AttachStreams>) -> ExecRequest {
    let process = json!({ "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    ExecRequest {
        exec_id: id.to_owned(),
        process: serde_json::from_value(process).unwrap(),
        tty: false,
        streams,
        console_size: None,
        note: None,
    }
}

#[test]
fn additional_processes() {
    let Some(container) = Box::new(&["sleep", "1000"]) else {
        return;
    };
    let (monitor, _) = container.start().unwrap();
    let watch = monitor.watch().unwrap();
    let attached = |request: &ExecRequest| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        monitor.exec(request, Some(theirs.as_fd())).map(|_| ours)
    };
    let stream = attached(&exec(
        "one",
        &["sh", "-c", "echo out; echo err >&2; exit 6"],
        Some(OUTPUT),
    ))
    .unwrap();
    let (stdout, stderr) = frames(&stream);
    assert_eq!((&stdout[..], &stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(monitor.exec_state("one").unwrap().exit_code, Some(6));

    let mut stream = attached(&exec("two", &["cat"], Some(ALL))).unwrap();
    stream.write_all(b"through\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(frames(&stream).0, b"through\n");

    monitor
        .exec(&exec("three", &["sleep", "1000"], None), None)
        .unwrap();
    assert_eq!(monitor.state().unwrap().execs, ["three"]);
    monitor.exec_kill("three", 9).unwrap();
    container.eventually("three ended", || {
        monitor.exec_state("three").unwrap().exit_code == Some(137)
    });

    let failed = attached(&exec("four", &["/bin/nosuch"], Some(OUTPUT))).unwrap_err();
    assert_eq!(failed.exit_code, Some(127), "{failed}");
    assert_eq!(
        monitor.exec_state("nobody").unwrap_err().class,
        ErrorClass::NotFound
    );

    // What an exec leaves behind does not hold up who waits for it.
    let stream = attached(&exec(
        "five",
        &["sh", "-c", "sleep 1000 & echo left"],
        Some(OUTPUT),
    ))
    .unwrap();
    assert_eq!(frames(&stream).0, b"left\n");

    let mut tty = exec("six", &["sh", "-c", "stty size; exit 4"], Some(ALL));
    tty.tty = true;
    tty.console_size = Some((24, 90));
    let mut stream = attached(&tty).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "24 90\r\n");

    monitor.kill(9).unwrap();
    let told = events(watch);
    let codes: Vec<(&str, i32)> = told
        .iter()
        .filter_map(|event| match event {
            Event::ExecExited { exec_id, exit_code } => Some((exec_id.as_str(), *exit_code)),
            _ => None,
        })
        .collect();
    assert_eq!(
        codes,
        [("one", 6), ("two", 0), ("three", 137), ("five", 0), ("six", 4)]
    );
    assert!(matches!(told.last(), Some(Event::Exited(_))));
}

/// A daemon that comes later learns of all that run, of the last of those that have ended, and whether anybody has heard of
/// that.
#[test]
fn additional_processes_are_known_to_whoever_comes_later() {
    let Some(container) = Box::new(&["sleep", "1000"]) else {
        return;
    };
    let (monitor, _) = container.start().unwrap();
    let start = |id: &str, args: &[&str], note: Option<String>| {
        let request = ExecRequest {
            note,
            ..exec(id, args, None)
        };
        monitor.exec(&request, None).unwrap()
    };
    let ended = |id: &str| monitor.exec_state(id).unwrap().exit_code.is_some();
    let watch = monitor.watch().unwrap();
    start("heard", &["sh", "-c", "exit 3"], Some("first".to_owned()));
    container.eventually("the first has ended", || ended("heard"));
    // The end of the stream is known before what is asked next.
    drop(watch);
    let pid = start("runs", &["sleep", "1000"], Some("x".repeat(100_000)));
    start("unheard", &["sh", "-c", "exit 4"], None);
    container.eventually("the last has ended", || ended("unheard"));
    let known = monitor.execs().unwrap();
    let short: Vec<_> = known
        .iter()
        .map(|exec| (exec.exec_id.as_str(), exec.exit_code, exec.told))
        .collect();
    assert_eq!(
        short,
        [
            ("heard", Some(3), true),
            ("runs", None, false),
            ("unheard", Some(4), false)
        ]
    );
    assert_eq!(known[0].note.as_deref(), Some("first"));
    assert_eq!(known[1].note.as_ref().map(String::len), Some(100_000));
    assert_eq!((known[1].pid, known[2].note.as_deref()), (pid, None));
    // Told once.
    assert!(monitor.execs().unwrap()[2].told);
    monitor.kill(9).unwrap();
}

#[test]
fn orphans_are_reaped_and_everything_ends_with_the_first_process() {
    // In the host's pid namespace nothing but the cgroup holds the container's processes together.
    let script = "(sleep 1000 &) ; (sleep 1000 &) ; echo ready; sleep 0.1; exit 2";
    let Some(mut container) = Box::new(&["sh", "-c", script]) else {
        return;
    };
    let namespaces: Vec<_> = ["mount", "ipc", "uts", "network"]
        .iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    container.config["linux"]["namespaces"] = json!(namespaces);
    let (monitor, stream) = container.start_attached(OUTPUT);
    assert_eq!(frame(&stream), "ready\n");
    assert_eq!(container.exit().exit_code, 2);
    assert!(matches!(events(monitor.watch().unwrap())[..], [Event::Exited(_)]));
    let pid = monitor.state().unwrap().monitor_pid;
    monitor.release().unwrap();
    assert!(!container.has_group());
    container.eventually("the monitor is gone", || {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    });
}

#[test]
fn running_out_of_memory_is_told() {
    let Some(mut container) = Box::new(&["sh", "-c", "a=x; while :; do a=$a$a; done"]) else {
        return;
    };
    container.config["linux"]["resources"] = json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } });
    let (monitor, _) = container.start().unwrap();
    let told = events(monitor.watch().unwrap());
    let record = container.exit();
    assert_eq!((record.exit_code, record.oom_killed), (137, true), "{told:?}");
    assert!(record.peak_memory.unwrap() > 8 << 20);
    assert!(matches!(told.last(), Some(Event::Exited(_))));
}

#[test]
fn the_container_outlives_its_launcher() {
    let script = "echo before; sleep 0.3; echo after; exit 11";
    let Some(container) = Box::new(&["sh", "-c", script]) else {
        return;
    };
    container.write_config();
    let file = container.root.path().join("launch.json");
    std::fs::write(&file, serde_json::to_vec(&container.launch).unwrap()).unwrap();
    let output = Command::new(program()).arg("launch").arg(&file).output().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&output.status),
        Some(9)
    );
    let pid: i32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    let monitor = Monitor::connect(&container.launch.run_dir, &container.launch.id).unwrap();
    let state = monitor.state().unwrap();
    assert_eq!(state.pid, pid);
    // Its own session, and a title that says whose it is.
    let title = std::fs::read_to_string(format!("/proc/{}/cmdline", state.monitor_pid)).unwrap();
    assert!(
        title.ends_with(&format!("monitor\0{}\0", &container.launch.id[..12])),
        "{title:?}"
    );
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", state.monitor_pid)).unwrap();
    let session: i32 = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(3)
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(session, state.monitor_pid);
    assert_eq!(container.exit().exit_code, 11);
    let log = container.log();
    assert!(log.contains("before") && log.contains("after"), "{log}");
}

#[test]
fn nobody_needs_to_say_goodbye() {
    let Some(mut container) = Box::new(&["true"]) else {
        return;
    };
    container.launch.log = monitor::log::LogConfig::none();
    let (monitor, _) = container.start().unwrap();
    container.exit();
    container.eventually("the monitor left by itself", || monitor.state().is_err());
    assert!(!container.socket().exists() && !container.has_group());
}

/// A configuration that nobody writes stands for a disk or a server that does not answer.
#[test]
fn a_start_that_takes_too_long_is_given_up_with_its_monitor() {
    let Some(container) = Box::new(&["sleep", "1000"]) else {
        return;
    };
    let config = container.launch.bundle.join("config.json");
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, &config, FileType::Fifo, mode, 0).unwrap();
    let program = Sealed::of(&program()).unwrap();
    let patience = Duration::from_secs(1);
    let failed = Monitor::launch_within(patience, &program, &container.launch, &[]).unwrap_err();
    assert_eq!(
        failed.message,
        "the container was not up within 1 s, and its start was given up"
    );
    let (run_dir, id) = (&container.launch.run_dir, &container.launch.id);
    assert!(!Monitor::is_there(run_dir, id), "its monitor goes on");
    // What it left does not stand in the way of the next one.
    fs::remove_file(&config).unwrap();
    Monitor::forget(run_dir, id).unwrap();
    let (monitor, _) = container.start().unwrap();
    monitor.kill(9).unwrap();
    assert_eq!(container.exit().exit_code, 137);
}

#[test]
fn a_second_monitor_for_the_same_container_is_refused() {
    let Some(container) = Box::new(&["sleep", "1000"]) else {
        return;
    };
    let (monitor, _) = container.start().unwrap();
    let failed = container.start().unwrap_err();
    assert!(failed.message.contains("control socket"), "{failed}");
    assert!(monitor.state().unwrap().exited.is_none());
}

#[test]
fn words_of_a_later_release_are_refused_and_the_conversation_goes_on() {
    let Some(container) = Box::new(&["sleep", "1000"]) else {
        return;
    };
    let (_monitor, started) = container.start().unwrap();
    let mut stream = UnixStream::connect(container.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"{\"dance\":{\"on\":\"ice\"}}\n\"state\"\n\"watch\"\n{]\n")
        .unwrap();
    let mut said = String::new();
    // Nonsense ends it.
    stream.read_to_string(&mut said).unwrap();
    let answers: Vec<Response> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [
        Response::Failed(unknown),
        Response::State(state),
        Response::Watching(hello),
        Response::Failed(nonsense),
    ] = &answers[..]
    else {
        panic!("{said}");
    };
    assert_eq!(unknown.class(), ErrorClass::NotImplemented);
    assert_eq!(state.pid, started.pid);
    assert_eq!(*hello, Hello::own());
    assert_eq!(nonsense.class(), ErrorClass::Invalid);
}

#[test]
fn nothing_is_held_open_for_processes_that_have_ended() {
    let Some(container) = Box::new(&["sleep", "1000"]) else {
        return;
    };
    let (monitor, _) = container.start().unwrap();
    let pid = monitor.state().unwrap().monitor_pid;
    let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let run = |name: &str| {
        monitor.exec(&exec(name, &["true"], None), None).unwrap();
        container.eventually("it has ended", || !monitor.exec_state(name).unwrap().running);
    };
    // What execs inherit is opened for the first of them, and stays.
    run("first");
    let before = open();
    for number in 0..20 {
        run(&format!("e{number}"));
    }
    container.eventually("their descriptors are gone", || open() <= before);
    assert_eq!(monitor.exec_state("e0").unwrap().exit_code, Some(0));
    assert_eq!(
        monitor.exec_kill("e0", 9).unwrap_err().class(),
        ErrorClass::Conflict
    );
}

#[test]
fn an_idle_monitor_is_small() {
    let Some(container) = Box::new(&["sleep", "1000"]) else {
        return;
    };
    let (monitor, _) = container.start().unwrap();
    let pid = monitor.state().unwrap().monitor_pid;
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let anonymous = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss_Anon:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .unwrap();
    println!("{rollup}");
    assert!(anonymous < 512, "{anonymous} KiB of its own");
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(open < 16, "{open} descriptors");
}

/// A published port of the container is a socket that the monitor was given; the container is a server of this host here.
#[test]
fn published_ports_are_served_from_the_start_to_the_end() {
    let Some(mut container) = Box::new(&["sleep", "100"]) else {
        return;
    };
    let Ok(socket) = TcpListener::bind("[::1]:0") else {
        println!("skipped: the host has no IPv6");
        return;
    };
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let SocketAddr::V6(host) = socket.local_addr().unwrap() else {
        unreachable!()
    };
    let port = |host| relay::Port {
        transport: relay::Transport::Tcp,
        host,
        target: Some(server.local_addr().unwrap()),
    };
    container.launch.relay = vec![port(host)];
    container.write_config();
    let program = Sealed::of(&program()).unwrap();
    let (monitor, _) = Monitor::launch(&program, &container.launch, &[socket.as_fd()]).unwrap();
    drop(socket);
    let watch = monitor.watch().unwrap();
    let served = |at: SocketAddrV6| {
        let mut client = TcpStream::connect(at).unwrap();
        let (mut answering, _) = server.accept().unwrap();
        answering.write_all(b"served").unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"served");
        (client, answering)
    };
    let (mut client, _answering) = served(host);
    // One more, for which a socket comes, and one for which none does.
    let more = TcpListener::bind("[::1]:0").unwrap();
    let SocketAddr::V6(second) = more.local_addr().unwrap() else {
        unreachable!()
    };
    let unknown = "[::1]:1".parse().unwrap();
    monitor
        .relay(&[port(host), port(unknown), port(second)], &[(2, more.as_fd())])
        .unwrap();
    drop(more);
    for at in [host, second] {
        served(at);
    }
    let failed = monitor.relay(&[port(host), port(second)], &[(0, watch.as_fd())]);
    assert!(failed.is_err(), "that is no socket that listens for clients");
    served(second);
    monitor.relay(&[port(second)], &[]).unwrap();
    served(second);
    monitor.kill(9).unwrap();
    let told = events(watch);
    assert!(matches!(told.last(), Some(Event::Exited(_))), "{told:?}");
    // Whoever hears of the end may have the ports, and clients are not left waiting.
    drop(TcpListener::bind(second).unwrap());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    match client.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("left waiting: {other:?}"),
    }
    let closed = monitor.relay(&[port(second)], &[]).unwrap_err();
    assert_eq!(closed.class, ErrorClass::Conflict);
    monitor.release().unwrap();
}

//! What a process inside a container sees.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use runtime::{LaunchError, Stdio};
use spec::runtime::{Mount, Rlimit};
use support::{Bundle, captured, finish, possible};
use sys::process::Exit;

fn bind(source: &std::path::Path, destination: &str, options: &[&str]) -> Mount {
    Mount {
        destination: PathBuf::from(destination),
        r#type: Some("bind".to_owned()),
        source: Some(source.display().to_string()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

#[test]
fn a_program_runs_and_its_output_and_code_come_back() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let (text, exit) = bundle.shell("echo hello; echo pid $$; exit 7").run().unwrap();
    assert_eq!(text, "hello\npid 1\n");
    assert_eq!(exit, Exit::Code(7));
    let (_, exit) = bundle.shell("(sleep 0.01; kill -9 $$) & wait").run().unwrap();
    assert_eq!(
        exit,
        Exit::Code(0),
        "process 1 does not die of a signal from inside"
    );
}

#[test]
fn every_namespace_is_its_own() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let script = "for n in mnt net uts pid ipc cgroup time; do readlink /proc/self/ns/$n; done";
    let inside = bundle.shell_output(script);
    for line in inside.lines() {
        let name = line.split(':').next().unwrap();
        let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(host.to_str().unwrap(), line);
    }
    assert_eq!(inside.lines().count(), 7);
}

#[test]
fn rights_are_the_configured_ones() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    bundle.linux().seccomp = Some(runtime::default_seccomp(&runtime::template::DEFAULT_CAPABILITIES));
    let text = bundle.shell_output("grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status");
    let caps = "00000000a80425fb";
    for line in [
        "CapInh:\t0000000000000000".to_owned(),
        format!("CapPrm:\t{caps}"),
        format!("CapEff:\t{caps}"),
        format!("CapBnd:\t{caps}"),
        "CapAmb:\t0000000000000000".to_owned(),
        "NoNewPrivs:\t0".to_owned(),
        "Seccomp:\t2".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} not in {text}");
    }
    // The filter: new namespaces are refused, ordinary work goes on.
    let (text, exit) = bundle
        .shell("unshare -m true && echo made; echo still")
        .run()
        .unwrap();
    assert!(
        exit == Exit::Code(0) && text.contains("still") && !text.contains("made"),
        "{text}"
    );

    bundle.process().no_new_privileges = true;
    bundle.process().user.uid = 33;
    bundle.process().user.gid = 44;
    bundle.process().user.additional_gids = vec![7];
    let text =
        bundle.shell_output("id -u; id -G; echo $HOME; grep -E '^(CapEff|CapPrm|NoNew)' /proc/self/status");
    assert!(text.starts_with("33\n44 7\n/var/www\n"), "{text}");
    assert!(
        text.contains("NoNewPrivs:\t1") && text.contains("CapEff:\t0000000000000000"),
        "{text}"
    );
}

#[test]
fn hidden_and_read_only_paths() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let text = bundle.shell_output(
        "wc -c < /proc/keys; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic || echo refused; \
         echo 1 > /proc/sysrq-trigger || echo refused; mkdir /sys/x || echo refused",
    );
    assert_eq!(text.lines().next().unwrap().trim(), "0");
    assert_eq!(text.matches("refused").count(), 3, "{text}");

    bundle.spec.root.as_mut().unwrap().readonly = true;
    let text = bundle.shell_output("touch /x 2>/dev/null || echo read-only; touch /dev/shm/x && echo shm");
    assert_eq!(text, "read-only\nshm\n");
}

#[test]
fn devices_and_links() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let text = bundle.shell_output(
        "ls /dev | sort; stat -c '%n %t:%T %a' /dev/null /dev/tty; readlink /dev/fd; readlink /dev/ptmx",
    );
    for name in [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ] {
        assert!(text.lines().any(|line| line == name), "{name} not in {text}");
    }
    assert!(
        text.contains("/dev/null 1:3 666") && text.contains("/proc/self/fd\npts/ptmx"),
        "{text}"
    );
}

#[test]
fn names_environment_directory_and_limits() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    bundle.spec.hostname = "probe".to_owned();
    let process = bundle.process();
    process.cwd = "/made/here".to_owned();
    process.env.push("A=b c".to_owned());
    process.rlimits.push(Rlimit {
        r#type: "RLIMIT_NOFILE".to_owned(),
        soft: 77,
        hard: 99,
    });
    bundle
        .linux()
        .sysctl
        .insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
    let text = bundle.shell_output(
        "hostname; pwd; echo $A; ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /proc/self/fd",
    );
    assert!(
        text.starts_with("probe\n/made/here\nb c\n77\n99\n0\n0\n1\n2\n3\n"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 10, "a descriptor leaked: {text}");
}

/// Without limits it waits for nobody, so a failure may be told before its caller knows of it.
#[test]
fn an_additional_process_has_its_limits_and_its_score_and_tells_why_it_fails() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let (stdio, output) = captured();
    let first = bundle.shell("sleep 100").create(stdio).unwrap();
    let first = first.start().unwrap();
    let mut process = bundle.spec.process.clone().unwrap();
    let exec = |process: &spec::runtime::Process| {
        let (stdio, output) = captured();
        let exec = runtime::Exec::new(first.pid, first.pidfd.as_fd(), process, stdio);
        runtime::exec(exec).map(|running| finish(running.pidfd, output).0)
    };
    process.oom_score_adj = Some(321);
    process.args = ["sh", "-c", "cat /proc/self/oom_score_adj; ulimit -n"]
        .map(str::to_owned)
        .into();
    assert!(exec(&process).unwrap().starts_with("321\n"));
    process.rlimits.push(Rlimit {
        r#type: "RLIMIT_NOFILE".to_owned(),
        soft: 77,
        hard: 99,
    });
    assert_eq!(exec(&process).unwrap(), "321\n77\n");
    process.args = vec!["nosuch".to_owned()];
    for number in 0..40 {
        if number == 20 {
            process.rlimits.clear();
        }
        assert_eq!(exec(&process).unwrap_err().exit_code(), 127);
    }
    sys::process::send_signal(first.pidfd.as_fd(), 9).unwrap();
    finish(first.pidfd, output);
}

#[test]
fn programs_that_cannot_run() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    fs::write(bundle.root().join("bin/foreign"), "\x7fELF nonsense").unwrap();
    fs::write(bundle.root().join("bin/script"), "#!/no/interpreter\n").unwrap();
    fs::write(bundle.root().join("bin/plain"), "").unwrap();
    for name in ["foreign", "script"] {
        let path = bundle.root().join("bin").join(name);
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut fails = |program: &str| {
        let error = bundle.args(&[program]).run().unwrap_err();
        (error.to_string(), error.exit_code())
    };
    assert_eq!(
        fails("nosuch"),
        (
            r#"exec: "nosuch": executable file not found in $PATH"#.to_owned(),
            127
        )
    );
    assert_eq!(
        fails("/no"),
        (
            r#"exec: "/no": stat /no: no such file or directory"#.to_owned(),
            127
        )
    );
    assert_eq!(fails("/etc"), (r#"exec: "/etc": is a directory"#.to_owned(), 126));
    assert_eq!(
        fails("/bin/plain"),
        (r#"exec: "/bin/plain": permission denied"#.to_owned(), 126)
    );
    let (text, code) = fails("foreign");
    assert!(text.contains("exec format error") && code == 126, "{text}");
    let (text, code) = fails("script");
    assert!(
        text.contains("no such file or directory") && code == 127,
        "{text}"
    );
}

#[test]
fn mounts_with_their_options() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("file"), "from the host").unwrap();
    let ro = bind(data.path(), "/deep/er/data", &["rbind", "rprivate", "ro"]);
    let file = bind(
        &data.path().join("file"),
        "/etc/one",
        &["bind", "nosuid", "nodev", "noexec"],
    );
    let tmp = Mount {
        destination: PathBuf::from("/etc2"),
        r#type: Some("tmpfs".to_owned()),
        source: Some("tmpfs".to_owned()),
        options: ["tmpcopyup", "size=1m", "noatime"].map(str::to_owned).to_vec(),
        ..Mount::default()
    };
    fs::create_dir(bundle.root().join("etc2")).unwrap();
    fs::write(bundle.root().join("etc2/kept"), "copied").unwrap();
    bundle.spec.mounts.extend([ro, file, tmp]);
    let text = bundle.shell_output(
        "cat /deep/er/data/file /etc/one /etc2/kept; echo; touch /deep/er/data/x 2>/dev/null || echo ro; \
         touch /etc2/x && echo rw; cat /proc/self/mountinfo",
    );
    assert!(
        text.starts_with("from the hostfrom the hostcopied\nro\nrw\n"),
        "{text}"
    );
    assert!(text.contains("/etc/one rw,nosuid,nodev,noexec"), "{text}");
    assert!(
        text.lines().any(|line| line.contains(" /etc2 rw,noatime")),
        "{text}"
    );
    assert!(!bundle.root().join("etc2/x").exists());
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!host.contains(bundle.path().to_str().unwrap()));
}

#[test]
fn links_in_the_image_lead_nowhere_else() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let outside = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    symlink(outside.path(), bundle.root().join("out")).unwrap();
    symlink("../../../../../../etc", bundle.root().join("up")).unwrap();
    bundle
        .spec
        .mounts
        .push(bind(data.path(), "/out/made", &["rbind"]));
    bundle.spec.mounts.push(bind(data.path(), "/up/made", &["rbind"]));
    bundle.shell_output("test -d /etc/made");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(!std::path::Path::new("/etc/made").exists());

    let mut bundle = Bundle::new();
    fs::remove_dir(bundle.root().join("proc")).unwrap();
    symlink("/tmp", bundle.root().join("proc")).unwrap();
    let error = bundle.shell("true").run().unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");

    let mut bundle = Bundle::new();
    bundle
        .spec
        .mounts
        .push(bind(data.path(), "/proc/sys", &["rbind"]));
    let error = bundle.shell("true").run().unwrap_err();
    assert!(error.to_string().contains("inside /proc"), "{error}");
}

#[test]
fn a_file_over_a_directory_is_told() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let data = tempfile::NamedTempFile::new().unwrap();
    bundle.spec.mounts.push(bind(data.path(), "/etc", &["bind"]));
    let error = bundle.shell("true").run().unwrap_err();
    assert!(matches!(error, LaunchError::Mount { .. }));
    assert!(
        error
            .to_string()
            .contains("not a directory: Are you trying to mount"),
        "{error}"
    );
    bundle.spec.mounts.pop();
    bundle
        .spec
        .mounts
        .push(bind("/no/such/source".as_ref(), "/x", &["bind"]));
    let error = bundle.run().unwrap_err();
    assert!(error.to_string().contains("no such file or directory"), "{error}");
}

#[test]
fn a_terminal_of_the_containers_own() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    bundle.process().console_size = Some(spec::runtime::ConsoleSize {
        height: 33,
        width: 101,
    });
    bundle.shell("tty; stty size; test -c /dev/console && echo console; exit 3");
    let mut created = bundle.create(Stdio::Terminal).unwrap();
    let master = created.terminal().unwrap();
    let running = created.start().unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 512];
    // The end of a terminal is an error (EIO) to its reader.
    while let Ok(count) = rustix::io::read(&master, &mut buffer) {
        if count == 0 {
            break;
        }
        text.extend_from_slice(&buffer[..count]);
    }
    let exit = sys::process::wait(running.pidfd.as_fd()).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&text),
        "/dev/pts/0\r\n33 101\r\nconsole\r\n"
    );
    assert_eq!(exit, Exit::Code(3));
}

#[test]
fn an_unstarted_container_leaves_nothing() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let (stdio, _output) = captured();
    let created = bundle.shell("true").create(stdio).unwrap();
    let pid = created.pid();
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());
    drop(created);
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
}

#[test]
fn a_further_process_joins() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let (stdio, first_output) = captured();
    let first = bundle
        .shell("echo $HOME; sleep 100")
        .create(stdio)
        .unwrap()
        .start()
        .unwrap();
    let run = |args: &[&str]| {
        let mut process = bundle.spec.process.clone().unwrap();
        process.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (stdio, output) = captured();
        let running = runtime::exec(runtime::Exec::new(
            first.pid,
            first.pidfd.as_fd(),
            &process,
            stdio,
        ))?;
        Ok::<_, LaunchError>(finish(running.pidfd, output))
    };
    let script = "hostname; for n in mnt net uts pid ipc time; do readlink /proc/self/ns/$n; readlink /proc/1/ns/$n; done; \
                  grep CapEff /proc/self/status; ls /proc/self/fd | wc -l; exit 9";
    let (text, exit) = run(&["sh", "-c", script]).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], exit), ("berth", Exit::Code(9)));
    for pair in lines[1..13].chunks(2) {
        assert_eq!(pair[0], pair[1]);
    }
    assert!(
        text.contains("00000000a80425fb") && lines[14].trim() == "4",
        "{text}"
    );
    let error = run(&["nosuch"]).unwrap_err();
    assert_eq!(error.exit_code(), 127);
    sys::process::send_signal(first.pidfd.as_fd(), 9).unwrap();
    let (_, exit) = finish(first.pidfd, first_output);
    assert_eq!(exit, Exit::Signal(9));
}

#[test]
fn a_user_namespace_with_mapped_ids() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let map = spec::runtime::IdMapping {
        container_id: 0,
        host_id: 200_000,
        size: 65_536,
    };
    let linux = bundle.linux();
    linux.uid_mappings = vec![map];
    linux.gid_mappings = vec![map];
    linux.namespaces.push(spec::runtime::Namespace {
        r#type: spec::runtime::NamespaceType::User,
        path: None,
    });
    // The image's files belong to an unmapped root; what the runtime must make itself is there already.
    let text = bundle.shell_output("id -u; cat /proc/self/uid_map; test -c /dev/null && echo null; hostname");
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "200000", "65536", "null", "berth"]);
}

#[test]
fn an_overlay_root_is_seen_only_inside() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let layers = tempfile::tempdir().unwrap();
    for name in ["upper", "work"] {
        fs::create_dir(layers.path().join(name)).unwrap();
    }
    let overlay = sys::mount::Overlay {
        lower: vec![bundle.root()],
        upper: Some(layers.path().join("upper")),
        work: Some(layers.path().join("work")),
        read_only: false,
        ..sys::mount::Overlay::default()
    };
    bundle.shell("echo new > /tmp/file; cat /tmp/file");
    let (stdio, output) = captured();
    let root = runtime::RootFs::Overlay(&overlay);
    let launch = runtime::Launch::new("overlay", bundle.path(), &bundle.spec, root, stdio);
    let running = runtime::create(launch).unwrap().start().unwrap();
    assert_eq!(finish(running.pidfd, output), ("new\n".to_owned(), Exit::Code(0)));
    assert_eq!(
        fs::read_to_string(layers.path().join("upper/tmp/file")).unwrap(),
        "new\n"
    );
    assert!(!bundle.root().join("tmp/file").exists());
}

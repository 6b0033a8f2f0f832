//! Volumes on an NFS server. It is one of the test's own, so these tests run only on a machine of their own, whose kernel has
//! the server and the client: `cargo xtask test --vm nfs`.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::inventory::Inventory;
use crate::support::{Daemon, becomes, host, inspect, own_machine, retry};

const ADDRESS: &str = "127.0.0.1";
const HOSTS: &str = "/etc/hosts";
/// Where the server is asked for its services, for files, and for what it exports.
const PORTS: [u16; 3] = [111, 2049, 20_048];

/// The machine's NFS server with one directory to share.
struct Server {
    dir: tempfile::TempDir,
    helpers: Vec<Child>,
}

impl Server {
    /// Nothing, with the reason printed, where there can be none.
    fn start() -> Option<Server> {
        if let Err(reason) = own_machine("starts an NFS server") {
            println!("skipped: {reason}");
            return None;
        }
        if !Path::new("/usr/sbin/rpc.nfsd").exists() {
            println!("skipped: needs an NFS server (package nfs-kernel-server)");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("berth-nfs-").tempdir().unwrap();
        let mut server = Server {
            dir,
            helpers: Vec::new(),
        };
        std::fs::create_dir(server.shared()).unwrap();
        std::fs::write(server.shared().join("seed"), "of the server\n").unwrap();
        sh("modprobe nfsd && mkdir -p /run/rpcbind /var/lib/nfs/v4recovery");
        sh("mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd");
        server.help("rpcbind", &["-f"], PORTS[0]);
        let options = "rw,no_root_squash,no_subtree_check,insecure,fsid=7";
        sh(&format!(
            "exportfs -o {options} '*:{}'",
            server.shared().display()
        ));
        // Files can be opened once the time is over that clients of an earlier server have; this is the shortest.
        server.serve();
        server.help("rpc.mountd", &["-F", "-p", &PORTS[2].to_string()], PORTS[2]);
        Some(server)
    }

    fn shared(&self) -> PathBuf {
        self.dir.path().join("shared")
    }

    fn serve(&self) {
        sh("rpc.nfsd -G 10 -L 10 4");
        listens("rpc.nfsd", PORTS[1]);
    }

    fn help(&mut self, program: &str, args: &[&str], port: u16) {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
        self.helpers.push(command.spawn().unwrap());
        listens(program, port);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for line in ["rpc.nfsd 0", "exportfs -ua"] {
            let _ = Command::new("sh").args(["-c", line]).status();
        }
        for helper in &mut self.helpers {
            let _ = helper.kill();
            let _ = helper.wait();
        }
        let _ = Command::new("umount").arg("/proc/fs/nfsd").output();
    }
}

fn listens(program: &str, port: u16) {
    let reached = retry(|| TcpStream::connect((ADDRESS, port)).ok());
    assert!(reached.is_some(), "{program} does not listen on port {port}");
}

/// Whatever is sent to the server is lost, until this goes.
struct Silence;

impl Silence {
    fn begin() -> Silence {
        let ports = PORTS.map(|port| port.to_string()).join(", ");
        sh("nft 'add table inet berth-silence; \
            add chain inet berth-silence in { type filter hook input priority 0; }'");
        for transport in ["tcp", "udp"] {
            sh(&format!(
                "nft 'add rule inet berth-silence in {transport} dport {{ {ports} }} drop'"
            ));
        }
        Silence
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = Command::new("nft")
            .args(["delete", "table", "inet", "berth-silence"])
            .output();
    }
}

fn sh(line: &str) {
    host(&["sh", "-c", line]);
}

fn volume(daemon: &Daemon, name: &str, fstype: &str, options: &str, export: &Path) {
    let (fstype, options) = (format!("type={fstype}"), format!("o={options}"));
    let device = format!("device=:{}", export.display());
    let words = ["volume", "create", "--driver", "local"];
    let opts = ["--opt", &fstype, "--opt", &options, "--opt", &device, name];
    daemon.ok(&[&words[..], &opts].concat());
}

/// A volume of each version of the protocol; and what the daemon has then, with an image that is in use.
fn of_both_versions(daemon: &Daemon, export: &Path) -> Inventory {
    volume(daemon, "three", "nfs", "addr=127.0.0.1,nfsvers=3,nolock", export);
    volume(daemon, "four", "nfs", "addr=127.0.0.1,nfsvers=4.2", export);
    daemon.ok(&["run", "--rm", "box:1", "true"]);
    Inventory::of(daemon)
}

/// Mounts of the network in anybody's table, with whose.
fn mounts() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let tables = processes.filter_map(|process| {
        let table = std::fs::read_to_string(process.path().join("mounts")).ok()?;
        Some((process.file_name().to_string_lossy().into_owned(), table))
    });
    let of_network = |(process, table): (String, String)| {
        let lines = table
            .lines()
            .filter(|line| matches!(line.split(' ').nth(2), Some("nfs" | "nfs4")));
        let named: Vec<String> = lines.map(|line| format!("{process}: {line}")).collect();
        named
    };
    tables.flat_map(of_network).collect()
}

#[test]
fn what_a_container_writes_the_server_has_and_the_reverse() {
    guard!();
    let Some(server) = Server::start() else { return };
    let daemon = Daemon::start();
    daemon.ok(&["run", "--rm", "box:1", "true"]);
    let before = Inventory::of(&daemon);
    // By name it has an address on which it serves nothing, too.
    let hosts = std::fs::read_to_string(HOSTS).unwrap_or_default();
    std::fs::write(
        HOSTS,
        format!("{hosts}2001:db8::7 nas.berth.test\n{ADDRESS} nas.berth.test\n"),
    )
    .unwrap();
    for (name, fstype, options, shown) in [
        ("three", "nfs", "addr=127.0.0.1,rw,nfsvers=3,nolock", "vers=3"),
        (
            "locks",
            "nfs",
            "addr=127.0.0.1,rw,vers=3,soft,timeo=100",
            "vers=3",
        ),
        ("four", "nfs", "addr=127.0.0.1,rw,nfsvers=4", "vers=4"),
        (
            "new",
            "nfs",
            "addr=nas.berth.test,nfsvers=4.2,noatime",
            "vers=4.2",
        ),
        ("typed", "nfs4", "addr=127.0.0.1", "vers=4"),
        ("plain", "nfs", "addr=nas.berth.test,nolock", "vers=3"),
    ] {
        volume(&daemon, name, fstype, options, &server.shared());
        let mount = format!("{name}:/d");
        let write = format!("cat /d/seed; echo of {name} > /d/{name}; mkdir /d/dir-{name}; exec sleep 1000");
        daemon.keep("user", &["-v", &mount], &["sh", "-c", &write]);
        let file = server.shared().join(name);
        let arrived =
            retry(|| (std::fs::read_to_string(&file).ok()? == format!("of {name}\n")).then_some(()));
        assert!(arrived.is_some(), "{name}: {}", daemon.ok(&["logs", "user"]));
        assert_eq!(daemon.ok(&["logs", "user"]), "of the server\n", "{name}");
        std::fs::write(server.shared().join(format!("later-{name}")), "later\n").unwrap();
        let read = format!("/d/later-{name}");
        assert_eq!(daemon.ok(&["exec", "user", "cat", &read]), "later\n", "{name}");
        let table = daemon.ok(&["exec", "user", "cat", "/proc/mounts"]);
        let line = table.lines().find(|line| line.contains(" /d nfs"));
        assert!(line.is_some_and(|line| line.contains(shown)), "{name}: {table}");
        // In the container alone.
        let pid = inspect(&daemon, "user", "{{.State.Pid}}");
        let seen = mounts();
        assert!(
            !seen.is_empty() && seen.iter().all(|line| line.starts_with(&format!("{pid}: "))),
            "{name}: {seen:?}"
        );
        // For one container, and for all.
        let (_, said) = daemon.fails(&[
            "run",
            "--rm",
            "-v",
            &format!("{mount}:ro"),
            "box:1",
            "touch",
            "/d/x",
        ]);
        assert!(said.contains("Read-only file system"), "{name}: {said}");
        daemon.ok(&["rm", "-f", "user"]);
        let read_only = format!("{name}-ro");
        volume(
            &daemon,
            &read_only,
            fstype,
            &format!("{options},ro"),
            &server.shared(),
        );
        let script = "cat /d/seed; touch /d/x 2>&1 || echo no";
        let mount = format!("{read_only}:/d");
        let said = daemon.ok(&["run", "--rm", "-v", &mount, "box:1", "sh", "-c", script]);
        assert!(
            said.starts_with("of the server\n") && said.ends_with("no\n"),
            "{name}: {said}"
        );
        daemon.ok(&["volume", "rm", name, &read_only]);
        // Empty, it gets what the image has there.
        let empty = server.shared().join(format!("empty-{name}"));
        std::fs::create_dir(&empty).unwrap();
        volume(&daemon, "filled", fstype, options, &empty);
        let seen = daemon.ok(&["run", "--rm", "-v", "filled:/srv", "box:1", "cat", "/srv/seed"]);
        assert_eq!(seen, "from the image\n", "{name}");
        let copied = std::fs::read_to_string(empty.join("seed")).unwrap();
        assert_eq!(copied, "from the image\n", "{name}");
        daemon.ok(&["volume", "rm", "filled"]);
        // Whoever let go of it last may still take leave of the server.
        assert!(
            retry(|| mounts().is_empty().then_some(())).is_some(),
            "{:?}",
            mounts()
        );
    }
    std::fs::write(HOSTS, hosts).unwrap();
    assert!(server.shared().join("dir-plain").is_dir() && !server.shared().join("x").exists());
    before.assert_unchanged(&daemon, "volumes on a server");
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

#[test]
fn what_the_server_refuses_is_told_with_the_volume_and_the_server() {
    guard!();
    let Some(server) = Server::start() else { return };
    let daemon = Daemon::start();
    for (name, version) in [("three", "nfsvers=3,nolock"), ("four", "nfsvers=4.2")] {
        let options = format!("addr={ADDRESS},{version}");
        volume(&daemon, name, "nfs", &options, &server.shared().join("nosuch"));
    }
    volume(
        &daemon,
        "wrong",
        "nfs",
        "addr=127.0.0.1,colour=red",
        &server.shared(),
    );
    volume(&daemon, "nowhere", "nfs", "nfsvers=4.2", &server.shared());
    volume(
        &daemon,
        "unknown",
        "nfs",
        "addr=no-such-host.berth.test",
        &server.shared(),
    );
    daemon.ok(&["run", "--rm", "box:1", "true"]);
    let before = Inventory::of(&daemon);
    let refused = |name: &str| {
        let (code, said) = daemon.fails(&["run", "--rm", "-v", &format!("{name}:/d"), "box:1", "true"]);
        assert!(matches!(code, 125..=127), "{name}: {code} {said}");
        said
    };
    for (name, words) in [
        ("three", "volume three on the server 127.0.0.1: "),
        ("four", "volume four on the server 127.0.0.1: "),
        ("wrong", "colour"),
        ("nowhere", "volume nowhere: "),
        ("unknown", "while mounting volume \"unknown\""),
    ] {
        let said = refused(name);
        assert!(said.contains(words), "{name}: {said}");
    }
    for name in ["three", "four"] {
        let said = refused(name);
        assert!(
            ["no such file or directory", "permission denied", "access denied"]
                .iter()
                .any(|why| said.to_lowercase().contains(why)),
            "{said}"
        );
    }
    // Nobody listens.
    sh("rpc.nfsd 0");
    volume(
        &daemon,
        "away",
        "nfs",
        "addr=127.0.0.1,nfsvers=4.2",
        &server.shared(),
    );
    let said = refused("away");
    assert!(said.contains("volume away on the server 127.0.0.1: "), "{said}");
    daemon.ok(&["volume", "rm", "away"]);
    before.assert_unchanged(&daemon, "refused volumes");
}

#[test]
fn a_server_that_does_not_answer_holds_up_nobody_else() {
    guard!();
    let Some(server) = Server::start() else { return };
    let daemon = Daemon::start();
    let before = of_both_versions(&daemon, &server.shared());
    let silence = Silence::begin();
    let daemon_ref = &daemon;
    let said = std::thread::scope(|scope| {
        let asked = ["three", "four"].map(|name| {
            scope.spawn(move || {
                let mount = format!("{name}:/d");
                daemon_ref.fails(&["run", "--rm", "--name", name, "-v", &mount, "box:1", "true"])
            })
        });
        let waits = |name: &str| daemon.run(&["inspect", name]).status.success();
        assert!(retry(|| (waits("three") && waits("four")).then_some(())).is_some());
        assert_eq!(daemon.ok(&["run", "--rm", "box:1", "echo", "well"]), "well\n");
        daemon.ok(&["volume", "create", "other"]);
        daemon.ok(&["volume", "rm", "other"]);
        asked.map(|asked| asked.join().unwrap())
    });
    for ((code, said), name) in said.iter().zip(["three", "four"]) {
        assert!(
            *code == 125
                && said.contains(&format!("volume {name} on the server 127.0.0.1: "))
                && (said.contains("no answer within") || said.contains("timed out")),
            "{name}: {code} {said}"
        );
    }
    before.assert_unchanged(&daemon, "a server that does not answer");
    drop(silence);
    for name in ["three", "four"] {
        let mount = format!("{name}:/d");
        let seen = daemon.ok(&["run", "--rm", "-v", &mount, "box:1", "cat", "/d/seed"]);
        assert_eq!(seen, "of the server\n");
    }
}

#[test]
fn containers_of_a_server_that_has_gone_are_ended_or_say_why_not() {
    guard!();
    let Some(server) = Server::start() else { return };
    let daemon = Daemon::start();
    let before = of_both_versions(&daemon, &server.shared());
    // Who has nothing to do with the server, who asks it, and who has data for it.
    let read = "while :; do busybox stat /d/seed >/dev/null; cat /d/seed >/dev/null; done";
    let write = "exec 3>/d/log-$HOSTNAME; while [ ! -e /tmp/go ]; do busybox usleep 50000; done; \
                 echo unsaved >&3; exec sleep 1000";
    for volume in ["three", "four"] {
        let mount = format!("{volume}:/d");
        for (kind, script) in [("idle", "exec sleep 1000"), ("reads", read), ("writes", write)] {
            let name = format!("{kind}-{volume}");
            daemon.keep(&name, &["-v", &mount], &["sh", "-c", script]);
        }
    }
    let opened = || std::fs::read_dir(server.shared()).unwrap().flatten();
    let logs = || opened().filter(|file| file.file_name().to_string_lossy().starts_with("log-"));
    assert!(retry(|| (logs().count() == 2).then_some(())).is_some());
    let silence = Silence::begin();
    for volume in ["three", "four"] {
        let name = format!("writes-{volume}");
        daemon.ok(&["exec", &name, "touch", "/tmp/go"]);
        // It waits where what it wrote is to leave the kernel.
        let stat = format!("/proc/{}/stat", inspect(&daemon, &name, "{{.State.Pid}}"));
        let waits = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") D "));
        assert!(retry(|| waits().then_some(())).is_some(), "{name} goes on");
        daemon.ok(&["stop", "-t", "0", &format!("idle-{volume}")]);
        daemon.ok(&["rm", &format!("idle-{volume}")]);
        daemon.ok(&["rm", "-f", &format!("reads-{volume}")]);
    }
    // The kernel keeps what was written until the server takes it; who holds it is told, and by whom he is held up.
    for volume in ["three", "four"] {
        let (_, said) = daemon.fails(&["rm", "-f", &format!("writes-{volume}")]);
        let words = [
            format!("container writes-{volume} was killed and has not ended"),
            "waits in the kernel".to_owned(),
            format!("its volume {volume} is on the server 127.0.0.1"),
        ];
        assert!(words.iter().all(|words| said.contains(words)), "{said}");
    }
    assert_eq!(daemon.ok(&["run", "--rm", "box:1", "echo", "well"]), "well\n");
    drop(silence);
    for volume in ["three", "four"] {
        let name = format!("writes-{volume}");
        becomes(&daemon, &name, "{{.State.Status}}", "exited");
        daemon.ok(&["rm", &name]);
    }
    // Nothing of it was lost.
    for log in logs() {
        assert_eq!(std::fs::read_to_string(log.path()).unwrap(), "unsaved\n");
    }
    before.assert_unchanged(&daemon, "containers of a server that had gone");
    daemon.ok(&["volume", "rm", "three", "four"]);
    assert!(
        retry(|| mounts().is_empty().then_some(())).is_some(),
        "{:?}",
        mounts()
    );
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

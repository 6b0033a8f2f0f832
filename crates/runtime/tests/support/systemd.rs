//! A systemd of this host's own package, first process of namespaces of its own, with the host's files and a control
//! group that it takes for the root.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cgroup::Cgroup;

const SCRIPT: &str = include_str!("systemd.sh");
const PROGRAMS: [&str; 2] = ["/lib/systemd/systemd", "/usr/lib/systemd/systemd"];
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Systemd {
    unshare: Child,
    pid: i32,
    pub group: Cgroup,
    _directory: tempfile::TempDir,
}

impl Systemd {
    /// None, with the reason printed, where there is none to start.
    pub fn boot(name: &str) -> Option<Systemd> {
        let Some(program) = PROGRAMS.iter().find(|path| Path::new(path).exists()) else {
            println!("skipped: no systemd is installed (package systemd)");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let group = Cgroup::create("/", &format!("{name}-{}", std::process::id())).unwrap();
        let mut enter = String::new();
        let mut mounts = String::new();
        for path in group.paths() {
            let procs = path.directory.join("cgroup.procs");
            enter.push_str(&format!("echo 0 >{} || exit 1\n", procs.display()));
            let (kind, mut options) = match path.controllers.join(",") {
                none if none.is_empty() => ("cgroup2", "rw".to_owned()),
                controllers => ("cgroup", controllers),
            };
            if options.starts_with("name=") {
                options.insert_str(0, "none,");
            }
            mounts.push_str(&format!("{kind} {options} {}\n", path.mount_point.display()));
        }
        let told = directory.path().join("pid");
        let unshare = Command::new("sh")
            .arg("-c")
            .arg(format!("{enter}exec unshare --mount --pid --fork --cgroup --uts --ipc --net --kill-child sh -c \"$0\" sh \"$@\""))
            .arg(SCRIPT)
            .args([&told, Path::new(mounts.trim_end()), Path::new(program)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let unshare_pid = unshare.id();
        let mut systemd = Systemd {
            unshare,
            pid: 0,
            group,
            _directory: directory,
        };
        let deadline = Instant::now() + PATIENCE;
        let mut wait = |what: &str, ready: &mut dyn FnMut() -> bool| {
            while !ready() {
                assert!(Instant::now() < deadline, "systemd: {what} did not come");
                assert!(systemd.unshare.try_wait().unwrap().is_none(), "systemd has ended");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        wait("its process", &mut || told.exists());
        // Where version 2 has the controllers, a group hands them down only when no process is in it. Its own process
        // systemd moves by itself; the one that made the namespaces is ours to move.
        for path in systemd.group.paths() {
            if path.controllers.is_empty() {
                let procs = path.mount_point.join("cgroup.procs");
                fs::write(procs, unshare_pid.to_string()).unwrap();
            }
        }
        fs::write(told.with_extension("go"), "").unwrap();
        systemd.pid = fs::read_to_string(&told).unwrap().trim().parse().unwrap();
        let socket = format!("/proc/{}/root/run/systemd/private", systemd.pid);
        wait("its socket", &mut || Path::new(&socket).exists());
        Some(systemd)
    }

    /// A command among its processes. It begins in the group of systemd's own process: nothing enters a namespace's
    /// groups from outside where the tree is mounted with `nsdelegate` (cgroups(7)).
    pub fn command(&self, program: &Path) -> Command {
        let unified = self
            .group
            .paths()
            .into_iter()
            .find(|path| path.controllers.is_empty());
        let door = unified.map(|path| path.directory.join("init.scope/cgroup.procs"));
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg("echo 0 >\"$0\" && exec nsenter --mount --pid --cgroup --target \"$@\"")
            .arg(door.as_deref().unwrap_or(Path::new("/dev/null")))
            .arg(self.pid.to_string())
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    pub fn systemctl(&self, args: &[&str]) -> String {
        let output: Output = self.command(Path::new("systemctl")).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "systemctl {args:?}: {text}{complaint}");
        text
    }

    pub fn property(&self, unit: &str, name: &str) -> String {
        let text = self.systemctl(&["show", "--value", "--property", name, unit]);
        text.trim().to_owned()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if self.pid != 0 {
            // With the first process of its pid namespace everything in it ends.
            let _ = sys::process::kill(self.pid, 9);
        }
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let _ = self.group.kill_all();
        let _ = self.group.remove();
    }
}

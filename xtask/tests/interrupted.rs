//! A benchmark that is ended by a signal takes back what it made: daemons, ours and the peer's, their containers, links,
//! tables, namespaces, files.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
/// What never comes waits so long.
const PATIENCE: Duration = Duration::from_secs(120);

fn why_not(berth: &Path) -> Option<&'static str> {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|meta| {
        use std::os::unix::fs::MetadataExt as _;
        meta.uid() == 0
    });
    if !is_root {
        return Some("needs root");
    }
    if !berth.exists() {
        return Some("needs the program berth beside xtask (cargo build)");
    }
    (!Path::new("/bin/busybox").exists()).then_some("needs /bin/busybox (package busybox-static)")
}

fn retry<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = attempt() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Command lines that name the directory, but this one's.
fn processes(directory: &Path) -> Vec<String> {
    let directory = directory.display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.map(|entry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&directory)).collect()
}

fn on_host(tag: &str) -> Vec<String> {
    let said = |program: &str, args: &[&str]| -> Vec<String> {
        let output = Command::new(program).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let all = [
        said("ip", &["-o", "-d", "link"]),
        said("nft", &["list", "tables"]),
        said("ip", &["netns"]),
    ];
    all.concat()
        .into_iter()
        .filter(|line| line.contains(tag))
        .collect()
}

/// Ended whatever becomes of the test.
struct Bench(Child);

impl Drop for Bench {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

#[test]
fn a_benchmark_that_is_ended_leaves_nothing() {
    let berth = PathBuf::from(XTASK).with_file_name("berth");
    if let Some(reason) = why_not(&berth) {
        println!("skipped: {reason}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let scratch = directory.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    // Its first row starts containers, one after the other, with the peer first where there is one.
    let child = Command::new(XTASK)
        .args(["bench", "supervision", "at-once"])
        .env("TMPDIR", &scratch)
        .env("BERTH_BENCH_BINARY", &berth)
        .env("BERTH_BENCH_SCALE", "10")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut bench = Bench(child);
    let log = || std::fs::read_to_string(directory.path().join("log")).unwrap();
    let own = scratch.join(format!("berth-bench-{}", bench.0.id()));
    let root = own.join("ours/root");
    retry("no container was started", || {
        assert!(matches!(bench.0.try_wait(), Ok(None)), "{}", log());
        let all = processes(&own);
        let started = all.iter().any(|line| line.contains("containerd-shim"));
        let started =
            started || std::fs::read_dir(root.join("containers")).is_ok_and(|mut all| all.next().is_some());
        started.then_some(())
    });
    let tag = spec::Instance::of_root(&root).tag;
    let netns = format!("berth-bench-{}", bench.0.id());
    assert!(!on_host(&tag).is_empty(), "nothing to take back: {}", log());
    let sent = Command::new("kill")
        .arg(bench.0.id().to_string())
        .status()
        .unwrap();
    assert!(sent.success());
    let status = retry("the benchmark goes on", || bench.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(1), "{}", log());
    assert!(log().contains("interrupted"), "{}", log());
    assert_eq!(processes(&own), [""; 0], "{}", log());
    assert_eq!(on_host(&tag), [""; 0], "{}", log());
    assert_eq!(on_host(&netns), [""; 0], "{}", log());
    let left: Vec<_> = std::fs::read_dir(&scratch)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty(), "{left:?}: {}", log());
}

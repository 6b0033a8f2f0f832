//! How long a container takes from the first step of the runtime to the exec of its program, and to its end.
//!
//! `launch_time BUNDLE [ROUNDS]`: the bundle's program should end at once (`true`). Needs root. Prints the
//! median and the best of the rounds in microseconds.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use runtime::{Launch, RootFs, Stdio};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let bundle = args.next().ok_or("usage: launch_time BUNDLE [ROUNDS]")?;
    let rounds: usize = args.next().map_or(Ok(100), |text| text.parse())?;
    let bundle = Path::new(&bundle);
    let spec: spec::runtime::Spec = serde_json::from_slice(&std::fs::read(bundle.join("config.json"))?)?;
    let root = bundle.join(spec.root.as_ref().ok_or("no root")?.path.as_path());
    let cgroup = cgroup::Cgroup::create("/", &format!("berth-bench-{}", std::process::id()))?;
    let cache = std::env::temp_dir().join(format!("launch-time-{}", std::process::id()));
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..rounds {
        let null = || {
            std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/null")
                .map(OwnedFd::from)
        };
        let stdio = Stdio::Streams {
            stdin: null()?,
            stdout: null()?,
            stderr: null()?,
        };
        let mut launch = Launch::new("bench", bundle, &spec, RootFs::Path(&root), stdio);
        launch.cgroup = Some(&cgroup);
        launch.seccomp_cache = Some(&cache);
        let start = Instant::now();
        let created = runtime::create(launch)?;
        let ready = start.elapsed();
        let running = created.start()?;
        let executed = start.elapsed();
        sys::process::wait(running.pidfd.as_fd())?;
        for (list, time) in times.iter_mut().zip([ready, executed, start.elapsed()]) {
            list.push(time);
        }
    }
    for (name, list) in ["created", "executed", "ended"].iter().zip(&mut times) {
        list.sort();
        let at = |place: usize| list.get(place).map_or(0, Duration::as_micros);
        println!("{name:9} median {:6} best {:6} us", at(list.len() / 2), at(0));
    }
    cgroup.remove()?;
    let _ = std::fs::remove_dir_all(cache);
    Ok(())
}

//! The monitor alone, for the kernel tests: `monitor <short id>` and its log's forwarder as the product's binary
//! does it, and `launch FILE`,
//! a launcher that is killed as soon as the container runs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let role = args.get(1).map(String::as_str).unwrap_or_default();
    let code = match role {
        "monitor" => monitor::main(),
        monitor::forward::ROLE => monitor::forward::main(),
        "launch" => launch(args.get(2).expect("a file")),
        _ => 64,
    };
    std::process::exit(code);
}

/// Launches what the file describes and dies by SIGKILL.
fn launch(file: &str) -> i32 {
    let launch: monitor::protocol::Launch = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let program = sys::program::Sealed::own().unwrap();
    let (_, started) = monitor::client::Monitor::launch(&program, &launch, &[]).unwrap();
    println!("{}", started.pid);
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
    0
}

//! A small first process for containers whose program is not made to be one (`--init`).
//!
//! It runs the program as its child, passes every signal on to it, reaps whatever is left to process 1, and ends
//! with the program's exit code (128 + signal when a signal ended it). The program gets the terminal's foreground.
//! When it ends, the kernel ends everything else in the pid namespace.
//!
//! It is this engine's own program, bound read-only into the container and told apart by its name; it runs under
//! the container's own filter and rights.

use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::process::Pid;
use sys::process::{Exit, Options};

use crate::process::lookup;

/// `args` are what follows the name: options end at `--`, then the program and its arguments.
pub fn main(args: Vec<OsString>) -> i32 {
    let mut args = args.into_iter().peekable();
    if args.peek().is_some_and(|first| first == "--") {
        args.next();
    }
    let program: Vec<CString> = args
        .filter_map(|arg| CString::new(arg.as_os_str().as_bytes()).ok())
        .collect();
    if program.is_empty() {
        eprintln!("docker-init: usage: docker-init -- PROGRAM [ARGUMENT]...");
        return 125;
    }
    match run(&program) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("docker-init: {error}");
            125
        }
    }
}

fn run(program: &[CString]) -> std::io::Result<i32> {
    sys::process::block_signals()?;
    if rustix::process::getpid() != Pid::INIT {
        rustix::process::set_child_subreaper(Some(Pid::INIT))?;
    }
    let child = sys::process::spawn(Options::default(), || become_program(program))?;
    drop(child.pidfd);
    loop {
        match sys::process::wait_signal() {
            Ok(SIGCHLD) => {
                while let Some((pid, exit)) = sys::process::reap_any()? {
                    if pid == child.pid {
                        return Ok(Exit::code(exit));
                    }
                }
            }
            // They are about this process's own use of the terminal.
            Ok(SIGTTIN | SIGTTOU) => {}
            // A program that is just ending cannot be told; its end is.
            Ok(signal) => drop(sys::process::kill(child.pid, signal)),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

const SIGCHLD: i32 = 17;
const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;

/// In the child: a process group of its own, in the terminal's foreground if there is one; then the program.
fn become_program(program: &[CString]) -> i32 {
    let _ = rustix::process::setpgid(None, None);
    let stdin = rustix::stdio::stdin();
    if rustix::termios::isatty(stdin) {
        let _ = rustix::termios::tcsetpgrp(stdin.as_fd(), rustix::process::getpid());
    }
    if let Err(error) = sys::process::reset_signals() {
        eprintln!("docker-init: {error}");
        return 125;
    }
    let name = program
        .first()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let env: Vec<String> = std::env::vars_os()
        .map(|(key, value)| format!("{}={}", key.to_string_lossy(), value.to_string_lossy()))
        .collect();
    let exact: Vec<CString> = std::env::vars_os()
        .filter_map(|(mut key, value)| {
            key.push("=");
            key.push(value);
            CString::new(key.into_vec()).ok()
        })
        .collect();
    let error = match lookup::find(&name, &env) {
        Ok(path) => match CString::new(path.as_os_str().as_bytes()) {
            Ok(file) => {
                let error = sys::process::exec(&file, program, &exact);
                lookup::explain(&name, &path, &error)
            }
            Err(_) => return 127,
        },
        Err(error) => error,
    };
    eprintln!("docker-init: {error}");
    error.exit_code()
}

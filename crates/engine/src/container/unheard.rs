//! Whether a stop signal will be heard.
//!
//! The kernel keeps from process 1 of a pid namespace every signal it has no handler for, SIGKILL from outside
//! excepted. A program that is not made to be process 1 then looks as if it hung: the stop waits in vain and kills
//! it. That is worth a word to whoever waits.
//!
//! A signal that a thread has blocked is kept for it, and so is one that a thread waits for; while it waits, the
//! kernel shows the signal as not blocked, and only the system call tells.
//!
//! Sources: pid_namespaces(7), sigwaitinfo(2), proc(5) (`SigCgt`, `SigBlk`, `syscall`).

use crate::engine::Engine;
use crate::error::Result;
use crate::signal;

use super::Container;

impl Engine {
    /// Why a stop with this signal will not be heard by the container's first process, if so.
    pub fn container_unheard(
        &self,
        name: &str,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<Option<String>> {
        let container = self.container(name)?;
        if !container.state.status.is_alive() {
            return Ok(None);
        }
        let wanted = [signal.unwrap_or_default(), container.config.stop_signal.as_str()];
        let number = match wanted.into_iter().find(|word| !word.is_empty()) {
            Some(word) => signal::parse(word)?,
            None => signal::TERM,
        };
        let patience = timeout.or(container.config.stop_timeout);
        let deaf = patience != Some(0) && is_unheard(&threads(container.state.pid), number);
        let unheard = deaf.then(|| warning(&container, number));
        if let Some(warning) = &unheard {
            tracing::warn!(container = %container.id, "{warning}");
        }
        Ok(unheard)
    }
}

fn warning(container: &Container, number: i32) -> String {
    format!(
        "process 1 of container {} has no handler for {}, so the kernel does not deliver it: the container is killed \
         when the time to stop is over. Run it with --init, let the program handle the signal, or choose another one \
         with --stop-signal",
        container.name,
        signal::name(number)
    )
}

/// `rt_sigtimedwait`, behind sigwait(3) and its kin.
#[cfg(target_arch = "x86_64")]
const WAIT: &str = "128";
#[cfg(target_arch = "aarch64")]
const WAIT: &str = "137";

/// The texts of `status` and `syscall` of every thread; nothing of a process that has ended.
fn threads(pid: i32) -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let text = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let entries = entries.flatten().map(|entry| entry.path());
    entries
        .map(|path| (text(path.join("status")), text(path.join("syscall"))))
        .collect()
}

fn is_unheard(threads: &[(String, String)], number: i32) -> bool {
    let shift = u32::try_from(number - 1).unwrap_or_default();
    let bit = 1u64.checked_shl(shift).unwrap_or_default();
    // Whether it is process 1, and whether it has the signal handled, kept or waited for.
    let judge = |(status, call): &(String, String)| {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let set = |name: &str| u64::from_str_radix(field(name)?.trim(), 16).ok();
        let first = field("NSpid:").and_then(|pids| pids.split_whitespace().last()) == Some("1");
        let hears = (set("SigCgt:")? | set("SigBlk:")?) & bit != 0 || call.split(' ').next() == Some(WAIT);
        Some((first, hears))
    };
    let judged: Vec<(bool, bool)> = threads.iter().filter_map(judge).collect();
    number != signal::KILL && judged.iter().any(|(first, _)| *first) && judged.iter().all(|(_, hears)| !hears)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_process_1_without_a_handler() {
        let status = |pids: &str, blocked: &str, caught: &str| {
            format!(
                "Name:\tx\nNSpid:\t{pids}\nSigBlk:\t{blocked}\nSigIgn:\t0000000000000000\nSigCgt:\t{caught}\n"
            )
        };
        let none = "0000000000000000";
        let term = "0000000000004000";
        let alone = |status: String, call: &str| vec![(status, call.to_owned())];
        let pause = "34 0x0 0x0";
        assert!(is_unheard(&alone(status("77\t1", none, none), pause), 15));
        assert!(!is_unheard(&alone(status("77\t1", none, term), pause), 15));
        assert!(
            !is_unheard(&alone(status("77\t1", term, none), pause), 15),
            "it is kept"
        );
        let waits = format!("{WAIT} 0x0");
        assert!(
            !is_unheard(&alone(status("77\t1", none, none), &waits), 15),
            "it is waited for"
        );
        assert!(is_unheard(&alone(status("77\t1", none, term), pause), 1));
        assert!(
            !is_unheard(&alone(status("77", none, none), pause), 15),
            "an ordinary process dies"
        );
        assert!(!is_unheard(&alone(status("77\t1", none, none), pause), 9));
        assert!(!is_unheard(&[], 15), "a process that has ended");
        let second = (status("78\t2", term, none), pause.to_owned());
        let both = [alone(status("77\t1", none, none), pause), vec![second]].concat();
        assert!(!is_unheard(&both, 15), "another thread takes it");
    }
}

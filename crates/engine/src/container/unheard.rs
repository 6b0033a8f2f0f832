//! Whether a stop signal will be heard.
//!
//! The kernel keeps from process 1 of a pid namespace every signal it has no handler for, SIGKILL from outside
//! excepted. A program that is not made to be process 1 then looks as if it hung: the stop waits in vain and kills
//! it. That is worth a word to whoever waits.
//!
//! Sources: pid_namespaces(7), proc(5) (`SigCgt`, `SigBlk`: a blocked signal is kept for a process that waits for it).

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
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", container.state.pid)).unwrap_or_default();
        let patience = timeout.or(container.config.stop_timeout);
        let unheard =
            (patience != Some(0) && is_unheard(&status, number)).then(|| warning(&container, number));
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

/// Reads the text of /proc/PID/status.
fn is_unheard(status: &str, number: i32) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let first = field("NSpid:").and_then(|pids| pids.split_whitespace().last()) == Some("1");
    let set = |name: &str| field(name).and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    let (Some(caught), Some(blocked)) = (set("SigCgt:"), set("SigBlk:")) else {
        return false;
    };
    let bit = u32::try_from(number - 1)
        .ok()
        .and_then(|shift| 1u64.checked_shl(shift))
        .unwrap_or_default();
    first && number != signal::KILL && (caught | blocked) & bit == 0
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
        assert!(is_unheard(&status("77\t1", none, none), 15));
        assert!(!is_unheard(&status("77\t1", none, term), 15));
        assert!(!is_unheard(&status("77\t1", term, none), 15), "it waits for it");
        assert!(is_unheard(&status("77\t1", none, term), 1));
        assert!(
            !is_unheard(&status("77", none, none), 15),
            "an ordinary process dies of it"
        );
        assert!(!is_unheard(&status("77\t1", none, none), 9));
        assert!(!is_unheard("", 15), "a process that has ended");
    }
}

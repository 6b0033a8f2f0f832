//! How long a process has run, by a clock that nobody sets. A daemon that comes to a container which another one has
//! started has no moment of its own to count from, and the difference of two times of day is wrong by every step of the
//! host's clock between them.

use std::time::Duration;

use crate::clock::since_boot;

/// In which the kernel tells the start of a process (USER_HZ): the same on every architecture that this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// `None` when there is no such process.
pub(super) fn age(pid: i32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(since_boot().saturating_sub(begin(&stat)?))
}

/// Since the boot: field 22 of proc_pid_stat(5). The name before it, in brackets, may hold anything.
fn begin(stat: &str) -> Option<Duration> {
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    Some(Duration::from_millis(
        ticks.saturating_mul(1000) / TICKS_PER_SECOND,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_as_old_as_it_is() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let begun = std::time::Instant::now();
        std::thread::sleep(Duration::from_millis(300));
        let told = age(pid).unwrap();
        let measured = begun.elapsed();
        child.kill().unwrap();
        child.wait().unwrap();
        // The kernel counts in hundredths, and the process was there a little earlier.
        assert!(
            told + Duration::from_millis(20) >= measured,
            "{told:?} {measured:?}"
        );
        assert_eq!(age(pid), None);
    }

    #[test]
    fn names_may_hold_anything() {
        let rest = "S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1000 10 18446744073709551615";
        for name in ["sleep", "a) R 1 (b", ""] {
            let stat = format!("77 ({name}) {rest}");
            assert_eq!(begin(&stat), Some(Duration::from_millis(123_450)), "{name}");
        }
        assert_eq!(begin("77 (x) S 1"), None);
    }
}

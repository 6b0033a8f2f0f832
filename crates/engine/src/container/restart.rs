//! When a container that ended is started again: Docker's policies and back-off, as plain values without I/O.
//!
//! The delay starts at 100 ms and doubles up to one minute; a run of ten seconds or more makes it start anew.

use std::time::Duration;

use api_types::RestartPolicy;

use crate::error::{Error, Result};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
const GOOD_RUN: Duration = Duration::from_secs(10);

/// The delay before the next start.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    next: Option<Duration>,
}

impl Backoff {
    /// The delay after a run of this length, and the next one prepared.
    pub(crate) fn after_run(&mut self, ran: Duration) -> Duration {
        let delay = match self.next {
            Some(next) if ran < GOOD_RUN => next,
            _ => FIRST,
        };
        self.next = Some((delay * 2).min(LONGEST));
        delay
    }

    pub(crate) fn reset(&mut self) {
        self.next = None;
    }
}

/// Whether the policy wants another run after an exit. A container stopped by hand stays down.
pub(crate) fn wants_restart(policy: &RestartPolicy, exit_code: i32, restarts: i64, by_hand: bool) -> bool {
    if by_hand {
        return false;
    }
    match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            exit_code != 0 && (policy.maximum_retry_count == 0 || restarts < policy.maximum_retry_count)
        }
        _ => false,
    }
}

/// Whether the daemon starts the container when it starts itself. One that `was_up` when the last daemon went has ended
/// since with this exit code: whether that was a failure, and one too many, counts as if somebody had looked.
pub(crate) fn wants_start_with_daemon(
    policy: &RestartPolicy,
    was_up: bool,
    exit_code: i32,
    restarts: i64,
    by_hand: bool,
) -> bool {
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !by_hand,
        "on-failure" => was_up && wants_restart(policy, exit_code, restarts, by_hand),
        _ => false,
    }
}

/// Refuses policies that don't exist, in Docker's words.
pub(crate) fn validate(policy: &RestartPolicy) -> Result<()> {
    let invalid = |text: String| Err(Error::invalid(format!("invalid restart policy: {text}")));
    match policy.name.as_str() {
        "always" | "unless-stopped" | "no" if policy.maximum_retry_count > 0 => {
            invalid("maximum retry count can only be used with 'on-failure'".to_owned())
        }
        _ if policy.maximum_retry_count < 0 => invalid("maximum retry count cannot be negative".to_owned()),
        "" if policy.maximum_retry_count > 0 => {
            invalid("maximum retry count can only be used with 'on-failure'".to_owned())
        }
        "" | "no" | "always" | "unless-stopped" | "on-failure" => Ok(()),
        other => invalid(format!(
            "unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, max: i64) -> RestartPolicy {
        RestartPolicy {
            name: name.to_owned(),
            maximum_retry_count: max,
        }
    }

    #[test]
    fn delays_double_and_start_anew_after_a_good_run() {
        let mut backoff = Backoff::default();
        // A start that fails is the shortest run.
        let runs = [
            Duration::ZERO,
            Duration::from_secs(1),
            Duration::from_millis(9_999),
        ];
        let runs = runs.into_iter().cycle().take(12);
        let delays: Vec<u128> = runs.map(|ran| backoff.after_run(ran).as_millis()).collect();
        assert_eq!(
            delays,
            [
                100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000
            ]
        );
        assert_eq!(backoff.after_run(GOOD_RUN), FIRST);
        assert_eq!(backoff.after_run(Duration::ZERO), FIRST * 2);
        backoff.reset();
        assert_eq!(backoff.after_run(Duration::ZERO), FIRST);
    }

    #[test]
    fn policies() {
        assert!(wants_restart(&policy("always", 0), 0, 9, false));
        assert!(!wants_restart(&policy("always", 0), 0, 9, true));
        assert!(!wants_restart(&policy("on-failure", 0), 0, 0, false));
        assert!(wants_restart(&policy("on-failure", 2), 1, 1, false));
        assert!(!wants_restart(&policy("on-failure", 2), 1, 2, false));
        assert!(!wants_restart(&policy("no", 0), 1, 0, false));
    }

    #[test]
    fn the_next_daemon_starts_what_was_up_and_what_is_always_to_be() {
        // Policy, whether it was up, its exit code, whether a person stopped it.
        for (name, was_up, code, by_hand, starts) in [
            ("always", false, 0, true, true),
            ("always", true, 0, false, true),
            ("unless-stopped", true, 0, false, true),
            ("unless-stopped", false, 0, false, true),
            ("unless-stopped", true, 0, true, false),
            ("on-failure", true, 255, false, true),
            ("on-failure", true, 0, false, false),
            ("on-failure", false, 255, false, false),
            ("on-failure", true, 255, true, false),
            ("no", true, 255, false, false),
            ("", true, 255, false, false),
        ] {
            assert_eq!(
                wants_start_with_daemon(&policy(name, 0), was_up, code, 7, by_hand),
                starts,
                "{name} {was_up} {code} {by_hand}"
            );
        }
        // It has been tried as often as it may be.
        assert!(wants_start_with_daemon(
            &policy("on-failure", 2),
            true,
            1,
            1,
            false
        ));
        assert!(!wants_start_with_daemon(
            &policy("on-failure", 2),
            true,
            1,
            2,
            false
        ));
    }

    #[test]
    fn refusals() {
        let text = validate(&policy("bogus", 0)).unwrap_err().message;
        assert_eq!(
            text,
            "invalid restart policy: unknown policy 'bogus'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        );
        assert!(validate(&policy("always", 1)).is_err());
        assert!(validate(&policy("on-failure", -1)).is_err());
        assert!(validate(&policy("", 0)).is_ok());
    }
}

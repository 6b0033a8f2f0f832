//! The `Status` column of the container list: `Up 3 seconds (healthy)`, `Exited (0) 2 hours ago`.

use engine::Status;
use jiff::Timestamp;

/// What the sentence is made of.
#[derive(Debug, Clone, Copy)]
pub struct Life<'a> {
    pub status: Status,
    pub exit_code: i32,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub health: Option<&'a str>,
    /// Its monitor does not answer.
    pub silent: bool,
}

/// The sentence as of `now`.
pub fn sentence(life: Life<'_>, now: Timestamp) -> String {
    let since = |time: Option<Timestamp>| {
        let seconds = time.map_or(0, |time| now.as_second() - time.as_second());
        duration(u64::try_from(seconds).unwrap_or(0))
    };
    match life.status {
        Status::Created => "Created".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Running | Status::Paused if life.silent => {
            format!("Up {} (not answering)", since(life.started_at))
        }
        Status::Paused => format!("Up {} (Paused)", since(life.started_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", life.exit_code, since(life.finished_at)),
        Status::Exited => format!("Exited ({}) {} ago", life.exit_code, since(life.finished_at)),
        Status::Running => match life.health {
            None | Some("" | "none") => format!("Up {}", since(life.started_at)),
            Some("starting") => format!("Up {} (health: starting)", since(life.started_at)),
            Some(health) => format!("Up {} ({health})", since(life.started_at)),
        },
    }
}

/// A length of time in one rounded unit, as Docker words it.
pub fn duration(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let hours = (seconds + HOUR / 2) / HOUR;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        MINUTE..120 => "About a minute".to_owned(),
        120..HOUR => format!("{} minutes", seconds / MINUTE),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / DAY / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let cases: [(u64, &str); 12] = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3_600, "About an hour"),
            (5_400, "2 hours"),
            (172_800, "2 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (800 * 86_400, "2 years"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn sentences() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let life = |status, health| Life {
            status,
            exit_code: 3,
            started_at: Timestamp::from_second(999_997).ok(),
            finished_at: Timestamp::from_second(999_000).ok(),
            health,
            silent: false,
        };
        assert_eq!(
            sentence(
                Life {
                    silent: true,
                    ..life(Status::Running, Some("healthy"))
                },
                now
            ),
            "Up 3 seconds (not answering)"
        );
        assert_eq!(
            sentence(life(Status::Running, Some("healthy")), now),
            "Up 3 seconds (healthy)"
        );
        assert_eq!(
            sentence(life(Status::Running, Some("starting")), now),
            "Up 3 seconds (health: starting)"
        );
        assert_eq!(sentence(life(Status::Running, None), now), "Up 3 seconds");
        assert_eq!(sentence(life(Status::Paused, None), now), "Up 3 seconds (Paused)");
        assert_eq!(
            sentence(life(Status::Exited, None), now),
            "Exited (3) 16 minutes ago"
        );
        assert_eq!(sentence(life(Status::Created, None), now), "Created");
        // The clock was put back by days since it was started, and to before it ended.
        let before = Timestamp::from_second(500_000).unwrap();
        assert_eq!(
            sentence(life(Status::Running, None), before),
            "Up Less than a second"
        );
        assert_eq!(
            sentence(life(Status::Exited, None), before),
            "Exited (3) Less than a second ago"
        );
    }
}

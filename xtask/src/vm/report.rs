//! The machine's lines as results.
//!
//! A line that begins with `@ring` is a result; what follows a failure is what that test printed, and everything
//! else is the machine's own talk, shown only while nothing has been reported (a boot that fails explains itself).

use std::fmt;

const MARK: &str = "@ring ";

/// What has been reported so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
    failures: Vec<String>,
    show: bool,
    started: bool,
    done: bool,
}

impl Report {
    /// Takes one line, and prints it where it is news. True once the machine works.
    pub fn line(&mut self, line: &str) -> bool {
        let Some((_, news)) = line.split_once(MARK) else {
            if self.show || !self.started {
                println!("{line}");
            }
            return self.started;
        };
        self.started = true;
        let (word, rest) = news.split_once(' ').unwrap_or((news, ""));
        self.show = false;
        match word {
            "pass" => self.passed += 1,
            "skip" => self.skipped += 1,
            "fail" => {
                self.failed += 1;
                self.failures.push(rest.to_owned());
                self.show = true;
            }
            "done" => self.done = true,
            _ => {}
        }
        let (seconds, name) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "pass" | "skip" | "fail" => println!("{word} {seconds:>4} s  {name}"),
            _ => println!("{word} {rest}"),
        }
        true
    }

    /// The machine is booted again: what it says counts with what was before.
    pub fn boot(&mut self) {
        (self.show, self.started, self.done) = (false, false, false);
    }

    /// Whether the machine said that it ran everything.
    pub fn complete(&self) -> bool {
        self.done
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            let name = failure.split_once(' ').map_or(failure.as_str(), |(_, name)| name);
            writeln!(f, "failed: {name}")?;
        }
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted() {
        let mut report = Report::default();
        assert!(!report.line("[    1.0] booting"));
        for line in [
            "@ring kernel 6.1, controllers: cpu",
            "@ring pass 1 cgroup::host::a",
            "@ring fail 12 cgroup::host::b",
            "thread panicked",
            // A kernel message may stand before it on the same line.
            "[ 9.9] x @ring skip 0 cgroup::host::c: not here",
        ] {
            assert!(report.line(line));
        }
        assert!(!report.complete());
        report.line("@ring done");
        assert!(report.complete());
        report.boot();
        assert!(!report.complete() && !report.line("[    1.0] booting"));
        assert_eq!(
            report.to_string(),
            "failed: cgroup::host::b\n1 passed, 1 failed, 1 skipped"
        );
    }
}

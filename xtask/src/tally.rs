//! Results of the tests, counted from what their runner prints: tests, not lines.
//!
//! A test that cannot run here says `skipped: <reason>`; one that goes on without one of its parts says `skipped in part:
//! <reason>`. Each counts once, however often it says so: the former as skipped, the latter as passed and told beside it.
//! Only what tests that passed have printed is looked at: a failed one is failed.

/// How many tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// With those that passed in part.
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
    pub in_part: u64,
    /// Passed at the second try.
    pub flaky: u64,
}

/// What the test whose output is read has said of itself so far.
#[derive(Default, PartialEq)]
enum Said {
    #[default]
    Nothing,
    InPart,
    Skipped,
}

#[derive(Default)]
pub struct Tally {
    counts: Counts,
    /// Within what a test that passed has printed.
    in_output: bool,
    said: Said,
}

impl Tally {
    /// Takes a line of `cargo nextest` that shows output at once. True where it is worth showing: what passing tests print
    /// is noise, what failing ones print is the news.
    pub fn nextest(&mut self, line: &str) -> bool {
        let text = line.trim_start();
        if let Some(end) = told(text) {
            self.in_output = matches!(end, "PASS" | "LEAK");
            self.said = Said::Nothing;
            return true;
        }
        if let Some(summary) = text.strip_prefix("Summary [") {
            self.in_output = false;
            self.counts.passed = number_before(summary, " passed");
            self.counts.flaky = number_before(summary, " flaky");
            self.counts.failed = number_before(summary, " failed") + number_before(summary, " timed out");
        }
        if self.in_output {
            self.note(text);
        }
        !self.in_output
    }

    /// The same for `cargo test -- --show-output`, which shows the output of all tests of a program at its end.
    pub fn libtest(&mut self, line: &str) -> bool {
        match line {
            "successes:" => self.in_output = true,
            "failures:" => self.in_output = false,
            _ if line.starts_with("test result:") => {
                self.in_output = false;
                self.counts.passed += number_before(line, " passed");
                self.counts.failed += number_before(line, " failed");
            }
            _ if line.starts_with("---- ") => self.said = Said::Nothing,
            _ if self.in_output => self.note(line.trim_start()),
            _ => {}
        }
        !self.in_output
    }

    pub fn end(mut self) -> Counts {
        self.counts.passed = self.counts.passed.saturating_sub(self.counts.skipped);
        self.counts
    }

    /// Takes a line of a test that passed, and shows it where it says that something was not run.
    fn note(&mut self, text: &str) {
        if text.starts_with("skipped in part:") {
            if self.said == Said::Nothing {
                self.counts.in_part += 1;
                self.said = Said::InPart;
            }
        } else if text.starts_with("skipped:") {
            match self.said {
                Said::Nothing => self.counts.skipped += 1,
                Said::InPart => {
                    self.counts.in_part -= 1;
                    self.counts.skipped += 1;
                }
                Said::Skipped => {}
            }
            self.said = Said::Skipped;
        } else {
            return;
        }
        println!("        {text}");
    }
}

/// How a test ended, in a line that says so: `PASS [   0.1s]`, `SIGSEGV [`, and of another try `TRY 2 FAIL [`.
fn told(line: &str) -> Option<&str> {
    let (head, tail) = line.split_once(" [")?;
    let (seconds, _) = tail.trim_start_matches(['>', ' ']).split_once("s]")?;
    let word = head.rsplit(' ').find(|word| !word.is_empty())?;
    let is_status = |text: &str| {
        text.bytes()
            .all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'-' | b' '))
    };
    (seconds.parse::<f64>().is_ok() && word != "Summary" && is_status(head)).then_some(word)
}

fn number_before(text: &str, word: &str) -> u64 {
    let Some(at) = text.find(word) else { return 0 };
    text[..at]
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_from_output() {
        for (line, end) in [
            ("PASS [   0.008s] (1/2) store::kill x", Some("PASS")),
            ("TRY 1 FAIL [  11.424s] (───) berth::e2e x", Some("FAIL")),
            ("TRY 2 SIGSEGV [   0.1s] x", Some("SIGSEGV")),
            ("SIGKILL [   0.1s] x", Some("SIGKILL")),
            ("SLOW [> 60.000s] x", Some("SLOW")),
            ("Summary [  12.3s] 120 tests run", None),
            ("left: [1, 2]", None),
            ("thread 'x' [1]", None),
            ("CMD [\"sh\"]", None),
        ] {
            assert_eq!(told(line), end, "{line}");
        }
    }

    #[test]
    fn reads_summaries() {
        let text = "  12.3s] 120 tests run: 118 passed (1 slow), 2 failed, 0 skipped";
        assert_eq!(number_before(text, " passed"), 118);
        assert_eq!(number_before(text, " failed"), 2);
        assert_eq!(
            number_before("test result: ok. 7 passed; 0 failed;", " passed"),
            7
        );
        let flaky = "  12.3s] 120 tests run: 120 passed (1 slow, 3 flaky), 0 skipped";
        assert_eq!(number_before(flaky, " flaky"), 3);
        assert_eq!(number_before("nothing", " passed"), 0);
    }

    /// What a test says twice counts once, and what a failed one says not at all.
    const COUNTS: Counts = Counts {
        passed: 2,
        failed: 1,
        skipped: 2,
        in_part: 1,
        flaky: 0,
    };

    #[test]
    fn tests_are_counted_and_not_lines() {
        let mut tally = Tally::default();
        let lines = [
            ("        PASS [   0.008s] (1/5) berth::e2e silent", true),
            ("        PASS [   0.008s] (2/5) berth::e2e twice", true),
            ("  stdout ───", false),
            ("    skipped: needs one", false),
            ("    skipped: needs another", false),
            ("        PASS [   0.008s] (3/5) berth::e2e half", true),
            ("    skipped in part: needs docker", false),
            ("    skipped in part: needs docker", false),
            (
                "        PASS [   0.008s] (4/5) berth::e2e half and then all",
                true,
            ),
            ("    skipped in part: needs docker", false),
            ("    skipped: needs more", false),
            ("        FAIL [   0.008s] (5/5) berth::e2e failed", true),
            ("    skipped: before it failed", true),
            (
                "     Summary [   0.1s] 5 tests run: 4 passed, 1 failed, 0 skipped",
                true,
            ),
        ];
        for (line, shown) in lines {
            assert_eq!(tally.nextest(line), shown, "{line}");
        }
        assert_eq!(tally.end(), COUNTS);
    }

    #[test]
    fn cargos_own_runner_is_counted_alike() {
        let mut tally = Tally::default();
        let text = "running 5 tests\ntest half ... ok\n\nsuccesses:\n\n---- half stdout ----\nskipped in part: needs docker\n\
                    skipped in part: again\n\n---- both stdout ----\nskipped in part: needs docker\nskipped: more\n\n\
                    ---- twice stdout ----\nskipped: one\nskipped: two\n\n\nsuccesses:\n    half\n    silent\n\nfailures:\n\n\
                    ---- failed stdout ----\nskipped: before it failed\n\nfailures:\n    failed\n\n\
                    test result: FAILED. 4 passed; 1 failed; 0 ignored";
        let shown = text.lines().filter(|line| tally.libtest(line)).count();
        assert!(shown < text.lines().count());
        assert_eq!(tally.end(), COUNTS);
    }
}

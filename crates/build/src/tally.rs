//! How many builds were asked for and why some failed, told to whoever counts.
//!
//! The reasons are those that Docker's daemon counts by. Which one it was is read off the failure's words, which are Docker's own
//! and, unlike their type, the same for every client.

use std::sync::Arc;

/// Something happened to a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It was asked for.
    Begun,
    /// It ends without a result.
    Failed(Reason),
}

/// Why a build failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The Dockerfile cannot be read.
    Syntax,
    /// It says nothing.
    Empty,
    /// The platform has no such instruction.
    NotSupported,
    /// A step, or what it needs, failed.
    Commands,
    /// There is no such stage.
    Target,
    /// An `ONBUILD` without an instruction.
    OnbuildArguments,
    /// There is no such instruction.
    UnknownInstruction,
    /// It was given up.
    Cancelled,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 8] = [
        Reason::Syntax,
        Reason::Empty,
        Reason::NotSupported,
        Reason::Commands,
        Reason::Target,
        Reason::OnbuildArguments,
        Reason::UnknownInstruction,
        Reason::Cancelled,
    ];

    /// Docker's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Syntax => "dockerfile_syntax_error",
            Reason::Empty => "dockerfile_empty_error",
            Reason::NotSupported => "command_not_supported_error",
            Reason::Commands => "error_processing_commands_error",
            Reason::Target => "build_target_not_reachable_error",
            Reason::OnbuildArguments => "missing_onbuild_arguments_error",
            Reason::UnknownInstruction => "unknown_instruction_error",
            Reason::Cancelled => "build_canceled",
        }
    }

    /// Of a failure with this text, of a build that was given up or not.
    pub fn of(message: &str, cancelled: bool) -> Reason {
        if cancelled {
            return Reason::Cancelled;
        }
        let line = message.lines().next().unwrap_or_default();
        match line {
            line if line.contains("unknown instruction: ") => Reason::UnknownInstruction,
            line if line.contains("file with no instructions") => Reason::Empty,
            line if line.contains("failed to reach build target") => Reason::Target,
            // BuildKit's words for it.
            line if line.contains("target stage") && line.contains("could not be found") => Reason::Target,
            line if line.contains("parse error") && line.contains("ONBUILD requires") => {
                Reason::OnbuildArguments
            }
            line if line.contains("dockerfile parse error") => Reason::Syntax,
            _ => Reason::Commands,
        }
    }
}

/// Who counts.
pub type Counter = dyn Fn(Moment) + Send + Sync;

/// Tells whoever counts, if anybody does.
#[derive(Clone, Default)]
pub struct Tally(Option<Arc<Counter>>);

impl Tally {
    pub(crate) fn new(counter: Arc<Counter>) -> Tally {
        Tally(Some(counter))
    }

    /// Tells of a build that has begun. It counts as given up when what comes of it is never told.
    pub fn begin(&self) -> Counted {
        self.tell(Moment::Begun);
        Counted {
            tally: self.clone(),
            told: false,
        }
    }

    fn tell(&self, moment: Moment) {
        if let Some(counter) = &self.0 {
            counter(moment);
        }
    }
}

/// A build until its end is told.
pub struct Counted {
    tally: Tally,
    told: bool,
}

impl Counted {
    /// It has a result.
    pub fn done(mut self) {
        self.told = true;
    }

    /// It failed with this text, given up or not.
    pub fn failed(mut self, message: &str, cancelled: bool) {
        self.told = true;
        self.tally.tell(Moment::Failed(Reason::of(message, cancelled)));
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.told {
            self.tally.tell(Moment::Failed(Reason::Cancelled));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn reasons_are_read_off_the_words() {
        for (message, reason) in [
            (
                "dockerfile parse error on line 1: unknown instruction: FORM\n --> x",
                Reason::UnknownInstruction,
            ),
            (
                "dockerfile parse error on line 2: FROM requires either one or three arguments",
                Reason::Syntax,
            ),
            (
                "dockerfile parse error on line 2: ONBUILD requires at least one argument",
                Reason::OnbuildArguments,
            ),
            ("file with no instructions", Reason::Empty),
            ("failed to reach build target x in Dockerfile", Reason::Target),
            ("target stage \"x\" could not be found", Reason::Target),
            (
                "The command '/bin/sh -c exit 3' returned a non-zero code: 3",
                Reason::Commands,
            ),
        ] {
            assert_eq!(Reason::of(message, false), reason, "{message}");
            assert_eq!(Reason::of(message, true), Reason::Cancelled);
        }
    }

    #[test]
    fn a_build_is_told_of_twice_at_most() {
        let told: Arc<Mutex<Vec<Moment>>> = Arc::default();
        let heard = Arc::clone(&told);
        let tally = Tally::new(Arc::new(move |moment| heard.lock().unwrap().push(moment)));
        tally.begin().done();
        tally.begin().failed("file with no instructions", false);
        drop(tally.begin());
        assert_eq!(
            *told.lock().unwrap(),
            [
                Moment::Begun,
                Moment::Begun,
                Moment::Failed(Reason::Empty),
                Moment::Begun,
                Moment::Failed(Reason::Cancelled)
            ]
        );
    }
}

//! Parsers of foreign bytes under chance: what a corpus holds, changed a little again and again, for a bounded time.
//!
//! Each parser has one test, whose name begins with `fuzz_`, made of one [`Target`]: a directory with inputs, and a function
//! that reads an input, asserts what has to hold whatever the bytes are, and says in words what came of it ([`outcome`]).
//!
//! ```text
//!   corpus ──> as it is ──> changed ──> check ──> an outcome that is new? ──> changed further
//!                              ^                                                    │
//!                              └────────────────────────────────────────────────────┘
//! ```
//!
//! An input with an outcome that none before had joins those that are changed, for the rest of the run: one change gets past
//! the first look of a parser, the next one past the second. Where a check panics, proptest takes changes back as long as it
//! still does, and what is left is written into the corpus as `failed-…`: the next run begins with it, and once the parser
//! is mended it stays there under a better name.
//!
//! How long: [`SECONDS`] in the environment, [`DEFAULT`] otherwise. Only tests use this crate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a target that cannot be run, or fails, fails its test"
)]

mod change;
mod words;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestError, TestRunner};

use change::Shape;
pub use words::outcome;

/// For how many seconds each target is run.
pub const SECONDS: &str = "BERTH_FUZZ_SECONDS";
/// Where nobody says: what a run of all tests can spare.
pub const DEFAULT: Duration = Duration::from_secs(2);

/// Words for every parser of JSON: what stands where something else is wanted, and what is no value of most types.
pub const JSON: [&str; 9] = [
    "null",
    "{}",
    "[]",
    "\"",
    "-1",
    "1e999",
    "18446744073709551616",
    "\u{0}",
    "\\ud800",
];

/// Inputs between two looks at the clock.
const BATCH: u32 = 64;
/// Most inputs that are changed, and the longest of them.
const POOL: usize = 2000;
const LONGEST: usize = 1 << 20;
/// Most attempts to make an input that fails smaller.
const SHRINKS: u32 = 2000;

/// The inputs in a directory of the calling crate.
#[macro_export]
macro_rules! target {
    ($directory:literal) => {
        $crate::Target::new(concat!(env!("CARGO_MANIFEST_DIR"), "/", $directory))
    };
}

/// A parser's inputs, and how they are changed.
pub struct Target {
    directory: PathBuf,
    /// With the names that a failure tells.
    seeds: Vec<(String, Vec<u8>)>,
    shape: Shape,
}

impl Target {
    /// The files in `directory`, as far as there are any.
    pub fn new(directory: impl Into<PathBuf>) -> Target {
        let directory = directory.into();
        let mut paths: Vec<PathBuf> = match std::fs::read_dir(&directory) {
            Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => Vec::new(),
        };
        paths.sort();
        let seeds = paths
            .iter()
            .map(|path| (path.display().to_string(), std::fs::read(path).unwrap()))
            .collect();
        Target {
            directory,
            seeds,
            shape: Shape::default(),
        }
    }

    /// Inputs that are made, or are the inputs of other tests as well.
    pub fn seeds(mut self, inputs: impl IntoIterator<Item = Vec<u8>>) -> Target {
        for input in inputs {
            self.seeds.push((format!("input {}", self.seeds.len()), input));
        }
        self
    }

    /// Makes of each file what is parsed: files may lie there compressed.
    pub fn read_by(mut self, read: impl Fn(Vec<u8>) -> Vec<u8>) -> Target {
        for (_, bytes) in &mut self.seeds {
            *bytes = read(std::mem::take(bytes));
        }
        self
    }

    /// Pieces that mean something to the parser, which come in here and there.
    pub fn words(mut self, words: &[&str]) -> Target {
        self.shape
            .words
            .extend(words.iter().map(|word| word.as_bytes().to_vec()));
        self
    }

    /// What is left out, doubled or taken from another input is so many bytes long, or a multiple, and begins at a multiple.
    pub fn unit(mut self, unit: usize) -> Target {
        self.shape.unit = unit.max(1);
        self
    }

    /// Hands out the inputs as they are.
    pub fn each(&self, mut look: impl FnMut(&[u8])) {
        for (name, input) in &self.seeds {
            // Seen where it panics.
            println!("{name}");
            look(input);
        }
    }

    /// Runs the target. `check` gets each input and says what came of it.
    pub fn run(self, check: impl Fn(&[u8]) -> String) {
        let time = match std::env::var(SECONDS) {
            Ok(text) => Duration::from_secs(text.parse().expect("BERTH_FUZZ_SECONDS is a number")),
            Err(_) => DEFAULT,
        };
        self.run_for(time, check);
    }

    fn run_for(self, time: Duration, check: impl Fn(&[u8]) -> String) {
        let mut outcomes = BTreeSet::new();
        self.each(|input| {
            outcomes.insert(check(input));
        });
        let Target {
            directory,
            seeds,
            shape,
        } = self;
        assert!(!seeds.is_empty(), "{} has no inputs", directory.display());
        let mut pool: Vec<Vec<u8>> = seeds.into_iter().map(|(_, input)| input).collect();
        let longest = pool
            .iter()
            .map(Vec::len)
            .max()
            .unwrap_or(0)
            .saturating_mul(4)
            .clamp(4096, LONGEST);
        let (begun, mut inputs) = (Instant::now(), 0_u64);
        while begun.elapsed() < time {
            let known = Rc::new(pool);
            let found = RefCell::new((outcomes, Vec::new()));
            let config = Config {
                cases: BATCH,
                failure_persistence: None,
                max_shrink_iters: SHRINKS,
                ..Config::default()
            };
            let strategy = change::changed(known.clone(), shape.clone(), longest).prop_map(Rc::new);
            let ended = TestRunner::new(config).run(&strategy, |input| {
                let outcome = check(&input);
                let (outcomes, new) = &mut *found.borrow_mut();
                if outcomes.len() < POOL && outcomes.insert(outcome) {
                    new.push(input.to_vec());
                }
                Ok(())
            });
            match ended {
                Ok(()) => {}
                Err(TestError::Abort(reason)) => panic!("{reason}"),
                Err(TestError::Fail(reason, input)) => {
                    panic!("{}: {reason}", keep(&directory, &input));
                }
            }
            drop(strategy);
            let new;
            (outcomes, new) = found.into_inner();
            pool = Rc::try_unwrap(known).unwrap_or_else(|shared| shared.to_vec());
            pool.extend(new);
            inputs += u64::from(BATCH);
        }
        println!("{inputs} inputs with {} outcomes", outcomes.len());
    }
}

/// Puts an input that fails where the next run begins with it; what to tell of it.
fn keep(directory: &Path, input: &[u8]) -> String {
    // FNV-1a: a name of its own for each.
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = directory.join(format!("failed-{hash:016x}"));
    let kept = std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&path, input));
    match kept {
        Ok(()) => format!("{} ({} bytes)", path.display(), input.len()),
        Err(_) => format!("\"{}\"", input.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parser with a fault that is four looks deep, each of which says something else.
    fn deep(input: &[u8]) -> String {
        let wanted = b"BERT";
        let right = wanted.iter().zip(input).take_while(|(a, b)| a == b).count();
        assert!(right < wanted.len(), "the fault");
        format!("expected {} more", ["four", "three", "two", "one"][right])
    }

    #[test]
    fn what_is_found_out_leads_on_and_what_fails_is_kept_small() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("seed"), b"anything else").unwrap();
        let target = || Target::new(dir.path()).words(&["B", "E", "R", "T"]);
        let hunt = || target().run_for(Duration::from_secs(600), deep);
        let failed = std::panic::catch_unwind(hunt).unwrap_err();
        let said = failed.downcast_ref::<String>().unwrap();
        assert!(said.contains("failed-") && said.contains("the fault"), "{said}");
        let kept: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("failed-"))
            .collect();
        assert_eq!(kept.len(), 1);
        assert!(std::fs::read(&kept[0]).unwrap().starts_with(b"BERT"));
        // The next run begins with it.
        let again = || Target::new(dir.path()).run_for(Duration::ZERO, deep);
        assert!(std::panic::catch_unwind(again).is_err());
    }

    #[test]
    fn runs_are_bounded_and_see_every_input() {
        let seen = RefCell::new(BTreeSet::new());
        let target = Target::new("/nowhere").seeds([b"one".to_vec(), b"two".to_vec()]);
        target.run_for(Duration::from_millis(50), |input| {
            seen.borrow_mut().insert(input.to_vec());
            "same".to_owned()
        });
        let seen = seen.into_inner();
        assert!(seen.contains(b"one".as_slice()) && seen.contains(b"two".as_slice()));
        assert!(seen.len() > 10, "{}", seen.len());
    }
}

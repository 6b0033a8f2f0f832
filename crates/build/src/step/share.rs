//! Work on many files that all processors do together.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Runs `work` in as many threads as there are processors, this one among them, but in no more than there are parts. Each
/// takes the number of its next part from what it is given, until there are none. The first failure ends it for all.
pub fn share<W>(parts: usize, work: W) -> io::Result<()>
where
    W: Fn(&dyn Fn() -> Option<usize>) -> io::Result<()> + Sync,
{
    let taken = AtomicUsize::new(0);
    let next = || Some(taken.fetch_add(1, Ordering::Relaxed)).filter(|part| *part < parts);
    let worker = || {
        let done = work(&next);
        if done.is_err() {
            taken.store(parts, Ordering::Relaxed);
        }
        done
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        // A thread that cannot be had leaves its work to the others.
        let others: Vec<_> = (1..parts.min(processors))
            .filter_map(|_| thread::Builder::new().spawn_scoped(scope, worker).ok())
            .collect();
        let mut done = worker();
        for other in others {
            let other = other.join();
            done =
                done.and(other.unwrap_or_else(|_| Err(io::Error::other("a thread that copies has ended"))));
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_done_once_and_a_failure_ends_it() {
        let done: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
        let all = share(done.len(), |next| {
            while let Some(part) = next() {
                done[part].fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        assert!(all.is_ok());
        assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        let begun = AtomicUsize::new(0);
        let failed = share(1_000_000, |next| {
            while let Some(part) = next() {
                begun.fetch_add(1, Ordering::Relaxed);
                if part == 10 {
                    return Err(io::Error::other("the tenth"));
                }
            }
            Ok(())
        });
        assert_eq!(
            failed.map_err(|error| error.to_string()),
            Err("the tenth".to_owned())
        );
        assert!(begun.load(Ordering::Relaxed) < 1_000_000);
        assert!(
            share(0, |next| {
                assert_eq!(next(), None);
                Ok(())
            })
            .is_ok()
        );
    }
}

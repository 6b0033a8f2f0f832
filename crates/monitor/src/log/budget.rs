//! A total for many logs: when they take more, the oldest files that were put aside go first, whosever they are.
//!
//! What is being written is never touched, so the total may still be exceeded; that is told.

use std::path::PathBuf;

use super::config::LogFiles;
use super::files;

/// What keeping to a budget did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Spent {
    /// Bytes that all logs take now.
    pub bytes: u64,
    /// Oldest first.
    pub removed: Vec<PathBuf>,
}

/// Bytes that a log takes.
pub fn size(log: &LogFiles) -> u64 {
    let newest = std::fs::metadata(&log.path).map_or(0, |metadata| metadata.len());
    newest
        + files::all_aside(log)
            .map(|(_, metadata)| metadata.len())
            .sum::<u64>()
}

/// Removes files put aside until the logs take no more than `budget` bytes. A log that is being rotated at this
/// moment is left for the next time.
pub fn enforce(logs: &[LogFiles], budget: u64) -> Spent {
    let mut spent = Spent {
        bytes: logs.iter().map(size).sum(),
        removed: Vec::new(),
    };
    if spent.bytes <= budget {
        return spent;
    }
    let mut aside: Vec<(u64, u64, &LogFiles, PathBuf)> = Vec::new();
    for log in logs {
        for (path, metadata) in files::all_aside(log) {
            aside.push((files::written(&metadata), metadata.len(), log, path));
        }
    }
    aside.sort_by_key(|(written, ..)| *written);
    for (written, length, log, path) in aside {
        if spent.bytes <= budget {
            break;
        }
        let Some(_guard) = files::lock(&log.path) else {
            continue;
        };
        // Its number may have changed since it was looked at; then the next time will find it.
        let same = std::fs::metadata(&path).is_ok_and(|found| files::written(&found) == written);
        if same && std::fs::remove_file(&path).is_ok() {
            spent.bytes = spent.bytes.saturating_sub(length);
            spent.removed.push(path);
        }
    }
    spent
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::format::Format;
    use super::*;

    fn log(directory: &Path, name: &str) -> LogFiles {
        LogFiles {
            format: Format::Json,
            path: directory.join(name).join("log"),
            max_size: None,
            max_file: 4,
            max_age: None,
            compress: false,
        }
    }

    fn put(path: &Path, length: usize, written: u64) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![b'x'; length]).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(written))
            .unwrap();
    }

    #[test]
    fn the_oldest_go_first_and_what_is_written_stays() {
        let root = tempfile::TempDir::new().unwrap();
        let (one, two) = (log(root.path(), "one"), log(root.path(), "two"));
        let aside = |log: &LogFiles, name: &str| PathBuf::from(format!("{}{name}", log.path.display()));
        put(&one.path, 100, 90);
        put(&aside(&one, ".1"), 10, 50);
        put(&aside(&one, ".2.gz"), 20, 20);
        put(&two.path, 200, 10);
        put(&aside(&two, ".1.gz"), 30, 40);
        let logs = [one.clone(), two.clone()];
        assert_eq!(enforce(&logs, 360).removed, Vec::<PathBuf>::new());
        let spent = enforce(&logs, 330);
        assert_eq!(spent.bytes, 310);
        assert_eq!(spent.removed, [aside(&one, ".2.gz"), aside(&two, ".1.gz")]);
        let guard = files::lock(&one.path).unwrap();
        assert_eq!(enforce(&logs, 0).removed, Vec::<PathBuf>::new());
        drop(guard);
        let spent = enforce(&logs, 0);
        assert_eq!((spent.bytes, spent.removed), (300, vec![aside(&one, ".1")]));
    }
}

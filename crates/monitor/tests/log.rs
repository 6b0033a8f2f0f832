//! The log's writer and reader on real files: rotation, compression, the last lines, following.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use monitor::log::{
    Format, LogConfig, LogFiles, LogLine, Next, ReadOptions, Reader, Stream, Trouble, Writer,
};
use tempfile::TempDir;

fn config_of(
    format: Format,
    root: &TempDir,
    max_size: Option<u64>,
    max_file: u32,
    compress: bool,
) -> LogConfig {
    LogConfig::of_files(LogFiles {
        format,
        path: root.path().join("c-json.log"),
        max_size,
        max_file,
        max_age: None,
        compress,
    })
}

fn config(root: &TempDir, max_size: Option<u64>, max_file: u32, compress: bool) -> LogConfig {
    config_of(Format::Json, root, max_size, max_file, compress)
}

fn path(config: &LogConfig) -> &std::path::Path {
    &config.files.as_ref().unwrap().path
}

/// Every form with and without compression.
fn forms() -> [(Format, bool); 4] {
    [
        (Format::Json, false),
        (Format::Json, true),
        (Format::Local, false),
        (Format::Local, true),
    ]
}

fn everything() -> ReadOptions {
    ReadOptions {
        stdout: true,
        stderr: true,
        ..ReadOptions::default()
    }
}

fn texts(config: &LogConfig, options: ReadOptions) -> Vec<String> {
    Reader::open(config, options)
        .unwrap()
        .map(|line| text(&line.unwrap()))
        .collect()
}

fn text(line: &LogLine) -> String {
    String::from_utf8(line.bytes.clone()).unwrap()
}

fn numbered(writer: &mut Writer, range: std::ops::Range<u32>) {
    for number in range {
        writer.push(Stream::Stdout, format!("line {number}\n").as_bytes());
    }
}

fn expected(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("line {number}\n")).collect()
}

#[test]
fn what_is_written_is_read() {
    let root = TempDir::new().unwrap();
    let config = config(&root, None, 1, false);
    let mut writer = Writer::open(&config).unwrap();
    writer.push(Stream::Stdout, b"one\ntwo");
    writer.push(Stream::Stderr, b"bad\n");
    writer.push(Stream::Stdout, b" and a half\nlast");
    writer.finish(Stream::Stdout);
    assert_eq!(
        texts(&config, everything()),
        ["one\n", "bad\n", "two and a half\n", "last"]
    );
    let only = ReadOptions {
        stdout: false,
        ..everything()
    };
    assert_eq!(texts(&config, only), ["bad\n"]);
    let lines: Vec<LogLine> = Reader::open(&config, everything())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        lines.iter().map(|line| line.partial).collect::<Vec<_>>(),
        [false, false, false, true]
    );
    let after = ReadOptions {
        since: Some(Timestamp::now()),
        ..everything()
    };
    assert!(texts(&config, after).is_empty());
    let before = ReadOptions {
        until: Some(lines[1].time),
        ..everything()
    };
    assert!(texts(&config, before).len() >= 2);
}

#[test]
fn a_log_that_was_never_written_is_empty_and_none_is_refused() {
    let root = TempDir::new().unwrap();
    assert!(texts(&config(&root, None, 3, true), everything()).is_empty());
    let error = Reader::open(&LogConfig::none(), everything()).err().unwrap();
    assert_eq!(
        error.to_string(),
        "configured logging driver does not support reading"
    );
}

#[test]
fn full_files_are_put_aside_between_entries() {
    for (format, compress) in forms() {
        let root = TempDir::new().unwrap();
        let config = config_of(format, &root, Some(4000), 4, compress);
        let mut writer = Writer::open(&config).unwrap();
        for block in 0..90 {
            numbered(&mut writer, block * 10..block * 10 + 10);
            if compress {
                // The next rotation may come before the compression is done; wait, so that the count is certain.
                let tmp = root.path().join("c-json.log.1.gz.tmp");
                while tmp.exists() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        drop(writer);
        let mut names: Vec<String> = fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let suffix = if compress { ".gz" } else { "" };
        let mut wanted = vec!["c-json.log".to_owned()];
        wanted.extend((1..4).map(|number| format!("c-json.log.{number}{suffix}")));
        assert_eq!(names, wanted);
        let read = texts(&config, everything());
        let first = 900 - u32::try_from(read.len()).unwrap();
        assert!(first > 0, "nothing was dropped");
        assert_eq!(read, expected(first..900), "{format:?} compress {compress}");
        for count in [0, 1, 7, 60, 100, 1000] {
            let tail = texts(
                &config,
                ReadOptions {
                    tail: Some(count),
                    ..everything()
                },
            );
            let from = 900 - u32::try_from(count).unwrap().min(900 - first);
            assert_eq!(
                tail,
                expected(from..900),
                "{format:?} tail {count} compress {compress}"
            );
        }
        for entry in fs::read_dir(root.path()).unwrap() {
            let entry = entry.unwrap();
            if format == Format::Json && !entry.file_name().to_str().unwrap().ends_with(".gz") {
                let text = fs::read_to_string(entry.path()).unwrap();
                assert!(text.starts_with("{\"log\":") && text.ends_with("\"}\n"));
            }
        }
    }
}

#[test]
fn a_single_file_is_emptied() {
    let root = TempDir::new().unwrap();
    let config = config(&root, Some(1000), 1, false);
    let mut writer = Writer::open(&config).unwrap();
    numbered(&mut writer, 0..100);
    assert!(fs::metadata(path(&config)).unwrap().len() < 1200);
    assert_eq!(texts(&config, everything()).last().unwrap(), "line 99\n");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn a_torn_line_is_ended_and_left_out() {
    let root = TempDir::new().unwrap();
    let config = config(&root, None, 1, false);
    let mut writer = Writer::open(&config).unwrap();
    numbered(&mut writer, 0..1);
    drop(writer);
    fs::OpenOptions::new()
        .append(true)
        .open(path(&config))
        .unwrap()
        .write_all(b"{\"log\":\"ha")
        .unwrap();
    let mut writer = Writer::open(&config).unwrap();
    numbered(&mut writer, 1..2);
    assert_eq!(texts(&config, everything()), expected(0..2));
}

#[test]
fn a_full_disk_is_told_once_and_got_over() {
    if !std::path::Path::new("/dev/full").exists() {
        println!("skipped: no /dev/full");
        return;
    }
    let root = TempDir::new().unwrap();
    let config = config(&root, None, 1, false);
    std::os::unix::fs::symlink("/dev/full", path(&config)).unwrap();
    let mut writer = Writer::open(&config).unwrap();
    writer.push(Stream::Stdout, b"lost\n");
    assert!(matches!(writer.troubles()[..], [Trouble::Files(_)]));
    writer.push(Stream::Stdout, b"lost too\n");
    assert_eq!(writer.troubles(), []);
}

fn follow(config: &LogConfig) -> Reader {
    Reader::open(
        config,
        ReadOptions {
            follow: true,
            ..everything()
        },
    )
    .unwrap()
}

#[test]
fn a_follower_hears_of_what_is_new() {
    let root = TempDir::new().unwrap();
    let config = config(&root, None, 1, false);
    let mut reader = follow(&config);
    assert_eq!(reader.next_ready().unwrap(), Next::Pending);
    let mut writer = Writer::open(&config).unwrap();
    numbered(&mut writer, 0..3);
    assert_eq!(text(&reader.next().unwrap().unwrap()), "line 0\n");
    assert_eq!(text(&reader.next().unwrap().unwrap()), "line 1\n");
    assert_eq!(text(&reader.next().unwrap().unwrap()), "line 2\n");
    assert_eq!(reader.next_ready().unwrap(), Next::Pending);
    let stopper = reader.stopper();
    let waiting = std::thread::spawn(move || reader.map(|line| text(&line.unwrap())).collect::<Vec<_>>());
    numbered(&mut writer, 3..4);
    stopper.finish();
    assert_eq!(waiting.join().unwrap(), expected(3..4));
}

/// The writer is a process of its own as a monitor is: it makes a child to compress, which only a process of a single
/// thread may do.
#[test]
fn followers_lose_nothing_across_rotation() {
    for (format, compress) in forms() {
        let root = TempDir::new().unwrap();
        // Enough files that none is dropped before it is read, however the two take turns.
        let config = config_of(format, &root, Some(10_000), 200, compress);
        let mut writer = Writer::open(&config).unwrap();
        numbered(&mut writer, 0..10);
        let reader = follow(&config);
        let stopper = reader.stopper();
        let writing = sys::process::spawn(sys::process::Options::default(), move || {
            for block in 1..200 {
                numbered(&mut writer, block * 10..block * 10 + 10);
            }
            0
        });
        let writing = writing.unwrap();
        let reading = std::thread::spawn(move || reader.map(|line| text(&line.unwrap())).collect::<Vec<_>>());
        let wrote = sys::process::wait(std::os::fd::AsFd::as_fd(&writing.pidfd)).unwrap();
        assert_eq!(wrote, sys::process::Exit::Code(0));
        stopper.finish();
        let read = reading.join().unwrap();
        assert_eq!(read.len(), 2000, "{format:?} compress {compress}");
        assert_eq!(read, expected(0..2000), "{format:?} compress {compress}");
    }
}

#[test]
fn a_sleeping_follower_finds_its_way_over_many_rotations() {
    for (format, compress) in forms() {
        let root = TempDir::new().unwrap();
        let config = config_of(format, &root, Some(2000), 100, compress);
        let mut writer = Writer::open(&config).unwrap();
        numbered(&mut writer, 0..5);
        let mut reader = follow(&config);
        for _ in 0..5 {
            reader.next().unwrap().unwrap();
        }
        numbered(&mut writer, 5..300);
        drop(writer);
        reader.stopper().finish();
        let rest: Vec<String> = reader.map(|line| text(&line.unwrap())).collect();
        assert_eq!(rest, expected(5..300), "{format:?} compress {compress}");
    }
}

#[test]
fn an_emptied_file_is_followed_from_its_beginning() {
    let root = TempDir::new().unwrap();
    let config = config(&root, Some(1000), 1, false);
    let mut writer = Writer::open(&config).unwrap();
    let mut reader = follow(&config);
    let mut last = String::new();
    for number in 0..200 {
        numbered(&mut writer, number..number + 1);
        while let Next::Line(line) = reader.next_ready().unwrap() {
            last = text(&line);
        }
    }
    assert_eq!(last, "line 199\n");
}

#[test]
fn following_ends_at_the_asked_time() {
    let root = TempDir::new().unwrap();
    let config = config(&root, None, 1, false);
    let _writer = Writer::open(&config).unwrap();
    let until = Timestamp::now() + Duration::from_millis(30);
    let options = ReadOptions {
        follow: true,
        until: Some(until),
        ..everything()
    };
    let started = Instant::now();
    assert_eq!(Reader::open(&config, options).unwrap().count(), 0);
    assert!(started.elapsed() >= Duration::from_millis(25));
}

#[test]
fn a_clock_that_was_put_back_hides_no_line() {
    let root = TempDir::new().unwrap();
    let config = config(&root, None, 1, false);
    let lines = ["10:00", "11:00", "11:01", "10:02", "10:03"];
    let entries = lines.map(|time| {
        format!("{{\"log\":\"{time}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T{time}:00Z\"}}\n")
    });
    fs::write(path(&config), entries.concat()).unwrap();
    let between = Some("2026-01-01T10:30:00Z".parse().unwrap());
    for follow in [false, true] {
        let early = ReadOptions {
            until: between,
            follow,
            ..everything()
        };
        // An end that has passed ends a follower, too.
        assert_eq!(
            texts(&config, early),
            ["10:00\n", "10:02\n", "10:03\n"],
            "{follow}"
        );
    }
    let late = ReadOptions {
        since: between,
        ..everything()
    };
    assert_eq!(texts(&config, late), ["11:00\n", "11:01\n"]);
    // An entry of a time to come does not end a follower before that time has come.
    let ahead = Timestamp::now() + Duration::from_secs(3600);
    let entry = format!("{{\"log\":\"ahead\\n\",\"stream\":\"stdout\",\"time\":\"{ahead}\"}}\n");
    fs::write(path(&config), [entry, entries[0].clone()].concat()).unwrap();
    let soon = ReadOptions {
        until: Some(Timestamp::now() + Duration::from_millis(200)),
        follow: true,
        ..everything()
    };
    assert_eq!(texts(&config, soon), ["10:00\n"]);
}

#[test]
fn a_torn_frame_is_cut_off() {
    let root = TempDir::new().unwrap();
    let config = config_of(Format::Local, &root, None, 1, false);
    numbered(&mut Writer::open(&config).unwrap(), 0..3);
    let length = fs::metadata(path(&config)).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(path(&config))
        .unwrap()
        .set_len(length - 5)
        .unwrap();
    numbered(&mut Writer::open(&config).unwrap(), 3..5);
    assert_eq!(
        texts(&config, everything()),
        ["line 0\n", "line 1\n", "line 3\n", "line 4\n"]
    );
}

#[test]
fn long_lines_are_whole_up_to_the_limit_and_marked_beyond() {
    for format in [Format::Json, Format::Local] {
        let root = TempDir::new().unwrap();
        let mut config = config_of(format, &root, None, 1, false);
        let line = format!("{}\n", "é".repeat(300_000));
        let mut writer = Writer::open(&config).unwrap();
        for chunk in line.as_bytes().chunks(32 * 1024 - 1) {
            writer.push(Stream::Stdout, chunk);
        }
        assert_eq!(texts(&config, everything()), [line.as_str()], "{format:?}");
        config.max_line = 16 * 1024;
        let mut writer = Writer::open(&config).unwrap();
        for chunk in line.as_bytes().chunks(32 * 1024 - 1) {
            writer.push(Stream::Stdout, chunk);
        }
        let lines: Vec<LogLine> = Reader::open(&config, everything())
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let pieces = &lines[1..];
        assert_eq!(pieces.len(), 600_000usize.div_ceil(16 * 1024), "{format:?}");
        assert!(pieces.iter().rev().skip(1).all(|piece| piece.partial));
        assert!(!pieces.last().unwrap().partial);
        let whole: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.clone()).collect();
        assert!(whole == line.as_bytes());
    }
}

#[test]
fn old_entries_go_file_by_file_even_when_nothing_is_written() {
    const MINUTE: Duration = Duration::from_secs(60);
    let root = TempDir::new().unwrap();
    let mut config = config_of(Format::Local, &root, None, 5, false);
    config.files.as_mut().unwrap().max_age = Some(60 * MINUTE);
    let mut writer = Writer::open(&config).unwrap();
    assert_eq!(writer.next_look(), None);
    numbered(&mut writer, 0..3);
    let files = || fs::read_dir(root.path()).unwrap().count();
    // The last entry came a minute after the first, by which the file's age counts.
    let first_is_old = writer.next_look().expect("there is something to look after");
    let file = fs::File::options().write(true).open(path(&config)).unwrap();
    let last = file.metadata().unwrap().modified().unwrap() + MINUTE;
    file.set_modified(last).unwrap();

    writer.age(first_is_old - 1);
    assert_eq!(files(), 1, "nothing is old yet");
    writer.age(first_is_old);
    assert_eq!(files(), 2, "put aside, since its first entry is old");
    assert_eq!(texts(&config, everything()), expected(0..3));
    let last_is_old = writer.next_look().expect("there is something to look after");
    let between = Duration::from_nanos(u64::try_from(last_is_old - first_is_old).unwrap());
    assert!(between > MINUTE / 2 && between < 2 * MINUTE, "{between:?}");
    writer.age(last_is_old - 1);
    assert_eq!(texts(&config, everything()), expected(0..3));
    writer.age(last_is_old);
    assert_eq!(files(), 1, "gone, since its last entry is old");
    assert_eq!(writer.next_look(), None);
    numbered(&mut writer, 3..4);
    assert_eq!(texts(&config, everything()), expected(3..4));
}

/// Without following, a reader has what was there when it came: however much is written meanwhile, it ends.
#[test]
fn what_is_written_after_a_reader_came_is_for_those_who_follow() {
    for (format, compress) in forms() {
        for tail in [None, Some(0), Some(2), Some(10)] {
            let root = TempDir::new().unwrap();
            let config = config_of(format, &root, None, 1, compress);
            let mut writer = Writer::open(&config).unwrap();
            numbered(&mut writer, 0..4);
            let options = ReadOptions { tail, ..everything() };
            let reader = Reader::open(&config, options).unwrap();
            numbered(&mut writer, 4..1000);
            let lines: Vec<String> = reader.map(|line| text(&line.unwrap())).collect();
            let first = tail.map_or(0, |count| 4 - count.min(4));
            let wanted = expected(u32::try_from(first).unwrap()..4);
            assert_eq!(lines, wanted, "{format:?} tail {tail:?}");
        }
    }
}

#[test]
fn the_last_lines_of_a_large_log_are_read_without_the_rest() {
    for (format, compress) in forms() {
        let root = TempDir::new().unwrap();
        let config = config_of(format, &root, Some(8 << 20), 6, compress);
        let mut writer = Writer::open(&config).unwrap();
        let block: String = (0..500).map(|n| format!("{n:04} {}\n", "y".repeat(95))).collect();
        for _ in 0..800 {
            writer.push(Stream::Stdout, block.as_bytes());
        }
        drop(writer);
        let before = read_bytes();
        let options = ReadOptions {
            tail: Some(300),
            ..everything()
        };
        let lines = texts(&config, options);
        assert_eq!(lines.len(), 300);
        assert!(lines[299].starts_with("0499 ") && lines[0].starts_with("0200 "));
        let read = read_bytes() - before;
        assert!(
            read < 8 << 20,
            "{format:?} {compress}: {read} bytes were read for 300 lines"
        );
    }
}

/// What this thread has read so far, in bytes.
fn read_bytes() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("rchar: "))
        .unwrap();
    line.parse().unwrap()
}

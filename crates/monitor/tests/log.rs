//! The log's writer and reader on real files: rotation, compression, the last lines, following.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use monitor::log::{LogConfig, LogDriver, LogLine, Next, ReadOptions, Reader, Stream, Writer};
use tempfile::TempDir;

fn config(root: &TempDir, max_size: Option<u64>, max_file: u32, compress: bool) -> LogConfig {
    LogConfig {
        driver: LogDriver::JsonFile,
        path: root.path().join("c-json.log"),
        max_size,
        max_file,
        compress,
        attributes: Default::default(),
    }
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
        writer
            .push(Stream::Stdout, format!("line {number}\n").as_bytes())
            .unwrap();
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
    writer.push(Stream::Stdout, b"one\ntwo").unwrap();
    writer.push(Stream::Stderr, b"bad\n").unwrap();
    writer.push(Stream::Stdout, b" and a half\nlast").unwrap();
    writer.finish(Stream::Stdout).unwrap();
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
    for compress in [false, true] {
        let root = TempDir::new().unwrap();
        let config = config(&root, Some(4000), 4, compress);
        let mut writer = Writer::open(&config).unwrap();
        for block in 0..30 {
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
        let first = 300 - u32::try_from(read.len()).unwrap();
        assert!(first > 0, "nothing was dropped");
        assert_eq!(read, expected(first..300), "compress {compress}");
        for count in [0, 1, 7, 60, 100, 1000] {
            let tail = texts(
                &config,
                ReadOptions {
                    tail: Some(count),
                    ..everything()
                },
            );
            let from = 300 - u32::try_from(count).unwrap().min(300 - first);
            assert_eq!(tail, expected(from..300), "tail {count} compress {compress}");
        }
        for entry in fs::read_dir(root.path()).unwrap() {
            let entry = entry.unwrap();
            if !entry.file_name().to_str().unwrap().ends_with(".gz") {
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
    assert!(fs::metadata(&config.path).unwrap().len() < 1200);
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
        .open(&config.path)
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
    std::os::unix::fs::symlink("/dev/full", &config.path).unwrap();
    let mut writer = Writer::open(&config).unwrap();
    assert!(writer.push(Stream::Stdout, b"lost\n").is_err());
    assert!(writer.push(Stream::Stdout, b"lost too\n").is_ok());
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

#[test]
fn followers_lose_nothing_across_rotation() {
    for compress in [false, true] {
        let root = TempDir::new().unwrap();
        // Enough files that none is dropped before it is read, however the two take turns.
        let config = config(&root, Some(10_000), 200, compress);
        let mut writer = Writer::open(&config).unwrap();
        numbered(&mut writer, 0..10);
        let reader = follow(&config);
        let stopper = reader.stopper();
        let waiting = std::thread::spawn(move || reader.map(|line| text(&line.unwrap())).collect::<Vec<_>>());
        for block in 1..200 {
            numbered(&mut writer, block * 10..block * 10 + 10);
        }
        stopper.finish();
        let read = waiting.join().unwrap();
        assert_eq!(read.len(), 2000, "compress {compress}");
        assert_eq!(read, expected(0..2000), "compress {compress}");
    }
}

#[test]
fn a_sleeping_follower_finds_its_way_over_many_rotations() {
    for compress in [false, true] {
        let root = TempDir::new().unwrap();
        let config = config(&root, Some(2000), 100, compress);
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
        assert_eq!(rest, expected(5..300), "compress {compress}");
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

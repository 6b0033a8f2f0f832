use jiff::Timestamp;

use super::*;
use crate::forward::{Destination, GelfCompression, SyslogFormat, Transport};

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn config(driver: &str, pairs: &[(&str, &str)]) -> Result<LogConfig, LogConfigError> {
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let subject = Subject {
        id: "0123456789abcdef",
        name: "web",
        image_id: "sha256:1",
        image: "app",
        command: "run".to_owned(),
        created: Timestamp::UNIX_EPOCH,
        env: &[],
        labels: &labels,
        hostname: "host".to_owned(),
    };
    LogConfig::of(driver, &options(pairs), Path::new("/c"), &subject)
}

fn files(driver: &str, pairs: &[(&str, &str)]) -> LogFiles {
    config(driver, pairs).unwrap().files.unwrap()
}

fn refusal(driver: &str, pairs: &[(&str, &str)]) -> String {
    LogConfig::check(driver, &options(pairs)).unwrap_err().to_string()
}

#[test]
fn growth_is_limited_unless_asked_otherwise() {
    let json = files("", &[]);
    assert_eq!((json.max_size, json.max_file), (Some(JSON_FILE_SIZE), 2));
    assert_eq!(json.path, Path::new("/c/0123456789abcdef-json.log"));
    assert_eq!(files("json-file", &[("max-size", "-1")]).max_size, None);
    let one = files("json-file", &[("max-size", "10m")]);
    assert_eq!((one.max_size, one.max_file), (Some(10_000_000), 1));
    let local = files("local", &[("max-age", "7d")]);
    assert_eq!(
        (local.max_size, local.max_file, local.compress),
        (Some(20 << 20), 5, true)
    );
    assert_eq!(local.max_age, Some(Duration::from_secs(7 * 86_400)));
    let cache = files("syslog", &[("cache-max-size", "1m"), ("cache-max-file", "1")]);
    assert_eq!(
        (cache.max_size, cache.max_file, cache.compress),
        (Some(1_000_000), 1, false)
    );
    assert_eq!(
        config("syslog", &[("cache-disabled", "true")]).unwrap().files,
        None
    );
    assert_eq!(config("none", &[("x", "y")]).unwrap(), LogConfig::none());
}

#[test]
fn lines_are_whole_up_to_a_limit() {
    assert_eq!(config("local", &[]).unwrap().max_line, 1 << 20);
    assert_eq!(
        config("gelf", &[("gelf-address", "udp://h:1")]).unwrap().max_line,
        16 << 10
    );
    assert_eq!(
        config("json-file", &[("max-line-size", "16k")]).unwrap().max_line,
        16 << 10
    );
    assert!(refusal("json-file", &[("max-line-size", "17m")]).contains("16m"));
}

#[test]
fn nonsense_is_refused_by_name() {
    assert_eq!(
        refusal("nope", &[]),
        "logger: no log driver named 'nope' is registered"
    );
    assert_eq!(
        refusal("json-file", &[("x", "1")]),
        "unknown log opt 'x' for json-file log driver"
    );
    assert_eq!(
        refusal("local", &[("x", "1")]),
        "unknown log opt 'x' for log driver local"
    );
    assert_eq!(
        refusal("syslog", &[("max-size", "1m")]),
        "unknown log opt 'max-size' for syslog log driver"
    );
    assert!(refusal("json-file", &[("max-size", "ten")]).contains("max-size"));
    assert!(refusal("json-file", &[("max-file", "0")]).contains("max-file cannot be less than 1"));
    assert!(refusal("json-file", &[("max-size", "0")]).contains("positive"));
    assert!(refusal("json-file", &[("max-age", "soon")]).contains("max-age"));
    assert!(refusal("json-file", &[("env-regex", "(")]).contains("env-regex"));
    assert!(refusal("json-file", &[("tag", "{{.Nope}}")]).contains("{{.Nope}}"));
    assert_eq!(
        refusal("json-file", &[("compress", "true"), ("max-file", "1")]),
        "compress cannot be true when max-file is less than 2 or max-size is not set"
    );
    assert_eq!(
        refusal("json-file", &[("mode", "fast")]),
        "logger: logging mode not supported: fast"
    );
    assert_eq!(
        refusal("json-file", &[("max-buffer-size", "1m")]),
        "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
    );
}

#[test]
fn a_collector_that_is_away_stops_nothing_unless_asked() {
    let forward = |pairs: &[(&str, &str)]| config("syslog", pairs).unwrap().forward.unwrap();
    assert!(forward(&[]).drop_when_full);
    assert!(!forward(&[("mode", "blocking")]).drop_when_full);
    let chosen = forward(&[("mode", "non-blocking"), ("max-buffer-size", "4m")]);
    assert_eq!((chosen.drop_when_full, chosen.buffer), (true, 4 << 20));
}

#[test]
fn destinations() {
    let forward = |driver, pairs: &[(&str, &str)]| config(driver, pairs).unwrap().forward.unwrap();
    let syslog = forward(
        "syslog",
        &[
            ("syslog-address", "tcp://logs.example"),
            ("syslog-facility", "local3"),
            ("syslog-format", "rfc5424micro"),
            ("tag", "{{.Name}}"),
            ("labels", "a"),
        ],
    );
    assert_eq!(syslog.source.tag, "web");
    assert_eq!(syslog.attributes["a"], "b");
    let Destination::Syslog {
        transport: Transport::Tcp(address),
        facility,
        format,
    } = syslog.to
    else {
        unreachable!()
    };
    assert_eq!(
        (address.to_string().as_str(), facility),
        ("logs.example:514", 19 << 3)
    );
    assert_eq!(format, SyslogFormat::Rfc5424 { micro: true });
    let fluentd = forward(
        "fluentd",
        &[("fluentd-address", "[::1]:9"), ("fluentd-async", "1")],
    );
    assert!(!fluentd.connect_first);
    assert_eq!(fluentd.source.tag, "0123456789ab");
    let Destination::Fluentd {
        transport: Transport::Tcp(address),
        ..
    } = fluentd.to
    else {
        unreachable!()
    };
    assert_eq!(address.to_string(), "[::1]:9");
    let gelf = forward(
        "gelf",
        &[
            ("gelf-address", "udp://h:12201"),
            ("gelf-compression-type", "zlib"),
        ],
    );
    let Destination::Gelf { compression, .. } = gelf.to else {
        unreachable!()
    };
    assert_eq!(compression, GelfCompression::Zlib(1));
}

#[test]
fn destinations_that_cannot_be_are_refused_in_dockers_words() {
    assert_eq!(refusal("gelf", &[]), "gelf-address is a required parameter");
    assert_eq!(
        refusal("gelf", &[("gelf-address", "http://h:1")]),
        "gelf: endpoint needs to be TCP or UDP"
    );
    assert_eq!(
        refusal("gelf", &[("gelf-address", "udp://h")]),
        "gelf: please provide gelf-address as proto://host:port"
    );
    assert_eq!(
        refusal("syslog", &[("syslog-address", "corrupted:42")]),
        "syslog-address should be in form proto://address, got corrupted:42"
    );
    assert_eq!(
        refusal("syslog", &[("syslog-facility", "x")]),
        "invalid syslog facility"
    );
    assert_eq!(
        refusal("syslog", &[("syslog-format", "x")]),
        "Invalid syslog format"
    );
    assert!(
        refusal("fluentd", &[("fluentd-address", "corrupted:c")])
            .starts_with("invalid fluentd-address corrupted:c: ")
    );
    assert!(refusal("fluentd", &[("fluentd-retry-wait", "x")]).contains("fluentd-retry-wait"));
}

#[test]
fn durations() {
    assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
    assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
    assert_eq!(duration("0"), Ok(Duration::ZERO));
    for wrong in ["", "5", "s", "1x", "-1s"] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}

//! The messages themselves, one a line, as BuildKit's client writes its `SolveStatus`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;
use serde_json::{Map, Value, json};

/// Leaves out what says nothing.
struct Object(Map<String, Value>);

impl Object {
    fn new() -> Object {
        Object(Map::new())
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Object {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    fn text(self, key: &str, value: &str) -> Object {
        if value.is_empty() {
            self
        } else {
            self.with(key, value)
        }
    }

    fn number(self, key: &str, value: i64) -> Object {
        if value == 0 { self } else { self.with(key, value) }
    }

    fn time(self, key: &str, value: Option<&Timestamp>) -> Object {
        let time = value.and_then(|time| jiff::Timestamp::new(time.seconds, time.nanos).ok());
        match time {
            Some(time) => self.with(key, time.to_string()),
            None => self,
        }
    }

    fn list(self, key: &str, values: Vec<Value>) -> Object {
        if values.is_empty() {
            self
        } else {
            self.with(key, values)
        }
    }

    fn value(self) -> Value {
        Value::Object(self.0)
    }
}

pub fn line(status: &StatusResponse) -> String {
    let vertexes = status.vertexes.iter().map(|vertex| {
        let object = Object::new().text("digest", &vertex.digest);
        let inputs = vertex.inputs.iter().map(|input| json!(input)).collect();
        let object = object.list("inputs", inputs).text("name", &vertex.name);
        let object = object.time("started", vertex.started.as_ref());
        let object = object.time("completed", vertex.completed.as_ref());
        let object = if vertex.cached {
            object.with("cached", true)
        } else {
            object
        };
        object.text("error", &vertex.error).value()
    });
    let statuses = status.statuses.iter().map(|part| {
        Object::new()
            .with("id", part.id.as_str())
            .text("vertex", &part.vertex)
            .text("name", &part.name)
            .number("total", part.total)
            .with("current", part.current)
            .time("timestamp", part.timestamp.as_ref())
            .time("started", part.started.as_ref())
            .time("completed", part.completed.as_ref())
            .value()
    });
    let logs = status.logs.iter().map(|log| {
        Object::new()
            .text("vertex", &log.vertex)
            .number("stream", log.stream)
            .with("data", STANDARD.encode(&log.msg))
            .time("timestamp", log.timestamp.as_ref())
            .value()
    });
    let warnings = status.warnings.iter().map(|warning| {
        let detail = warning
            .detail
            .iter()
            .map(|line| json!(STANDARD.encode(line)))
            .collect();
        Object::new()
            .text("vertex", &warning.vertex)
            .number("level", warning.level)
            .text("short", &STANDARD.encode(&warning.short))
            .list("detail", detail)
            .text("url", &warning.url)
            .value()
    });
    let whole = Object::new()
        .list("vertexes", vertexes.collect())
        .list("statuses", statuses.collect())
        .list("logs", logs.collect())
        .list("warnings", warnings.collect());
    format!("{}\n", whole.value())
}

//! What an answer looked like in older versions of the API, as plain functions over its newest form.
//!
//! Each noun has a table of [`Change`]s, newest first. A change names the version that brought the newer form and undoes it
//! for clients older than that. The newest form is written in the order of its struct; once a change has been undone the
//! answer is a map and its keys are sorted, which is what a Docker engine does too.
//!
//! Source: the API's version history, held against answers recorded from a real engine (`tests/golden`).

pub mod container;
pub mod disk_usage;
pub mod event;
pub mod image;
pub mod network;
pub mod system;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::version::ApiVersion;

/// One difference between two versions of an answer.
pub struct Change {
    /// The version (1.x) that brought the newer form.
    pub since: u32,
    /// Gives the document the older form.
    pub undo: fn(&mut Map<String, Value>),
}

/// An answer in the form of one version.
#[derive(Debug, Clone, PartialEq)]
pub enum View<T> {
    Newest(T),
    Older(Value),
}

impl<T: Serialize> Serialize for View<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            View::Newest(newest) => newest.serialize(serializer),
            View::Older(value) => value.serialize(serializer),
        }
    }
}

/// The form that `version` knows.
pub fn view<T: Serialize>(newest: T, version: ApiVersion, changes: &[Change]) -> View<T> {
    let mut wanted = changes
        .iter()
        .filter(|change| !version.has(change.since))
        .peekable();
    if wanted.peek().is_none() {
        return View::Newest(newest);
    }
    match serde_json::to_value(&newest) {
        Ok(Value::Object(mut document)) => {
            for change in wanted {
                (change.undo)(&mut document);
            }
            View::Older(Value::Object(document))
        }
        _ => View::Newest(newest),
    }
}

/// The object below a key, if there is one.
fn object<'a>(document: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    document.get_mut(key).and_then(Value::as_object_mut)
}

/// Adds what is absent.
fn fill(document: &mut Map<String, Value>, defaults: Value) {
    if let Value::Object(defaults) = defaults {
        for (key, value) in defaults {
            document.entry(key).or_insert(value);
        }
    }
}

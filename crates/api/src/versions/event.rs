//! Events in older versions.

use api_types::Event;
use serde_json::Value;

use super::View;
use crate::version::ApiVersion;

/// One event, or nothing where the version does not know it.
pub fn event(newest: Event, version: ApiVersion) -> Option<View<Event>> {
    if !version.has(46) && newest.kind == "image" && newest.action == "create" {
        return None;
    }
    // The engine may fill in the form of old; newer versions don't show it.
    let newest = Event {
        status: String::new(),
        id: String::new(),
        from: String::new(),
        ..newest
    };
    if version.has(52) || !matches!(newest.kind.as_str(), "container" | "image") {
        return Some(View::Newest(newest));
    }
    let mut document = serde_json::to_value(&newest).unwrap_or_default();
    if let Value::Object(fields) = &mut document {
        fields.insert("status".to_owned(), Value::from(newest.action.as_str()));
        fields.insert("id".to_owned(), Value::from(newest.actor.id.as_str()));
        if newest.kind == "container" {
            let image = newest
                .actor
                .attributes
                .get("image")
                .map(String::as_str)
                .unwrap_or_default();
            fields.insert("from".to_owned(), Value::from(image));
        }
    }
    Some(View::Older(document))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::{EventActor, Map};

    fn sample(kind: &str, action: &str) -> Event {
        Event {
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: EventActor {
                id: "x".to_owned(),
                attributes: Map::from([("image".to_owned(), "busybox".to_owned())]),
            },
            ..Event::default()
        }
    }

    #[test]
    fn old_clients_see_status_and_from() {
        let View::Older(old) = event(sample("container", "die"), ApiVersion::new(1, 51)).unwrap() else {
            panic!("a view was expected");
        };
        assert_eq!(
            (&old["status"], &old["from"], &old["id"]),
            (&"die".into(), &"busybox".into(), &"x".into())
        );
        assert!(matches!(
            event(sample("container", "die"), ApiVersion::new(1, 52)).unwrap(),
            View::Newest(_)
        ));
        assert!(matches!(
            event(sample("network", "x"), ApiVersion::new(1, 40)).unwrap(),
            View::Newest(_)
        ));
    }

    #[test]
    fn creation_of_images_is_news_since_1_46() {
        assert!(event(sample("image", "create"), ApiVersion::new(1, 45)).is_none());
        assert!(event(sample("image", "create"), ApiVersion::new(1, 46)).is_some());
    }
}

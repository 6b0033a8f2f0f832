//! `GET /containers/json`.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use spec::Digest;

use crate::answer::list;
use crate::error::Result;
use crate::request::Query;
use crate::request::filters::filters;
use crate::state::AppState;
use crate::version::ApiVersion;
use crate::{versions, views};

pub async fn handle(State(state): State<AppState>, version: ApiVersion, query: Query) -> Result<Response> {
    let filters = filters(&query)?;
    // A negative limit is none.
    let limit = query
        .integer("limit")?
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0);
    let containers = state.engine.container_list(&filters, query.flag("all"), limit)?;
    let mut sizes = Vec::new();
    if query.flag("size") {
        for container in &containers {
            // One that is removed meanwhile has no size.
            sizes.push(state.engine.container_sizes(container.id.as_str()).await.ok());
        }
    }
    let mut sizes = sizes.into_iter();
    let (now, ids) = (Timestamp::now(), state.engine.images().ids());
    let mut names = ImageNames::new(|name: &str| state.engine.images().id(name).ok());
    Ok(list(containers.iter().map(|container| {
        let image = match names.stand_for(&container.image, &container.image_id) {
            true => container.image.clone(),
            false => container.shown_image(ids).to_string(),
        };
        let row = views::container::summary(container, image, ids, sizes.next().flatten(), now);
        versions::container::summary(row, version)
    })))
}

/// What names of images mean today. Each is looked up once, however many containers were made with it.
struct ImageNames<'a, F> {
    means: F,
    known: HashMap<&'a str, Option<Digest>>,
}

impl<'a, F: FnMut(&str) -> Option<Digest>> ImageNames<'a, F> {
    fn new(means: F) -> ImageNames<'a, F> {
        let known = HashMap::new();
        ImageNames { means, known }
    }

    /// Whether a container of `image` may still be said to be of `name`: it means that image, or nothing any more.
    fn stand_for(&mut self, name: &'a str, image: &Digest) -> bool {
        let means = self.known.entry(name).or_insert_with(|| (self.means)(name));
        means.as_ref().is_none_or(|id| id == image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_once() {
        let (first, second) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        let mut asked = Vec::new();
        let mut names = ImageNames::new(|name: &str| {
            asked.push(name.to_owned());
            (name != "gone").then(|| first.clone())
        });
        for _ in 0..100 {
            assert!(names.stand_for("app", &first));
            assert!(!names.stand_for("app", &second));
            assert!(names.stand_for("gone", &second));
        }
        assert_eq!(asked, ["app", "gone"]);
    }
}

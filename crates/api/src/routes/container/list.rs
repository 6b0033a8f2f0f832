//! `GET /containers/json`.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;

use crate::answer::ok;
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
    let with_sizes = query.flag("size");
    let now = Timestamp::now();
    let mut names = ImageNames::default();
    let mut rows = Vec::with_capacity(containers.len());
    for container in containers {
        let sizes = if with_sizes {
            // One that is removed meanwhile has no size.
            state.engine.container_sizes(container.id.as_str()).await.ok()
        } else {
            None
        };
        let image = names.of(&state, &container);
        let row = views::container::summary(&container, image, state.engine.images().ids(), sizes, now);
        rows.push(versions::container::summary(row, version));
    }
    Ok(ok(&rows))
}

/// What images are called today: the name a container was made with, as long as it still means that image.
#[derive(Default)]
struct ImageNames(HashMap<String, Option<spec::Digest>>);

impl ImageNames {
    fn of(&mut self, state: &AppState, container: &engine::Container) -> String {
        let present = self.0.entry(container.image.clone()).or_insert_with(|| {
            state
                .engine
                .images()
                .resolve(&container.image)
                .ok()
                .map(|image| image.id)
        });
        match present {
            Some(id) if *id != container.image_id => {
                container.shown_image(state.engine.images().ids()).to_string()
            }
            _ => container.image.clone(),
        }
    }
}

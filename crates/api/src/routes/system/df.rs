//! `GET /system/df`: who takes how much disk.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;

use crate::answer::ok;
use crate::error::{ApiError, Result};
use crate::request::Query;
use crate::state::AppState;
use crate::version::ApiVersion;
use crate::views::disk_usage::{Kinds, disk_usage};
use crate::{versions, views};

pub async fn handle(State(state): State<AppState>, version: ApiVersion, query: Query) -> Result<Response> {
    let kinds = kinds(&query, version)?;
    let usage = state.engine.disk_usage().await?;
    let images = if kinds.images {
        let shared: HashMap<_, _> = usage
            .images
            .images
            .iter()
            .map(|image| (image.id.clone(), image.shared))
            .collect();
        let rows = state.engine.image_list(&engine::Filters::new()).await?;
        let containers = state.engine.containers();
        let mut users = views::image::Users::default();
        for container in &containers {
            users.add(container);
        }
        let rows = rows.iter().map(|row| {
            let shared = shared.get(&row.id).copied().unwrap_or(0);
            views::image::summary(row, users.of_image(&row.id), Some(shared))
        });
        Some((rows.collect(), views::signed(usage.images.total)))
    } else {
        None
    };
    let (now, ids) = (Timestamp::now(), state.engine.images().ids());
    let containers = kinds.containers.then(|| {
        let rows = usage.containers.iter();
        rows.map(|(container, sizes)| {
            views::container::summary(container, container.image.clone(), ids, Some(*sizes), now)
        })
        .collect()
    });
    let volumes = kinds.volumes.then(|| {
        let rows = usage.volumes.iter();
        rows.map(|(volume, size, users)| views::volume::with_usage(volume, *size, *users))
            .collect()
    });
    let build_cache = match kinds.build_cache {
        true => Some(super::super::build::cache_rows(&state).await?),
        false => None,
    };
    let newest = disk_usage(images, containers, volumes, build_cache);
    Ok(ok(&versions::disk_usage::disk_usage(
        newest,
        version,
        query.flag("verbose"),
    )))
}

fn kinds(query: &Query, version: ApiVersion) -> Result<Kinds> {
    if !version.has(42) || !query.has("type") {
        return Ok(Kinds::ALL);
    }
    let mut kinds = Kinds::NONE;
    for kind in query.all("type") {
        match kind.as_str() {
            "container" => kinds.containers = true,
            "image" => kinds.images = true,
            "volume" => kinds.volumes = true,
            "build-cache" => kinds.build_cache = true,
            other => return Err(ApiError::invalid(format!("unknown object type: {other}"))),
        }
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_chosen() {
        let new = ApiVersion::new(1, 51);
        assert_eq!(kinds(&Query::parse(""), new).unwrap(), Kinds::ALL);
        let chosen = kinds(&Query::parse("type=image&type=volume"), new).unwrap();
        assert_eq!(
            chosen,
            Kinds {
                images: true,
                volumes: true,
                ..Kinds::NONE
            }
        );
        assert_eq!(
            kinds(&Query::parse("type=image"), ApiVersion::new(1, 41)).unwrap(),
            Kinds::ALL
        );
        assert_eq!(
            kinds(&Query::parse("type=x"), new).unwrap_err().message,
            "unknown object type: x"
        );
    }
}

//! What inspect shows of the plan.

use api_types::MountPoint;

use super::{MountKind, PlannedMount};
use crate::container::Container;
use crate::engine::Inner;

/// What inspect shows of the plan.
pub(crate) fn points(engine: &Inner, plan: &[PlannedMount]) -> Vec<MountPoint> {
    let point = |mount: &PlannedMount| {
        let mut point = MountPoint {
            destination: mount.destination.clone(),
            mode: mount.mode.clone(),
            rw: !mount.read_only,
            ..MountPoint::default()
        };
        match &mount.kind {
            MountKind::Bind {
                source, propagation, ..
            } => {
                "bind".clone_into(&mut point.kind);
                point.source.clone_from(source);
                point.propagation = if propagation.is_empty() {
                    "rprivate".to_owned()
                } else {
                    propagation.clone()
                };
            }
            MountKind::Volume { name, driver, .. } => {
                "volume".clone_into(&mut point.kind);
                point.name.clone_from(name);
                point.source = engine.volumes.place(name, None).to_string_lossy().into_owned();
                point.driver.clone_from(driver);
            }
            MountKind::Tmpfs { .. } => "tmpfs".clone_into(&mut point.kind),
            MountKind::Overlay { .. } => "overlay".clone_into(&mut point.kind),
            MountKind::Image { name, .. } => {
                "image".clone_into(&mut point.kind);
                point.source.clone_from(name);
            }
        }
        point
    };
    plan.iter().map(point).collect()
}

/// Where volumes of plugins are is known only once they are mounted.
pub(crate) fn show_places(engine: &Inner, container: &mut Container) {
    let holder = container.id.as_str();
    for point in &mut container.mounts {
        if point.kind == "volume" && point.driver != volume::LOCAL {
            let place = engine.volumes.place(&point.name, Some(holder));
            point.source = place.to_string_lossy().into_owned();
        }
    }
}

//! The build cache as clients list and prune it.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{PruneRequest, UsageRecord};
use build::{CacheEntry, PruneOptions};

use crate::error::Failure;
use crate::job::timestamp;
use crate::locals::Kept;
use crate::service::Service;

/// What the records of clients' directories are.
const LOCAL: &str = "source.local";

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn of_jiff(time: jiff::Timestamp) -> Timestamp {
    Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

fn record(entry: CacheEntry) -> UsageRecord {
    UsageRecord {
        id: entry.id,
        mutable: entry.kind == "exec.cachemount",
        in_use: entry.in_use,
        size: signed(entry.size),
        created_at: Some(of_jiff(entry.created_at)),
        last_used_at: entry.last_used_at.map(of_jiff),
        usage_count: signed(entry.usage_count),
        description: entry.description,
        record_type: entry.kind,
        shared: entry.shared,
        parents: entry.parents,
        ..UsageRecord::default()
    }
}

fn local(kept: Kept) -> UsageRecord {
    UsageRecord {
        id: kept.id,
        mutable: true,
        in_use: kept.busy,
        size: signed(kept.bytes),
        created_at: Some(timestamp(kept.used)),
        last_used_at: Some(timestamp(kept.used)),
        usage_count: 1,
        description: "local source for a client's directory".to_owned(),
        record_type: LOCAL.to_owned(),
        ..UsageRecord::default()
    }
}

/// Everything that takes room, as far as `filters` let it through.
pub async fn list(service: &Service, filters: &[String]) -> Result<Vec<UsageRecord>, Failure> {
    let filters = Filters::read(filters)?;
    let mut records: Vec<UsageRecord> = service
        .builder
        .disk_usage()
        .await?
        .into_iter()
        .map(record)
        .collect();
    records.extend(locals(service).await?.into_iter().map(local));
    records.retain(|record| filters.let_through(record));
    Ok(records)
}

async fn locals(service: &Service) -> Result<Vec<Kept>, Failure> {
    let locals = service.locals.clone();
    tokio::task::spawn_blocking(move || locals.usage())
        .await
        .map_err(Failure::broken)?
        .map_err(|error| Failure::internal(format!("cannot look at the clients' directories: {error}")))
}

/// Takes away what `request` asks for; what went.
pub async fn prune(service: &Service, request: &PruneRequest) -> Result<Vec<UsageRecord>, Failure> {
    let filters = Filters::read(&request.filter)?;
    let unused_for = (request.keep_duration > 0)
        .then(|| Duration::from_nanos(u64::try_from(request.keep_duration).unwrap_or(0)));
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    let limit = |number: i64| Some(unsigned(number)).filter(|number| *number > 0);
    let (most, least) = (limit(request.max_used_space), limit(request.min_free_space));
    let reserved = unsigned(request.reserved_space);
    // Clients' directories are no part of what may stay, and go where room is wanted.
    let has_room = least.is_some_and(|least| service.builder.free_bytes() >= least);
    let may_go = most.is_none() && reserved == 0 && !has_room;
    let before: HashMap<String, UsageRecord> = list(service, &[])
        .await?
        .into_iter()
        .map(|record| (record.id.clone(), record))
        .collect();
    let mut gone = Vec::new();
    let now = SystemTime::now();
    for kept in locals(service).await? {
        // One of the future is as old as anything: the clock was put back since.
        let unused = now.duration_since(kept.used).unwrap_or(Duration::MAX);
        let old = unused_for.is_none_or(|age| unused >= age);
        let record = local(kept);
        if old && may_go && filters.let_through(&record) {
            let (locals, id) = (service.locals.clone(), record.id.clone());
            let removed = tokio::task::spawn_blocking(move || locals.remove(&id))
                .await
                .map_err(Failure::broken)?;
            match removed {
                Ok(true) => gone.push(record),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "a client's directory stays for now"),
            }
        }
    }
    let wanted = filters.of(&before);
    if wanted.as_ref().is_some_and(Vec::is_empty) {
        return Ok(gone);
    }
    let options = PruneOptions {
        all: request.all,
        unused_for,
        ids: wanted.unwrap_or_default(),
        keep_bytes: most,
        min_free: least,
        reserved,
        ..PruneOptions::default()
    };
    let pruned = service.builder.prune(options).await?;
    gone.extend(pruned.ids.iter().filter_map(|id| before.get(id).cloned()));
    Ok(gone)
}

/// Filters as clients write them: `field==value`, `field!=value`, `field~=part`, or a field that has to be set; all of
/// the parts between commas have to hold for one of the filters.
struct Filters(Vec<Vec<Filter>>);

struct Filter {
    field: String,
    comparison: Comparison,
    value: String,
}

enum Comparison {
    Is,
    IsNot,
    Holds,
    Present,
}

impl Filters {
    fn read(filters: &[String]) -> Result<Filters, Failure> {
        let part = |part: &str| -> Result<Filter, Failure> {
            let (field, comparison, value) = if let Some((field, value)) = part.split_once("!=") {
                (field, Comparison::IsNot, value)
            } else if let Some((field, value)) = part.split_once("~=") {
                (field, Comparison::Holds, value)
            } else if let Some((field, value)) = part.split_once("==") {
                (field, Comparison::Is, value)
            } else {
                (part, Comparison::Present, "")
            };
            match field {
                "id" | "parent" | "parents" | "description" | "type" | "inuse" | "mutable" | "immutable"
                | "shared" | "private" => Ok(Filter {
                    field: field.to_owned(),
                    comparison,
                    value: value.trim_matches('"').to_owned(),
                }),
                other => Err(Failure::invalid(format!(
                    "failed to parse prune filters: unknown field {other:?}"
                ))),
            }
        };
        let filters = filters.iter().filter(|filter| !filter.is_empty());
        let filter = |filter: &String| filter.split(',').map(part).collect::<Result<Vec<_>, _>>();
        Ok(Filters(filters.map(filter).collect::<Result<_, _>>()?))
    }

    fn let_through(&self, record: &UsageRecord) -> bool {
        self.0.is_empty()
            || self
                .0
                .iter()
                .any(|all| all.iter().all(|filter| filter.holds(record)))
    }

    /// The ids of what is let through; `None` where everything is.
    fn of(&self, records: &HashMap<String, UsageRecord>) -> Option<Vec<String>> {
        (!self.0.is_empty()).then(|| {
            let through = records.values().filter(|record| self.let_through(record));
            through.map(|record| record.id.clone()).collect()
        })
    }
}

impl Filter {
    fn holds(&self, record: &UsageRecord) -> bool {
        let flag = |set: bool| vec![if set { "true" } else { "" }.to_owned()];
        let values = match self.field.as_str() {
            "id" => vec![record.id.clone()],
            "parent" | "parents" => record.parents.clone(),
            "description" => vec![record.description.clone()],
            "type" => vec![record.record_type.clone()],
            "inuse" => flag(record.in_use),
            "mutable" => flag(record.mutable),
            "immutable" => flag(!record.mutable),
            "shared" => flag(record.shared),
            _ => flag(!record.shared),
        };
        match self.comparison {
            Comparison::Is => values.contains(&self.value),
            Comparison::IsNot => !values.contains(&self.value),
            Comparison::Holds => values.iter().any(|value| value.contains(&self.value)),
            Comparison::Present => values.iter().any(|value| !value.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_choose() {
        let record = UsageRecord {
            id: "abc".to_owned(),
            record_type: "regular".to_owned(),
            shared: true,
            description: "RUN make".to_owned(),
            ..UsageRecord::default()
        };
        let through = |filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            Filters::read(&filters).unwrap().let_through(&record)
        };
        assert!(through(&[]) && through(&["id==abc"]) && through(&["type==x", "shared"]));
        assert!(through(&["description~=make,type!=x"]) && through(&["immutable"]));
        assert!(!through(&["id==ab"]) && !through(&["type==regular,private"]));
        assert!(Filters::read(&["size==1".to_owned()]).is_err());
    }
}

//! Memory used, and what for.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Result;
use crate::file;
use crate::group::Cgroup;
use crate::hierarchy::Version;

use super::MemoryStats;

/// Names of `memory.stat` in v1 that Docker's API shows, each also with `total_` before it.
const V1_TREE: &[&str] = &[
    "active_anon",
    "active_file",
    "cache",
    "dirty",
    "inactive_anon",
    "inactive_file",
    "mapped_file",
    "pgfault",
    "pgmajfault",
    "pgpgin",
    "pgpgout",
    "rss",
    "rss_huge",
    "unevictable",
    "writeback",
];
/// And those without.
const V1_OWN: &[&str] = &["hierarchical_memory_limit", "hierarchical_memsw_limit"];

/// Names of `memory.stat` in v2 that Docker's API shows.
const V2: &[&str] = &[
    "anon",
    "file",
    "kernel_stack",
    "slab",
    "sock",
    "shmem",
    "file_mapped",
    "file_dirty",
    "file_writeback",
    "anon_thp",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "slab_reclaimable",
    "slab_unreclaimable",
    "pgfault",
    "pgmajfault",
    "workingset_refault",
    "workingset_activate",
    "workingset_nodereclaim",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "pgactivate",
    "pgdeactivate",
    "pglazyfree",
    "pglazyfreed",
    "thp_fault_alloc",
    "thp_collapse_alloc",
];

impl Cgroup {
    pub(super) fn memory_stats(&self) -> Result<MemoryStats> {
        match self.version() {
            Version::V2 => self
                .unified()
                .map_or_else(|| Ok(MemoryStats::default()), |path| v2(&path)),
            Version::V1 | Version::Hybrid => self
                .v1("memory")
                .map_or_else(|| Ok(MemoryStats::default()), |path| v1(&path)),
        }
    }
}

fn v1(directory: &Path) -> Result<MemoryStats> {
    let text = file::read_optional(&directory.join("memory.stat"))?.unwrap_or_default();
    let shown =
        |name: &str| V1_OWN.contains(&name) || V1_TREE.contains(&name.strip_prefix("total_").unwrap_or(name));
    Ok(MemoryStats {
        usage: file::number(&directory.join("memory.usage_in_bytes"))?.unwrap_or(0),
        max_usage: file::number(&directory.join("memory.max_usage_in_bytes"))?,
        limit: limit(&directory.join("memory.limit_in_bytes"))?,
        fail_count: file::number(&directory.join("memory.failcnt"))?.unwrap_or(0),
        stats: file::pairs(&text)
            .filter(|(name, _)| shown(name))
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    })
}

fn v2(directory: &Path) -> Result<MemoryStats> {
    let text = file::read_optional(&directory.join("memory.stat"))?.unwrap_or_default();
    let mut stats: BTreeMap<String, u64> = V2.iter().map(|name| ((*name).to_owned(), 0)).collect();
    for (name, value) in file::pairs(&text) {
        // Linux 5.9 split some counters by kind of page; shown is their sum.
        let whole = name.strip_suffix("_anon").or_else(|| name.strip_suffix("_file"));
        if let Some(slot) = stats.get_mut(name) {
            *slot = value;
        } else if let Some(slot) = whole
            .filter(|name| name.starts_with("workingset_"))
            .and_then(|name| stats.get_mut(name))
        {
            *slot = slot.saturating_add(value);
        }
    }
    let events = file::read_optional(&directory.join("memory.events"))?.unwrap_or_default();
    Ok(MemoryStats {
        usage: file::number(&directory.join("memory.current"))?.unwrap_or(0),
        max_usage: file::number(&directory.join("memory.peak"))?,
        limit: limit(&directory.join("memory.max"))?,
        fail_count: file::keyed(&events, "oom").unwrap_or(0),
        stats,
    })
}

fn limit(path: &Path) -> Result<Option<u64>> {
    Ok(file::read_optional(path)?.as_deref().and_then(file::parse_limit))
}

//! A change made through a mounted overlay, written as a tar and applied again, shows the same tree.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use image::layer::{DiffOptions, diff_part};
use store::Part;
use sys::mount::Overlay;

use crate::picture::{assert_same, merged, picture, without_times};
use crate::{able, apply, place};

#[test]
fn what_was_changed_comes_back() {
    if !able() {
        return;
    }
    let (_dir, paths) = place(&["lower", "upper", "work", "copy"]);
    let [lower, upper, work, copy] = &paths[..] else {
        panic!()
    };
    for name in ["gone/in", "anew/in", "kept/in"] {
        fs::create_dir_all(lower.join(name)).unwrap();
    }
    fs::write(lower.join("file"), "old").unwrap();
    fs::write(lower.join("kept/deleted"), "old").unwrap();
    let lowers = vec![lower.clone()];
    let mount = Overlay {
        lower: lowers.clone(),
        upper: Some(upper.clone()),
        work: Some(work.clone()),
        read_only: false,
        ..Overlay::default()
    };
    let root = mount.mount_detached().unwrap();
    let top = PathBuf::from(format!("/proc/self/fd/{}/", root.as_raw_fd()));
    fs::remove_dir_all(top.join("gone")).unwrap();
    fs::remove_dir_all(top.join("anew")).unwrap();
    fs::create_dir_all(top.join("anew/other")).unwrap();
    fs::write(top.join("file"), "new content").unwrap();
    fs::remove_file(top.join("kept/deleted")).unwrap();
    fs::hard_link(top.join("file"), top.join("kept/second")).unwrap();
    symlink("../nowhere", top.join("kept/link")).unwrap();

    let tar = |upper: &PathBuf| {
        let mut out = Vec::new();
        let options = DiffOptions {
            nanoseconds: true,
            latest: None,
        };
        let part = Part::of_changes(upper.clone(), lowers.clone());
        diff_part(&part, &mut out, options).unwrap();
        out
    };
    let first = tar(upper);
    assert!(first == tar(upper), "the same directory gives the same bytes");
    apply(&first, copy, &lowers).unwrap();
    let stack = Overlay {
        lower: vec![copy.clone(), lower.clone()],
        upper: None,
        work: None,
        read_only: true,
        ..Overlay::default()
    };
    let again = stack.mount_detached().unwrap();
    let other = PathBuf::from(format!("/proc/self/fd/{}/", again.as_raw_fd()));
    let left = without_times(merged(picture(&top)));
    assert_same(&left, &without_times(merged(picture(&other))));
    assert!(first == tar(copy), "and a copy of it too");
}

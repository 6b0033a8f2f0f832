//! The union filesystem of read-only layers with one writable directory on top, as a detached mount.
//!
//! Three ways, by what is to be mounted and what the kernel can:
//! one directory needs no union, it is a (read-only) copy of the mount it lies on; Linux 6.7 and newer take
//! the layers one by one; older kernels take one option string of at most a page, so the layers get short
//! names in a throw-away mount namespace of a helper thread and the result is cloned out of there. More than 500 layers,
//! which is all that one overlay takes, are stacked in two.
//!
//! `metacopy`, `index` and `redirect_dir` are off whatever the kernel's build says: the upper directory alone
//! must be the complete difference to the layers below it. Layers whose files have their content elsewhere ([`Objects`])
//! need the first and the last of them, so they become a read-only overlay of their own below the writable one.
//!
//! Source: Documentation/filesystems/overlayfs.rst.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MoveMountFlags};
use serde::{Deserialize, Serialize};

use super::objects::{Objects, settings};
use super::{Attributes, Filesystem, Propagation, Tree, c_path, set_propagation};
use crate::namespace::{self, Kind};
use crate::selinux::MOUNT_OPTION;

/// What to mount. At least one of `lower` and `upper` is given; `work` goes with `upper`, on its filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// The topmost layer first.
    pub lower: Vec<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<PathBuf>,
    #[serde(default)]
    pub read_only: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<Objects>,
    /// The SELinux label of every file in it; a single directory, which is mounted as it is, keeps its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What is written need not outlive a crash of the machine: nobody waits for the disk, neither a process that syncs
    /// a file nor whoever lets go of the mount, who would otherwise wait for all that anybody wrote to the upper directory's
    /// filesystem.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub volatile: bool,
}

/// Most layers that one overlay takes (Linux, fs/overlayfs/params.h).
pub(super) const MAX_STACK: usize = 500;

/// The option of a mount that waits for no disk (Linux 5.10), and what it leaves in the work directory.
const VOLATILE: &str = "volatile";
const VOLATILE_MARK: &str = "work/incompat";

pub(super) type Settings = [(&'static str, &'static str); 3];

pub(super) const SETTINGS: Settings = [("index", "off"), ("metacopy", "off"), ("redirect_dir", "off")];

/// Kernels that cannot mount layers with their files elsewhere say no more than that an option is unknown.
fn unknown_option(error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(libc::EINVAL) {
        return error;
    }
    let why = format!("the kernel cannot mount layers that share files (that needs Linux 6.7): {error}");
    io::Error::new(io::ErrorKind::Unsupported, why)
}

impl Overlay {
    /// The mount, visible to nobody but the holder of the descriptor.
    pub fn mount_detached(&self) -> io::Result<OwnedFd> {
        if let Some((directory, writable)) = self.single() {
            return self.bind(directory, writable);
        }
        self.forget_volatile()?;
        if let Some((above, below)) = self.split() {
            return above.on_another(&below);
        }
        match (self.by_layer(None), &self.objects) {
            (Err(error), None) if error.raw_os_error() == Some(libc::EINVAL) => self.by_page(),
            (result, _) => result,
        }
    }

    /// The one directory that this is, when no union is needed, and whether it is written to.
    pub fn single(&self) -> Option<(&Path, bool)> {
        match (self.lower.as_slice(), &self.upper) {
            ([only], None) if self.objects.is_none() => Some((only, false)),
            ([], Some(upper)) => Some((upper, true)),
            _ => None,
        }
    }

    pub(super) fn bind(&self, directory: &Path, writable: bool) -> io::Result<OwnedFd> {
        let tree = Tree::open(CWD, directory, false).map_err(|error| at(directory, error))?;
        let set = if writable && !self.read_only {
            0
        } else {
            Attributes::READ_ONLY
        };
        tree.set(
            Attributes {
                set,
                propagation: Some(Propagation::Private),
                ..Attributes::default()
            },
            false,
        )?;
        Ok(tree.into_fd())
    }

    pub(super) fn mount_attributes(&self) -> u64 {
        if self.read_only || self.upper.is_none() {
            Attributes::READ_ONLY
        } else {
            0
        }
    }

    pub(super) fn upper_and_work(&self) -> io::Result<Option<(&Path, &Path)>> {
        match (&self.upper, &self.work) {
            (Some(upper), Some(work)) => Ok(Some((upper, work))),
            (None, _) => Ok(None),
            (Some(_), None) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an overlay with an upper directory needs a work directory",
            )),
        }
    }

    /// Removes the mark of a volatile mount from the work directory. The kernel leaves it there and refuses the next mount,
    /// since the machine may have crashed in between; whoever lets things be volatile knows what that means to them.
    pub(super) fn forget_volatile(&self) -> io::Result<()> {
        let Some((_, work)) = self.upper_and_work()? else {
            return Ok(());
        };
        match std::fs::remove_dir_all(work.join(VOLATILE_MARK)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(work, error)),
            _ => Ok(()),
        }
    }

    pub(super) fn set_volatile(&self, fs: &Filesystem) -> io::Result<()> {
        match self.volatile && self.upper.is_some() {
            true => fs.flag(VOLATILE),
            false => Ok(()),
        }
    }

    /// With `last` as one more layer below the others.
    fn by_layer(&self, last: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
        if self.lower.is_empty() && last.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an overlay needs a directory",
            ));
        }
        let fs = Filesystem::new("overlay")?;
        let context = fs.context.as_fd();
        if let Some((first, rest)) = self.lower.split_first() {
            // The first one tells whether the kernel knows the option at all: unknown is EINVAL, and so the
            // raw error is kept for `mount_detached` to fall back on.
            if first.as_os_str().len() < 256 {
                rustix::mount::fsconfig_set_string(context, "lowerdir+", first.as_path()).map_err(
                    |error| match (error == rustix::io::Errno::INVAL, &self.objects) {
                        (true, None) => error.into(),
                        (true, Some(_)) => at(first, unknown_option(error.into())),
                        (false, _) => at(first, error.into()),
                    },
                )?;
            } else {
                fs.path("lowerdir+", first)?;
            }
            for layer in rest {
                fs.path("lowerdir+", layer).map_err(|error| at(layer, error))?;
            }
        }
        if let Some(last) = last {
            rustix::mount::fsconfig_set_fd(context, "lowerdir+", last)?;
        }
        if let Some(objects) = &self.objects {
            fs.path("datadir+", &objects.dir)
                .map_err(|error| at(&objects.dir, unknown_option(error)))?;
        }
        if let Some((upper, work)) = self.upper_and_work()? {
            fs.path("upperdir", upper).map_err(|error| at(upper, error))?;
            fs.path("workdir", work).map_err(|error| at(work, error))?;
        }
        for (key, value) in settings(self.objects.is_some()) {
            fs.string(key, value)?;
        }
        self.set_volatile(&fs)?;
        self.set_label(&fs)?;
        Ok(fs.mount(self.mount_attributes())?.into_fd())
    }

    pub(super) fn set_label(&self, fs: &Filesystem) -> io::Result<()> {
        match &self.label {
            Some(label) => fs.string(MOUNT_OPTION, label),
            None => Ok(()),
        }
    }

    /// On top of another one, which is the last layer of this one.
    fn on_another(&self, below: &Overlay) -> io::Result<OwnedFd> {
        let mounted = below.mount_detached()?;
        match self.by_layer(Some(mounted.as_fd())) {
            // Before Linux 6.15 only a mount of the same namespace can be a layer, so it happens in one that ends here.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EBADF)) => {
                drop(mounted);
                let (_namespace, mounted) =
                    namespace::create_with(Kind::Mount, || self.mount_on_another(below))?;
                mounted
            }
            result => result,
        }
    }

    pub(super) fn mount_on_another(&self, below: &Overlay) -> io::Result<OwnedFd> {
        set_propagation(Path::new("/"), Propagation::Private, true)?;
        let below = below.mount_detached()?;
        // A place that exists everywhere and holds no layer.
        let place = Path::new("/proc");
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let over = rustix::fs::open(place, flags, 0o0.into())?;
        rustix::mount::move_mount(
            below.as_fd(),
            c"",
            over.as_fd(),
            c"",
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
        )?;
        let mut lower = self.lower.clone();
        lower.push(place.to_owned());
        Overlay {
            lower,
            ..self.clone()
        }
        .by_layer(None)
    }

    /// For kernels before 6.7.
    fn by_page(&self) -> io::Result<OwnedFd> {
        // The caller's view of the tree must not change: all of it happens in a namespace that ends here.
        let (_namespace, mounted) = namespace::create_with(Kind::Mount, || self.mount_with_short_names())?;
        mounted
    }

    fn mount_with_short_names(&self) -> io::Result<OwnedFd> {
        set_propagation(Path::new("/"), Propagation::Private, true)?;
        // Absolute links of short names; /proc is only a place that exists everywhere and holds no layer.
        let place = Path::new("/proc");
        let names = Filesystem::new("tmpfs")?.mount(0)?;
        let over = rustix::fs::open(
            place,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            0o0.into(),
        )?;
        names.attach(over.as_fd())?;
        rustix::process::chdir(place)?;
        let mut lower = Vec::new();
        for (number, layer) in self.lower.iter().enumerate() {
            rustix::fs::symlink(std::path::absolute(layer)?, number.to_string())?;
            lower.push(number.to_string());
        }
        let mut options = vec![("lowerdir", OsString::from(lower.join(":")))];
        if let Some((upper, work)) = self.upper_and_work()? {
            rustix::fs::symlink(std::path::absolute(upper)?, "u")?;
            rustix::fs::symlink(std::path::absolute(work)?, "w")?;
            options.extend([("upperdir", "u".into()), ("workdir", "w".into())]);
        }
        Ok(self.mount_here(&options, SETTINGS)?.into_fd())
    }

    /// Mounts below the working directory by mount(2), which takes a page of options where fsconfig(2) takes 256 bytes of
    /// each.
    pub(super) fn mount_here(&self, options: &[(&str, OsString)], settings: Settings) -> io::Result<Tree> {
        let settings = settings.map(|(key, value)| (key, OsString::from(value)));
        let mut data = OsString::new();
        for (key, value) in options.iter().chain(&settings) {
            if !data.is_empty() {
                data.push(",");
            }
            data.push(key);
            data.push("=");
            data.push(value);
        }
        if self.volatile && self.upper.is_some() {
            data.push(",");
            data.push(VOLATILE);
        }
        if let Some(label) = &self.label {
            // A level may have commas.
            data.push(format!(",{MOUNT_OPTION}=\"{label}\""));
        }
        rustix::fs::mkdir("m", 0o700.into())?;
        rustix::mount::mount(
            c"overlay",
            c"m",
            c"overlay",
            MountFlags::empty(),
            Some(c_path(Path::new(&data))?.as_c_str()),
        )?;
        let tree = Tree::open(CWD, Path::new("m"), false)?;
        tree.set(
            Attributes {
                set: self.mount_attributes(),
                ..Attributes::default()
            },
            false,
        )?;
        Ok(tree)
    }
}

pub(super) fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("layer {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};

    struct Directories(PathBuf);

    impl Directories {
        fn new(name: &str) -> Option<Directories> {
            if !rustix::process::geteuid().is_root() {
                eprintln!("skipped: needs root");
                return None;
            }
            let path = std::env::temp_dir().join(format!("overlay-{name}-{}", std::process::id()));
            for name in ["a", "b", "up", "work"] {
                std::fs::create_dir_all(path.join(name)).unwrap();
            }
            std::fs::write(path.join("a/both"), "top").unwrap();
            std::fs::write(path.join("b/both"), "bottom").unwrap();
            std::fs::write(path.join("b/below"), "below").unwrap();
            Some(Directories(path))
        }
        fn overlay(&self, writable: bool) -> Overlay {
            Overlay {
                lower: vec![self.0.join("a"), self.0.join("b")],
                upper: writable.then(|| self.0.join("up")),
                work: writable.then(|| self.0.join("work")),
                read_only: false,
                ..Overlay::default()
            }
        }
    }

    impl Drop for Directories {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn read(root: &OwnedFd, name: &str) -> io::Result<String> {
        let file = rustix::fs::openat(root, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(file), &mut text)?;
        Ok(text)
    }

    fn write(root: &OwnedFd, name: &str, text: &str) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::openat(root, name, flags, 0o644.into())?;
        io::Write::write_all(&mut std::fs::File::from(file), text.as_bytes())
    }

    fn check(directories: &Directories, mount: fn(&Overlay) -> io::Result<OwnedFd>) {
        let root = mount(&directories.overlay(true)).unwrap();
        assert_eq!(read(&root, "both").unwrap(), "top");
        assert_eq!(read(&root, "below").unwrap(), "below");
        write(&root, "new", "new").unwrap();
        assert_eq!(
            std::fs::read_to_string(directories.0.join("up/new")).unwrap(),
            "new"
        );
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !table.contains(directories.0.to_str().unwrap()),
            "the mount table shows it: {table}"
        );

        let frozen = mount(&directories.overlay(false)).unwrap();
        assert_eq!(
            write(&frozen, "new", "x").unwrap_err().raw_os_error(),
            Some(libc::EROFS)
        );
    }

    #[test]
    fn a_kernel_without_shared_files_is_told() {
        let told = unknown_option(io::Error::from_raw_os_error(libc::EINVAL));
        assert_eq!(told.kind(), io::ErrorKind::Unsupported);
        assert!(told.to_string().contains("Linux 6.7"), "{told}");
        let other = unknown_option(io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(other.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn layers_one_by_one() {
        let Some(directories) = Directories::new("layer") else {
            return;
        };
        check(&directories, |overlay| overlay.by_layer(None));
    }

    #[test]
    fn layers_by_short_names() {
        let Some(directories) = Directories::new("page") else {
            return;
        };
        check(&directories, Overlay::by_page);
    }

    /// What is in several layers, a file and a link of one of them, and nothing beyond the mount.
    fn check_part(directories: &Directories, part: fn(Tree, &Path) -> io::Result<Tree>) {
        for layer in ["a", "b"] {
            let dir = directories.0.join(layer).join("dir");
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(layer), layer).unwrap();
        }
        let _ = std::os::unix::fs::symlink("dir", directories.0.join("b/link"));
        let _ = std::os::unix::fs::symlink("/etc", directories.0.join("b/out"));
        let of = |path: &str| {
            let whole = Tree::from_fd(directories.overlay(false).mount_detached().unwrap());
            part(whole, Path::new(path))
        };
        for path in ["dir", "link", "dir/../link/."] {
            let found = of(path).unwrap().into_fd();
            assert_eq!(read(&found, "a").unwrap(), "a", "{path}");
            assert_eq!(read(&found, "b").unwrap(), "b", "{path}");
            assert!(write(&found, "a", "changed").is_err());
        }
        let file = of("below").unwrap();
        let open = rustix::fs::open(
            format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file.as_fd())),
            OFlags::RDONLY,
            Mode::empty(),
        );
        let text = io::read_to_string(std::fs::File::from(open.unwrap())).unwrap();
        assert_eq!(text, "below");
        for (path, errno) in [
            ("nosuch", libc::ENOENT),
            ("out", libc::EXDEV),
            ("..", libc::EXDEV),
        ] {
            assert_eq!(of(path).unwrap_err().raw_os_error(), Some(errno), "{path}");
        }
    }

    #[test]
    fn a_part_is_a_mount_of_its_own() {
        if let Some(directories) = Directories::new("part") {
            check_part(&directories, Tree::part);
            // As older kernels need it.
            check_part(&directories, |whole, path| whole.part_elsewhere(path));
        }
    }

    #[test]
    fn what_waits_for_no_disk_can_be_mounted_again() {
        let Some(directories) = Directories::new("volatile") else {
            return;
        };
        let of = |volatile| Overlay {
            volatile,
            ..directories.overlay(true)
        };
        let mark = directories.0.join("work").join(VOLATILE_MARK).join(VOLATILE);
        for volatile in [true, true, false, true] {
            let root = of(volatile).mount_detached().unwrap();
            assert_eq!(mark.exists(), volatile);
            write(&root, &format!("new-{volatile}"), "new").unwrap();
        }
        // As older kernels need it.
        of(true).forget_volatile().unwrap();
        let root = of(true).by_page().unwrap();
        assert!(mark.exists());
        assert_eq!(read(&root, "new-true").unwrap(), "new");
        assert_eq!(read(&root, "new-false").unwrap(), "new");
        // Nothing is written, so nothing is volatile.
        let frozen = Overlay {
            volatile: true,
            ..directories.overlay(false)
        };
        frozen.mount_detached().unwrap();
    }

    #[test]
    fn one_directory_is_no_union() {
        let Some(directories) = Directories::new("single") else {
            return;
        };
        let one = Overlay {
            lower: vec![directories.0.join("b")],
            ..Overlay::default()
        };
        let root = one.mount_detached().unwrap();
        assert_eq!(read(&root, "below").unwrap(), "below");
        assert_eq!(
            write(&root, "below", "x").unwrap_err().raw_os_error(),
            Some(libc::EROFS)
        );
        let own = Overlay {
            upper: Some(directories.0.join("up")),
            ..Overlay::default()
        };
        write(&own.mount_detached().unwrap(), "new", "x").unwrap();
    }

    #[test]
    fn a_missing_layer_is_named() {
        let Some(directories) = Directories::new("missing") else {
            return;
        };
        let mut overlay = directories.overlay(true);
        overlay.lower.push(directories.0.join("absent"));
        let text = overlay.mount_detached().unwrap_err().to_string();
        assert!(text.contains("absent"), "{text}");
    }
}

//! `run`: what is mounted, and where it is written to.

use super::script::both;

#[test]
fn volumes_binds_and_tmpfs() {
    guard!();
    both(
        r#"
        $ run --rm -v data:/data box:1 sh -c "echo kept > /data/file"
        $ run --rm -v data:/data:ro box:1 sh -c "cat /data/file; touch /data/x"
        kept
        ! Read-only file system
        [1]
        $ run --rm -v data:/srv box:1 ls /srv
        file
        # An empty volume gets what the image has there.
        $ run --rm -v fresh:/srv box:1 cat /srv/seed
        from the image
        $ run --rm -v empty:/srv:nocopy box:1 ls /srv
        @ mkdir -p here && echo host > here/file
        $ run --rm -v $DIR/here:/in box:1 sh -c "cat /in/file; echo back > /in/new"
        host
        @ cat here/new
        back
        $ run --rm -v ./here:/in:ro box:1 sh -c "cat /in/new; touch /in/no"
        back
        ! Read-only file system
        [1]
        $ run --rm -v $DIR/made/by/v:/in box:1 ls /in
        @ test -d made/by/v
        $ run --rm --mount type=bind,src=$DIR/here,dst=/in,readonly box:1 sh -c "cat /in/file; touch /in/no"
        host
        ! Read-only file system
        [1]
        $ run --rm --mount type=bind,src=$DIR/nosuch,dst=/in box:1 true
        ! bind source path does not exist: <dir>/nosuch
        [125]
        $ run --rm --mount type=volume,src=data,dst=/data box:1 cat /data/file
        kept
        $ run --rm --mount type=tmpfs,dst=/mem,tmpfs-size=1m,tmpfs-mode=1770 box:1 sh -c "busybox stat -c %a /mem; busybox df -k /mem | busybox awk 'NR==2 {print $1,$2}'"
        1770
        tmpfs 1024
        $ run --rm box:1 sh -c "busybox df /dev/shm | busybox awk 'NR==2 {print $1}'; busybox grep -c '^proc /proc proc ' /proc/mounts"
        shm
        1
        $ run --rm --mount type=frob,dst=/x box:1 true
        ! frob
        [125]
        $ run --rm --mount type=bind,dst=/x,frob=1 box:1 true
        ! 'frob' in 'frob=1'
        [125]
        $ run --rm --tmpfs /run:size=64k,mode=700 --tmpfs /mem box:1 sh -c "busybox stat -c %a /run; busybox df -k /run | busybox awk 'NR==2 {print $2}'; busybox grep -c ' /mem tmpfs' /proc/mounts"
        700
        64
        1
        $ run --rm --read-only box:1 touch /file
        ! Read-only file system
        [1]
        $ run --rm --read-only --tmpfs /tmp -v data:/data box:1 sh -c "touch /tmp/a /data/b && ls /data"
        b
        file
        $ run -d --name first -v data:/data -v /anonymous box:1 sleep 1000
        <id>
        $ run --rm --volumes-from first box:1 sh -c "cat /data/file; busybox grep -c ' /anonymous ' /proc/mounts"
        kept
        1
        $ run --rm --volumes-from first:ro box:1 touch /data/no
        ! Read-only file system
        [1]
        $ run --rm -v relative/path:/x box:1 true
        ! relative/path
        [125]
        $ run --rm -v data:/x:frob box:1 true
        ! invalid mode: frob
        [125]
        $ run --rm -v data:notabsolute box:1 true
        ! notabsolute
        [125]
        $ volume ls --format "{{.Name}}" --filter name=data
        data
        $ rm -f -v first
        first
        # Anonymous volumes went with their containers.
        $ volume ls -q
        data
        empty
        fresh
        "#,
    );
}

//! `cp` in both directions, as files and as archives, and what a container's files become.

use super::script::both;

#[test]
fn files_go_in_and_out() {
    guard!();
    both(
        r#"
        $ run -d --name web -v data:/data box:1 sleep 1000
        <id>
        @ mkdir -p tree/sub && echo one > tree/one && echo two > tree/sub/two && ln -s one tree/link && chmod 640 tree/one
        $ cp -q tree/one web:/tmp/
        $ exec web sh -c "cat /tmp/one; busybox stat -c '%a %u:%g' /tmp/one"
        one
        640 0:0
        $ cp -q tree web:/tmp/as
        $ exec web sh -c "cd /tmp/as && busybox find . | busybox sort && busybox readlink link"
        .
        ./link
        ./one
        ./sub
        ./sub/two
        one
        $ cp -q tree web:/tmp
        $ exec web ls /tmp/tree
        link
        one
        sub
        $ cp -q tree/. web:/data
        $ exec web ls /data
        link
        one
        sub
        $ cp -q web:/srv/seed out
        @ cat out
        from the image
        $ cp -q web:/tmp/tree out-tree
        @ find out-tree | sort
        out-tree
        out-tree/link
        out-tree/one
        out-tree/sub
        out-tree/sub/two
        @ $CLIENT cp web:/srv - | tar -t
        srv/
        srv/seed
        @ tar -C tree -c . | $CLIENT cp - web:/srv && $CLIENT exec web ls /srv
        link
        one
        seed
        sub
        @ $CLIENT cp -L web:/srv/link followed && cat followed
        one
        $ cp -q -a tree web:/tmp/archive
        $ cp nosuch web:/tmp
        ! no such file or directory
        [1]
        $ cp web:/nosuch out
        ! Could not find the file /nosuch in container web
        [1]
        $ cp nosuch:/etc out
        ! No such container: nosuch
        [1]
        $ cp web:/etc nosuch/dir/
        [1]
        $ cp tree web:/etc/passwd
        ! directory
        [1]
        $ cp web:/a web:/b
        ! copying between containers is not supported
        [1]
        $ cp a b
        ! must specify at least one container source
        [1]
        # A node of our own, in case it is replaced after all.
        @ mknod node c 1 3 && mkfifo pipe
        $ run -d --name own --device $DIR/node:/dev/own box:1 sleep 1000
        <id>
        $ cp tree/one own:/dev/own
        ! destination "own:/dev/own" must be a directory or a regular file: got a device
        [1]
        $ cp web:/srv/seed node
        ! must be a directory or a regular file
        [1]
        @ test -c node && $CLIENT exec own busybox test -c /dev/own
        $ cp tree/one web:/nosuch/dir/file
        ! Could not find the file /nosuch/dir in container web
        [1]
        $ stop -t 0 web
        web
        $ cp -q tree/one web:/tmp/late
        $ cp -q web:/tmp/late back
        @ cat back
        one
        % diff web
        @ $CLIENT diff web | grep -E '(seed|link|late)$'
        A /srv/link
        A /tmp/archive/link
        A /tmp/as/link
        A /tmp/late
        A /tmp/tree/link
        "#,
    );
}

#[test]
fn a_container_becomes_an_image_or_an_archive() {
    guard!();
    both(
        r#"
        $ run --name web -e A=b box:1 touch /made
        $ commit -a "Ann <a@b>" -m "a message" -c 'CMD ["ls", "/made"]' -c "EXPOSE 80" web saved:1
        <digest>
        $ run --rm saved:1
        /made
        $ inspect -f "{{.Author}} {{.Comment}} {{json .Config.ExposedPorts}} {{json .Config.Env}}" saved:1
        Ann <a@b> a message {"80/tcp":{}} ["A=b"…
        $ history --format "{{.CreatedBy}} {{.Comment}}" saved:1
        touch /made a message
        …
        $ commit nosuch
        ! No such container: nosuch
        [1]
        $ commit web UPPER:1
        ! invalid reference format
        [1]
        $ export -o web.tar web
        @ tar -tf web.tar | grep -E '^(made|srv/seed)$' | sort
        made
        srv/seed
        @ $CLIENT export web | tar -t | grep -c made
        1
        $ export nosuch
        ! No such container: nosuch
        [1]
        $ import -c 'CMD ["cat", "/srv/seed"]' -m imported web.tar flat:1
        <digest>
        $ run --rm flat:1
        from the image
        @ $CLIENT import - flat:2 < web.tar
        <digest>
        $ import nosuch.tar flat:3
        ! no such file or directory
        [1]
        "#,
    );
}

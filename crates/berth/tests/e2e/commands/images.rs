//! Images: listed, named, saved, loaded, removed, built.

use super::script::both;

#[test]
fn named_listed_and_removed() {
    guard!();
    both(
        r#"
        $ images
        REPOSITORY  TAG  IMAGE ID  CREATED  SIZE
        box  1  <id>  <age> ago  …
        $ images -q --no-trunc
        <digest>
        $ tag box:1 team/app:v1
        $ tag box:1 localhost:5000/team/app
        $ tag box:1 team/app:v2
        $ tag nosuch:1 x:1
        ! No such image: nosuch:1
        [1]
        $ tag box:1 UPPER
        ! invalid
        [1]
        @ $CLIENT images --format "{{.Repository}}:{{.Tag}}" | sort
        box:1
        localhost:5000/team/app:latest
        team/app:v1
        team/app:v2
        @ $CLIENT images team/app --format "{{.Tag}}" | sort
        v1
        v2
        $ images --filter reference=team/*:v1 --format "{{.Tag}}"
        v1
        $ images --filter dangling=true -q
        $ images --filter frob=1
        ! invalid filter 'frob'
        [1]
        @ $CLIENT images --format json box | grep -o '"Repository":"[^"]*","SharedSize":"[^"]*"'
        "Repository":"box","SharedSize":"N/A"
        $ image ls --digests --format "{{.Repository}} {{.Digest}}" box
        box <digest>
        $ image inspect -f "{{.Os}}/{{.Architecture}} {{json .Config.Cmd}}" box:1
        linux/amd64 null
        $ inspect --type image nosuch:1
        []
        ! o such image: nosuch:1
        [1]
        $ history --format "{{.ID}} {{.CreatedBy}}|{{.Comment}}" --no-trunc box:1
        <digest> |Imported from -
        @ $CLIENT history box:1 | head -n1
        IMAGE  CREATED  CREATED BY  SIZE  COMMENT
        $ history -q box:1
        <id>
        $ history nosuch
        ! No such image: nosuch
        [1]
        $ rmi team/app:v1
        Untagged: team/app:v1
        $ rmi nosuch:1
        ! No such image: nosuch:1
        [1]
        $ rmi -f nosuch:1
        ! No such image: nosuch:1
        $ create --name user team/app:v2 true
        <id>
        $ rmi team/app:v2
        Untagged: team/app:v2
        $ rmi localhost:5000/team/app
        Untagged: localhost:5000/team/app:latest
        $ image prune -f
        Total reclaimed space: 0B
        @ echo n | $CLIENT image prune -a
        …
        Are you sure you want to continue? [y/N]
        "#,
    );
}

#[test]
fn saved_loaded_and_imported() {
    guard!();
    both(
        r#"
        $ tag box:1 app:1
        $ tag box:1 app:2
        $ save -o app.tar app:1 app:2
        @ $CLIENT save app:1 | tar -t | grep -E '^(manifest.json|index.json|oci-layout)$' | sort
        index.json
        manifest.json
        oci-layout
        $ save -o nosuch.tar nosuch:1
        ! nosuch:1
        [1]
        @ test -e nosuch.tar
        [1]
        $ save -o no/such/dir.tar app:1
        ! no such file or directory
        [1]
        $ rmi app:1 app:2
        Untagged: app:1
        Untagged: app:2
        @ $CLIENT load -i app.tar | sort
        Loaded image: app:1
        Loaded image: app:2
        @ $CLIENT rmi app:1 app:2 >/dev/null && $CLIENT load -q < app.tar | sort
        Loaded image: app:1
        Loaded image: app:2
        $ load -i nosuch.tar
        ! no such file or directory
        [1]
        @ echo garbage > bad.tar
        $ load -i bad.tar
        [1]
        $ run --rm app:2 cat /srv/seed
        from the image
        "#,
    );
}

#[test]
fn built() {
    guard!();
    both(
        r#"
        @ mkdir -p app && printf 'FROM box:1\nARG WHO=nobody\nLABEL who=$WHO\nENV A=b\nWORKDIR /app\nCOPY . .\nRUN echo "built for $WHO" > made\nCMD ["cat", "made"]\n' > app/Dockerfile && echo data > app/data && echo secret > app/ignored && echo ignored > app/.dockerignore
        $ build -q -t app:1 --build-arg WHO=ann app
        <digest>
        $ run --rm app:1
        built for ann
        $ run --rm app:1 ls
        Dockerfile
        data
        made
        $ inspect -f "{{json .Config.Labels}} {{.Config.WorkingDir}}" app:1
        {"who":"ann"} /app
        $ build -q -t app:2 --label x=y --no-cache app
        <digest>
        @ $CLIENT build -q -t app:3 -f - app < app/Dockerfile
        <digest>
        @ printf 'FROM box:1\nRUN exit 7\n' | $CLIENT build -t bad:1 - >/dev/null
        ! returned a non-zero code: 7
        [7]
        @ printf 'FROM box:1\nFROB x\n' | $CLIENT build - >/dev/null
        ! unknown instruction: FROB
        [1]
        $ build nosuch
        ! nosuch
        [1]
        $ build -t UPPER app
        ! invalid
        [125]
        @ printf 'FROM box:1 AS one\nRUN echo 1 > /one\nFROM box:1\nCOPY --from=one /one /two\n' > app/Multi
        $ build -q -t multi:1 -f app/Multi app
        <digest>
        $ run --rm multi:1 cat /two
        1
        $ build -q -t stage:1 --target one -f app/Multi app
        <digest>
        $ run --rm stage:1 cat /one
        1
        $ build -q --iidfile iid -t iid:1 app
        <digest>
        @ test "$(cat iid)" = "$($CLIENT inspect -f '{{.Id}}' iid:1)"
        $ image rm multi:1 stage:1
        Untagged: multi:1
        Deleted: <digest>
        Untagged: stage:1
        Deleted: <digest>
        $ builder prune -af --filter until=1h
        Total reclaimed space: 0B
        "#,
    );
}

#[test]
fn filtered() {
    guard!();
    both(
        r#"
        @ printf 'FROM box:1\nLABEL kind=a\nRUN echo 1 > /n\n' | $CLIENT build -q -t one:1 - >/dev/null && sleep 1
        @ printf 'FROM box:1\nLABEL kind=b flag=\nRUN echo 2 > /n\n' | $CLIENT build -q -t two:1 -t reg.example:5000/team/two:v2 - >/dev/null
        $ images --filter label=kind=a --format {{.Repository}}
        one
        @ $CLIENT images --filter label=kind --format {{.Repository}} | sort
        one
        reg.example:5000/team/two
        two
        $ images --filter label=kind=b --filter label=flag --format {{.Repository}} two
        two
        $ images --filter label=kind=a --filter label=flag -q
        $ images --filter label!=kind --format {{.Repository}}
        box
        $ images --filter label!=kind=b --filter label=kind --format {{.Repository}}
        one
        $ images --filter before=one:1 --format {{.Repository}}
        box
        @ $CLIENT images --filter since=box:1 --format {{.Repository}}:{{.Tag}} | sort
        one:1
        reg.example:5000/team/two:v2
        two:1
        $ images --filter since=one:1 --filter before=one:1 -q
        $ images --filter before=nosuch:1
        ! o such image: nosuch:1
        [1]
        $ images --filter until=1h -q
        @ $CLIENT images --filter until=2038-01-01 -q | wc -l
        4
        $ images --filter until=soon
        ! soon
        [1]
        $ images --filter dangling=perhaps
        ! invalid filter 'dangling=[perhaps]'
        [1]
        $ images --filter dangling=true --filter dangling=false
        ! dangling
        [1]
        $ images --filter nothing
        ! invalid argument "nothing" for "-f, --filter" flag: bad format of filter (expected name=value)
        [125]
        $ images --format {{.Repository}} o[m-o]e
        one
        $ images --format {{.Tag}} *.example:5000/*/t[^a]o:v?
        v2
        $ images -q *.example:5000/t[^a]o
        $ images -q o[ne
        ! syntax error in pattern
        [1]
        @ $CLIENT tag two:1 gone:1 && $CLIENT rmi one:1 >/dev/null && printf 'FROM box:1\nRUN echo 3 > /n\n' | $CLIENT build -q -t two:1 - > /dev/null; $CLIENT rmi gone:1 reg.example:5000/team/two:v2 >/dev/null
        $ images --filter dangling=true --format {{.Repository}}
        @ $CLIENT images --filter dangling=false --format {{.Repository}} | sort
        box
        two
        "#,
    );
}

#[test]
fn imported_in_full() {
    guard!();
    both(
        r#"
        @ mkdir tree && echo hello > tree/file && tar -C tree -cf tree.tar . && gzip -k tree.tar && bzip2 -k tree.tar && xz -k tree.tar && zstd -q tree.tar
        @ $CLIENT import -c 'CMD ["/x", "y"]' --change 'ENV A=b C="d e"' -c 'EXPOSE 80' -c 'LABEL l=m' -c 'USER 7' -c 'WORKDIR /w' -c 'ENTRYPOINT /e' -m 'from a tree' --platform linux/arm/v6 tree.tar imp:1
        <digest>
        $ inspect -f "{{.Os}}/{{.Architecture}}/{{.Variant}} {{json .Config.Cmd}} {{json .Config.Env}} {{json .Config.ExposedPorts}} {{json .Config.Labels}} {{.Config.User}} {{.Config.WorkingDir}} {{json .Config.Entrypoint}}" imp:1
        linux/arm/v6 ["/x","y"] ["A=b","C=d e"] {"80/tcp":{}} {"l":"m"} 7 /w ["/bin/sh","-c","/e"]
        $ history --format {{.Comment}} imp:1
        from a tree
        @ DOCKER_DEFAULT_PLATFORM=linux/arm64 $CLIENT import tree.tar imp:2 >/dev/null && $CLIENT inspect -f '{{.Architecture}} {{.Comment}}' imp:2
        arm64 Imported from -
        @ for kind in gz bz2 xz zst; do $CLIENT import tree.tar.$kind imp:$kind >/dev/null && $CLIENT create --name $kind imp:$kind true >/dev/null && $CLIENT cp $kind:/file - | tar -xOf -; done
        hello
        hello
        hello
        hello
        @ $CLIENT import - imp:3 < tree.tar
        <digest>
        @ $CLIENT import - < tree.tar
        <digest>
        $ import nosuch.tar imp:4
        ! open nosuch.tar: no such file or directory
        [1]
        $ import
        ! requires at least 1 argument
        [1]
        $ import -c "RUN true" tree.tar imp:4
        ! run
        [1]
        $ import -c "FROB x" tree.tar imp:4
        ! unknown instruction: FROB
        [1]
        $ import --platform linux/amd64/v2/x tree.tar imp:4
        [1]
        $ import tree.tar UPPER
        ! must be lowercase
        [1]
        @ echo no tar | $CLIENT import - imp:4
        [1]
        @ $CLIENT images -q imp:4 | wc -l
        0
        "#,
    );
}

#[test]
fn saved_by_platform_and_loaded_however_compressed() {
    guard!();
    both(
        r#"
        @ mkdir tree && echo hello > tree/file && tar -C tree -cf tree.tar . && $CLIENT import --platform linux/arm64/v8 tree.tar arm:1
        <digest>
        $ save --platform linux/arm64 -o arm.tar arm:1
        $ save --platform linux/amd64 -o none.tar arm:1
        ! platform
        [1]
        $ save --platform linux//x -o none.tar arm:1
        ! invalid platform
        [1]
        @ ls none.tar 2>/dev/null
        [2]
        @ gzip -k arm.tar && bzip2 -k arm.tar && xz -k arm.tar && zstd -q arm.tar
        @ for kind in tar tar.gz tar.bz2 tar.xz tar.zst; do $CLIENT rmi arm:1 >/dev/null; $CLIENT load -i arm.$kind; done
        Loaded image: arm:1
        Loaded image: arm:1
        Loaded image: arm:1
        Loaded image: arm:1
        Loaded image: arm:1
        $ load --platform linux/amd64 -i arm.tar
        ! platform
        [1]
        $ load --platform linux//x -i arm.tar
        ! invalid platform
        [1]
        $ load --platform linux/arm64 -q -i arm.tar
        Loaded image: arm:1
        @ head -c 700 arm.tar > cut.tar; $CLIENT load -i cut.tar
        [1]
        @ $CLIENT load < /dev/null
        [1]
        $ load extra
        ! accepts no arguments
        [1]
        "#,
    );
}

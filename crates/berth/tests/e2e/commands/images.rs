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

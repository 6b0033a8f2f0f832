//! RUN with mounts and heredocs.

use crate::lab::Lab;

#[tokio::test]
async fn mounts_are_seen_and_leave_nothing() {
    let Some(lab) = Lab::new().await else { return };
    lab.write("ctx/f", "context");
    let mut request = lab.request(
        "FROM base AS lower\nRUN mkdir /d; echo 1 > /d/1; echo gone > /d/gone\nRUN echo 2 > /d/2; rm /d/gone\nFROM base\n\
         RUN --mount=from=lower,source=/d,target=/m/d ls /m/d | tr '\\n' ' ' > /listed\n\
         RUN --mount=source=ctx,target=/ctx cat /ctx/f > /context\n\
         RUN --mount=type=secret,id=key cat /run/secrets/key > /leaked\n\
         RUN --mount=type=secret,id=key,env=KEY echo \"$KEY\" > /env\n\
         RUN --mount=type=secret,id=none test ! -e /run/secrets/none\n\
         RUN --mount=type=tmpfs,target=/t echo x > /t/x\n",
    );
    request.client = Some(lab.lender("key", "s3cret"));
    let built = lab.build_request(request).await;
    let image = built.image();
    assert_eq!(lab.cat(image, "/listed"), "1 2 ");
    assert_eq!(lab.cat(image, "/context"), "context");
    assert_eq!(lab.cat(image, "/leaked"), "s3cret");
    assert_eq!(lab.cat(image, "/env"), "s3cret\n");
    for path in ["/m", "/ctx", "/run", "/t"] {
        assert!(!lab.has(image, path), "{path} was only there to mount on");
    }
    let built = lab
        .build("FROM base\nRUN --mount=type=secret,id=key,required true\n")
        .await;
    assert!(
        built.error().to_string().contains("secret key: not found"),
        "{}",
        built.error()
    );
}

#[tokio::test]
async fn cache_directories_outlive_builds() {
    let Some(lab) = Lab::new().await else { return };
    let text = |word: &str| {
        format!("FROM base\nRUN --mount=type=cache,target=/c echo {word} >> /c/log; cat /c/log > /log\n")
    };
    lab.build(&text("one")).await.image();
    let built = lab.build(&text("two")).await;
    assert_eq!(lab.cat(built.image(), "/log"), "one\ntwo\n");
    assert!(!lab.has(built.image(), "/c"));
    let usage = lab.builder.disk_usage().await.unwrap();
    assert_eq!(
        usage
            .iter()
            .filter(|entry| entry.kind == "exec.cachemount")
            .count(),
        1
    );
    let all = build::PruneOptions {
        all: true,
        ..build::PruneOptions::default()
    };
    lab.builder.prune(all).await.unwrap();
    let built = lab.build(&text("three")).await;
    assert_eq!(lab.cat(built.image(), "/log"), "three\n");
}

#[tokio::test]
async fn heredocs_are_scripts() {
    let Some(lab) = Lab::new().await else { return };
    let built = lab
        .build(
            "FROM base\nRUN <<EOF\nx=1\necho \"a$x\" > /a\nEOF\nRUN cat <<EOF > /b\nb\nEOF\nRUN <<SCRIPT\n#!/bin/sh\n\
             echo c > /c\nSCRIPT\n",
        )
        .await;
    let image = built.image();
    for (path, content) in [("/a", "a1\n"), ("/b", "b\n"), ("/c", "c\n")] {
        assert_eq!(lab.cat(image, path), content, "{path}");
    }
    assert!(!lab.has(image, "/dev/pipes"));
}

#[tokio::test]
async fn what_is_written_into_a_bind_mount_is_gone_with_the_step() {
    let Some(lab) = Lab::new().await else { return };
    lab.write("ctx/f", "context");
    let built = lab
        .build(
            "FROM base AS lower\nRUN mkdir /d; echo 1 > /d/1\nRUN echo 2 > /d/2\nFROM base\n\
             RUN --mount=from=lower,source=/d,target=/m,rw echo 3 > /m/3; rm /m/1; ls /m | tr '\\n' ' ' > /listed\n\
             RUN --mount=from=lower,source=/d,target=/m ls /m | tr '\\n' ' ' > /again\n\
             RUN --mount=source=ctx,target=/c,rw echo new > /c/f; cat /c/f > /changed\n\
             RUN --mount=source=ctx/f,target=/one,rw echo more >> /one; cat /one > /file\n",
        )
        .await;
    let image = built.image();
    assert_eq!(lab.cat(image, "/listed"), "2 3 ");
    assert_eq!(lab.cat(image, "/again"), "1 2 ");
    assert_eq!(lab.cat(image, "/changed"), "new\n");
    assert_eq!(lab.cat(image, "/file"), "contextmore\n");
    assert_eq!(
        std::fs::read_to_string(lab.context.join("ctx/f")).unwrap(),
        "context"
    );
    assert_eq!(lab.leftovers(), 0);
}

#[tokio::test]
async fn a_cache_directory_can_begin_as_a_copy_or_be_used_in_part() {
    let Some(lab) = Lab::new().await else { return };
    let built = lab
        .build(
            "FROM base AS seed\nRUN mkdir /s; echo seed > /s/f\nFROM base\n\
             RUN --mount=type=cache,target=/c,from=seed,source=/s cat /c/f > /first; echo mine > /c/f\n\
             RUN --mount=type=cache,target=/c,from=seed,source=/s cat /c/f > /second\n\
             RUN --mount=type=cache,target=/c,id=parts,source=a echo a > /c/x\n\
             RUN --mount=type=cache,target=/c,id=parts cat /c/a/x > /third\n",
        )
        .await;
    let image = built.image();
    for (path, content) in [("/first", "seed\n"), ("/second", "mine\n"), ("/third", "a\n")] {
        assert_eq!(lab.cat(image, path), content, "{path}");
    }
}

#[tokio::test]
async fn locked_directories_are_used_by_one_step_after_the_other_and_private_ones_by_one_alone() {
    let Some(lab) = Lab::new().await else { return };
    // A directory can be made once: whoever comes while it is there has not waited.
    let alone = "RUN --mount=type=cache,id=locked,sharing=locked,target=/c mkdir /c/busy && sleep 0.3 && rm -r /c/busy && echo";
    let text = format!(
        "FROM base AS a\n{alone} a > /a\nFROM base AS b\n{alone} b > /b\nFROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    );
    let built = lab.build(&text).await;
    assert_eq!(lab.cat(built.image(), "/b"), "b\n");
    // Each waits for the other in what they share, so both are there at once, and neither sees what the other has.
    let own = "RUN --mount=type=cache,id=private,sharing=private,target=/c --mount=type=cache,id=meeting,target=/m \
               touch /c/ME /m/ME; while ! test -e /m/YOU; do sleep 0.01; done; ls /c | tr '\\n' ' ' > /seen";
    let text = format!(
        "FROM base AS a\n{}\nFROM base AS b\n{}\nFROM base\nCOPY --from=a /seen /a\nCOPY --from=b /seen /b\n",
        own.replace("ME", "a").replace("YOU", "b"),
        own.replace("ME", "b").replace("YOU", "a"),
    );
    let built = lab.build(&text).await;
    assert_eq!(lab.cat(built.image(), "/a"), "a ");
    assert_eq!(lab.cat(built.image(), "/b"), "b ");
}

#[tokio::test]
async fn cache_directories_of_one_namespace_are_not_those_of_another() {
    let Some(lab) = Lab::new().await else { return };
    let counted = async |namespace: Option<&str>| {
        let mut request =
            lab.request("FROM base\nRUN --mount=type=cache,target=/c echo x >> /c/log; cat /c/log > /log\n");
        request.no_cache = true;
        if let Some(namespace) = namespace {
            let name = "BUILDKIT_CACHE_MOUNT_NS".to_owned();
            request.build_args.insert(name, Some(namespace.to_owned()));
        }
        let built = lab.build_request(request).await;
        lab.cat(built.image(), "/log").lines().count()
    };
    for (namespace, uses) in [
        (None, 1),
        (Some("one"), 1),
        (Some("two"), 1),
        (Some("one"), 2),
        (None, 2),
    ] {
        assert_eq!(counted(namespace).await, uses, "{namespace:?}");
    }
}

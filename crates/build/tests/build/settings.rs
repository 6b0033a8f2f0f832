//! What reaches the image's configuration: settings, arguments, triggers, labels, history, times.

use spec::image::ContainerSettings;

use crate::lab::Lab;

#[tokio::test]
async fn configuration_as_docker_writes_it() {
    let Some(lab) = Lab::new().await else { return };
    let mut request = lab.request(
        "FROM base\nMAINTAINER me\nARG V=1\nENV A=$V\nRUN echo $A$V > /v\nWORKDIR /w\nWORKDIR /w\nEXPOSE 80\nVOLUME /d\n\
         HEALTHCHECK --interval=5s CMD x\nSTOPSIGNAL SIGINT\nCMD run it\n",
    );
    request.labels.insert("k'ey".to_owned(), "va $lue".to_owned());
    request.build_args.insert("V".to_owned(), Some("2".to_owned()));
    request
        .build_args
        .insert("SOURCE_DATE_EPOCH".to_owned(), Some("1000000000".to_owned()));
    let built = lab.build_request(request).await;
    let image = built.image();
    assert_eq!(lab.cat(image, "/v"), "22\n");
    let config = &image.config.config;
    assert_eq!(
        config.env,
        [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "A=2"
        ]
    );
    assert_eq!(config.labels.get("k'ey").map(String::as_str), Some("va $lue"));
    assert_eq!(
        config.cmd.as_deref(),
        Some(&["/bin/sh".to_owned(), "-c".into(), "run it".into()][..])
    );
    assert_eq!(
        config.healthcheck.as_ref().map(|check| check.interval),
        Some(5_000_000_000)
    );
    assert_eq!(config.working_dir, "/w");
    assert_eq!(image.config.author.as_deref(), Some("me"));
    assert_eq!(image.config.created.as_deref(), Some("2001-09-09T01:46:40Z"));
    let history: Vec<&str> = image
        .config
        .history
        .iter()
        .skip(1)
        .map(|line| line.created_by.as_deref().unwrap_or_default())
        .collect();
    assert_eq!(
        history,
        [
            "MAINTAINER me",
            "ARG V=2",
            "ENV A=2",
            "RUN |1 V=2 /bin/sh -c echo $A$V > /v # buildkit",
            "WORKDIR /w",
            "WORKDIR /w",
            "EXPOSE [80/tcp]",
            "VOLUME [/d]",
            "HEALTHCHECK &{[\"CMD-SHELL\" \"x\"] \"5s\" \"0s\" \"0s\" \"0s\" '\\x00'}",
            "STOPSIGNAL SIGINT",
            "CMD [\"/bin/sh\" \"-c\" \"run it\"]",
            "LABEL k'ey=va $lue",
        ]
    );
    let empty: Vec<bool> = image.config.history.iter().map(|line| line.empty_layer).collect();
    assert_eq!(
        empty.iter().filter(|empty| !**empty).count(),
        image.manifest.layers.len()
    );
    // The second WORKDIR finds its directory.
    assert_eq!((empty[5], empty[6]), (false, true));
}

#[tokio::test]
async fn proxies_reach_commands_but_not_the_cache() {
    let Some(lab) = Lab::new().await else { return };
    let text = "FROM base\nRUN echo \"[$http_proxy]\" > /p\n";
    let mut request = lab.request(text);
    request
        .build_args
        .insert("http_proxy".to_owned(), Some("http://p".to_owned()));
    let built = lab.build_request(request).await;
    assert_eq!(lab.cat(built.image(), "/p"), "[http://p]\n");
    assert!(
        built.image().config.history.iter().all(|line| !line
            .created_by
            .clone()
            .unwrap_or_default()
            .contains("http://p"))
    );
    assert_eq!(lab.build(text).await.runs, 0);
}

#[tokio::test]
async fn triggers_of_the_base_run_first() {
    let Some(lab) = Lab::new().await else { return };
    lab.write("f", "x");
    let changes = ContainerSettings {
        on_build: vec!["COPY f /f".to_owned(), "RUN <<EOF\ncat /f > /g\nEOF".to_owned()],
        ..ContainerSettings::default()
    };
    lab.import("triggers", changes).await;
    let built = lab.build("FROM triggers\nRUN cat /g > /h\n").await;
    let image = built.image();
    assert_eq!(lab.cat(image, "/h"), "x");
    assert!(image.config.config.on_build.is_empty());
    assert!(
        built.text.contains("# Executing 2 build triggers\n"),
        "{}",
        built.text
    );
    let changes = ContainerSettings {
        on_build: vec!["BAD x".to_owned()],
        ..ContainerSettings::default()
    };
    lab.import("badtrigger", changes).await;
    let built = lab.build("FROM badtrigger\n").await;
    assert!(
        built.error().to_string().contains("unknown instruction: BAD"),
        "{}",
        built.error()
    );
}

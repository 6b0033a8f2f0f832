//! `info`: the daemon's state and abilities.

use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::{printable, size};
use crate::json::Value;
use crate::session::{Session, print};
use crate::template::{Missing, Template};

pub const COMMAND: Command = Command::new(
    "info",
    "Display system-wide information",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[Flag::text("format", "Layout: 'json' or a Go template").short('f')]]);

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let info = async { session.client.get("/info").await?.document().await }.await;
    let context = session
        .client
        .endpoint()
        .map(|endpoint| endpoint.context.clone())
        .unwrap_or_default();
    match matches.text("format").unwrap_or_default() {
        "" => {
            let head = format!(
                "Client:\n Version:    {}\n Context:    {context}\n Debug Mode: {}\n\nServer:\n",
                env!("CARGO_PKG_VERSION"),
                session.debug
            );
            print(&head)?;
            let info = info?;
            print(&server(&info))?;
            for warning in info.at(&["Warnings"]).items() {
                eprintln!("{}", printable(warning.text()));
            }
        }
        "json" => print(&format!("{}\n", with_client(info?, session, &context).compact()))?,
        text => {
            let template = Template::parse(text)
                .map_err(|error| Failure::text(format!("template parsing error: {error}")).with_code(64))?;
            let document = with_client(info?, session, &context);
            let filled = template
                .execute(&document, Missing::Error)
                .map_err(|error| Failure::text(error.to_string()))?;
            print(&format!("{filled}\n"))?;
        }
    }
    Ok(0)
}

fn with_client(mut info: Value, session: &Session, context: &str) -> Value {
    if let Value::Object(members) = &mut info {
        let client = Value::Object(vec![
            ("Debug".into(), session.debug.into()),
            ("Version".into(), env!("CARGO_PKG_VERSION").into()),
            ("Context".into(), context.into()),
        ]);
        members.push(("ClientInfo".into(), client));
    }
    info
}

fn server(info: &Value) -> String {
    let mut out = String::new();
    let text = |key: &str| printable(info.at(&[key]).text());
    let words = |value: &Value| {
        value
            .items()
            .iter()
            .map(|item| printable(item.text()))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!(" {name}: {value}\n"));
        }
    };
    for (name, key) in [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
    ] {
        line(name, info.at(&[key]).int().to_string());
    }
    line("Server Version", text("ServerVersion"));
    line("Storage Driver", text("Driver"));
    for pair in info.at(&["DriverStatus"]).items() {
        if let [key, value] = pair.items() {
            line(&format!(" {}", printable(key.text())), printable(value.text()));
        }
    }
    for (name, key) in [
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    ] {
        line(name, text(key));
    }
    line("Plugins", " ".into());
    for key in ["Volume", "Network", "Authorization", "Log"] {
        line(&format!(" {key}"), words(info.at(&["Plugins", key])));
    }
    if !info.at(&["CDISpecDirs"]).items().is_empty() {
        line("CDI spec directories", " ".into());
        info.at(&["CDISpecDirs"])
            .items()
            .iter()
            .for_each(|dir| line(" ", printable(dir.text())));
    }
    line("Swarm", printable(info.at(&["Swarm", "LocalNodeState"]).text()));
    let runtimes: Vec<&str> = info
        .at(&["Runtimes"])
        .members()
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    line("Runtimes", runtimes.join(" "));
    line("Default Runtime", text("DefaultRuntime"));
    line("Init Binary", text("InitBinary"));
    for (name, key) in [
        ("containerd version", "ContainerdCommit"),
        ("runc version", "RuncCommit"),
        ("init version", "InitCommit"),
    ] {
        line(name, printable(info.at(&[key, "ID"]).text()));
    }
    if !info.at(&["SecurityOptions"]).items().is_empty() {
        line("Security Options", " ".into());
        for option in info.at(&["SecurityOptions"]).items() {
            for part in option.text().split(',') {
                match part.split_once('=') {
                    Some(("name", name)) => line(" ", printable(name)),
                    Some((key, value)) => line(&format!("  {}", title(key)), printable(value)),
                    None => {}
                }
            }
        }
    }
    for (name, key) in [
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
    ] {
        line(name, text(key));
    }
    line("CPUs", info.at(&["NCPU"]).int().to_string());
    line("Total Memory", size::binary(info.at(&["MemTotal"]).float()));
    line("Name", text("Name"));
    line("ID", text("ID"));
    line("Docker Root Dir", text("DockerRootDir"));
    line("Debug Mode", info.at(&["Debug"]).flag().to_string());
    for (name, key) in [
        ("HTTP Proxy", "HttpProxy"),
        ("HTTPS Proxy", "HttpsProxy"),
        ("No Proxy", "NoProxy"),
    ] {
        line(name, text(key));
    }
    let texts =
        |value: &Value| -> Vec<String> { value.items().iter().map(|item| printable(item.text())).collect() };
    let list = |out: &mut dyn FnMut(&str, String), name: &str, items: Vec<String>| {
        if !items.is_empty() {
            out(name, " ".into());
            items.into_iter().for_each(|item| out(" ", item));
        }
    };
    list(&mut line, "Labels", texts(info.at(&["Labels"])));
    line("Experimental", info.at(&["ExperimentalBuild"]).flag().to_string());
    let registries = info.at(&["RegistryConfig", "IndexConfigs"]).members().iter();
    let insecure = registries.filter(|(_, index)| !index.at(&["Secure"]).flag());
    let mut insecure: Vec<String> = insecure.map(|(name, _)| printable(name)).collect();
    insecure.extend(texts(info.at(&["RegistryConfig", "InsecureRegistryCIDRs"])));
    list(&mut line, "Insecure Registries", insecure);
    list(
        &mut line,
        "Registry Mirrors",
        texts(info.at(&["RegistryConfig", "Mirrors"])),
    );
    line(
        "Live Restore Enabled",
        info.at(&["LiveRestoreEnabled"]).flag().to_string(),
    );
    line(
        "Firewall Backend",
        printable(info.at(&["FirewallBackend", "Driver"]).text()),
    );
    // Headings and items of lists carry no value or no name of their own.
    out.replace(":  \n", ":\n")
        .lines()
        .map(|row| row.replacen("  : ", "  ", 1) + "\n")
        .collect()
}

fn title(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

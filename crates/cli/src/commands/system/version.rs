//! `version`: client and daemon.

use crate::client::{API_VERSION, older};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::format::time;
use crate::json::Value;
use crate::session::{Session, print};
use crate::template::{Missing, Template};

pub const COMMAND: Command = Command::new(
    "version",
    "Show the version information",
    "[OPTIONS]",
    Arity::Exactly(0),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[Flag::text("format", "Layout: 'json' or a Go template").short('f')]]);

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let server = async { session.client.get("/version").await?.document().await }.await;
    let spoken = match session.client.version().await {
        Ok(version) if older(&version, API_VERSION) => version,
        _ => API_VERSION.to_owned(),
    };
    let context = session
        .client
        .endpoint()
        .map(|endpoint| endpoint.context.clone())
        .unwrap_or_default();
    let text = |text: &str| Value::from(text);
    let client = Value::Object(vec![
        (
            "Platform".into(),
            Value::Object(vec![("Name".into(), text("Berth"))]),
        ),
        ("Version".into(), text(env!("CARGO_PKG_VERSION"))),
        ("ApiVersion".into(), text(&spoken)),
        ("DefaultAPIVersion".into(), text(API_VERSION)),
        ("GitCommit".into(), text("")),
        ("GoVersion".into(), text("")),
        ("Os".into(), text("linux")),
        ("Arch".into(), text(arch())),
        ("Context".into(), text(&context)),
    ]);
    let format = matches.text("format").unwrap_or_default();
    let document = Value::Object(vec![
        ("Client".into(), client.clone()),
        ("Server".into(), server.as_ref().ok().cloned().unwrap_or_default()),
    ]);
    match format {
        "json" => print(&format!("{}\n", document.compact()))?,
        "" => print(&table(&client, server.as_ref().ok()))?,
        text => {
            let template = Template::parse(text)
                .map_err(|error| Failure::text(format!("template parsing error: {error}")).with_code(64))?;
            let filled = template.execute(&document, Missing::Error);
            match (filled, server) {
                (_, Err(failure)) if text.contains(".Server") => return Err(failure),
                (filled, _) => {
                    let filled = filled.map_err(|error| Failure::text(error.to_string()))?;
                    print(&format!("{filled}\n"))?;
                }
            }
            return Ok(0);
        }
    }
    server.map(|_| 0)
}

fn table(client: &Value, server: Option<&Value>) -> String {
    let line = |out: &mut String, indent: &str, name: &str, value: &str| {
        if !value.is_empty() {
            let width = 20 - indent.len();
            out.push_str(&format!("{indent}{:<width$}{value}\n", format!("{name}:")));
        }
    };
    let get = |value: &Value, key: &str| value.at(&[key]).text().to_owned();
    let mut out = String::from("Client: Berth\n");
    line(&mut out, " ", "Version", &get(client, "Version"));
    let (api, default) = (get(client, "ApiVersion"), get(client, "DefaultAPIVersion"));
    let api = if api == default {
        api
    } else {
        format!("{api} (downgraded from {default})")
    };
    line(&mut out, " ", "API version", &api);
    line(
        &mut out,
        " ",
        "OS/Arch",
        &format!("{}/{}", get(client, "Os"), get(client, "Arch")),
    );
    line(&mut out, " ", "Context", &get(client, "Context"));
    let Some(server) = server else { return out };
    let platform = server.at(&["Platform", "Name"]).text();
    out.push_str(&format!(
        "\nServer:{}{platform}\n",
        if platform.is_empty() { "" } else { " " }
    ));
    for component in server.at(&["Components"]).items() {
        let details = component.at(&["Details"]);
        out.push_str(&format!(" {}:\n", get(component, "Name")));
        line(&mut out, "  ", "Version", &get(component, "Version"));
        if get(component, "Name") != "Engine" {
            for (key, value) in details.members() {
                line(&mut out, "  ", key, value.text());
            }
            continue;
        }
        let minimum = get(details, "MinAPIVersion");
        line(
            &mut out,
            "  ",
            "API version",
            &format!("{} (minimum version {minimum})", get(details, "ApiVersion")),
        );
        line(&mut out, "  ", "Go version", &get(details, "GoVersion"));
        line(&mut out, "  ", "Git commit", &get(details, "GitCommit"));
        line(&mut out, "  ", "Built", &time::ansic(&get(details, "BuildTime")));
        line(
            &mut out,
            "  ",
            "OS/Arch",
            &format!("{}/{}", get(details, "Os"), get(details, "Arch")),
        );
        line(&mut out, "  ", "Experimental", &get(details, "Experimental"));
    }
    out
}

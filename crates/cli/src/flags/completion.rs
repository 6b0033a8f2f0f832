//! Completion scripts for bash, zsh and fish, written from the tables: words and flags, no daemon asked.

use super::Flag;
use crate::command::{Command, Group};

fn flags_of(command: &Command) -> Vec<&'static Flag> {
    command
        .flags
        .iter()
        .flat_map(|table| table.iter())
        .filter(|flag| !flag.hidden)
        .collect()
}

/// The script for a shell, if it is a known one.
pub fn script(shell: &str, groups: &[&Group], commands: &[&Command]) -> Option<String> {
    match shell {
        "bash" => Some(bash(groups, commands)),
        "zsh" => Some(format!(
            "#compdef berth\nautoload -U +X bashcompinit && bashcompinit\n{}",
            bash(groups, commands)
        )),
        "fish" => Some(fish(groups, commands)),
        _ => None,
    }
}

fn words(command: &Command) -> String {
    let mut words: Vec<String> = flags_of(command)
        .iter()
        .map(|flag| format!("--{}", flag.long))
        .collect();
    words.push("--help".into());
    words.join(" ")
}

fn bash(groups: &[&Group], commands: &[&Command]) -> String {
    let mut top: Vec<&str> = commands.iter().map(|command| command.name).collect();
    top.extend(groups.iter().map(|group| group.name));
    top.sort_unstable();
    let mut out = String::from(
        "_berth() {\n  local word=\"${COMP_WORDS[COMP_CWORD]}\" one=\"${COMP_WORDS[1]}\" two=\"${COMP_WORDS[2]}\" list=\"\"\n  COMPREPLY=()\n  if [ \"$COMP_CWORD\" -eq 1 ]; then\n",
    );
    out.push_str(&format!(
        "    list=\"{}\"\n  else\n    case \"$one\" in\n",
        top.join(" ")
    ));
    for group in groups {
        let names: Vec<&str> = group.commands.iter().map(|command| command.name).collect();
        out.push_str(&format!(
            "    {}) if [ \"$COMP_CWORD\" -eq 2 ]; then list=\"{}\"; else case \"$two\" in\n",
            group.name,
            names.join(" ")
        ));
        for command in &group.commands {
            out.push_str(&format!(
                "      {}) list=\"{}\" ;;\n",
                command.name,
                words(command)
            ));
        }
        out.push_str("      esac; fi ;;\n");
    }
    for command in commands {
        out.push_str(&format!("    {}) list=\"{}\" ;;\n", command.name, words(command)));
    }
    out.push_str(
        "    esac\n    case \"$word\" in -*) ;; *) [ \"$COMP_CWORD\" -gt 2 ] && list=\"\" ;; esac\n  fi\n  COMPREPLY=( $(compgen -W \"$list\" -- \"$word\") )\n}\ncomplete -o default -F _berth berth\n",
    );
    out
}

fn fish(groups: &[&Group], commands: &[&Command]) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let mut out = String::new();
    for (name, about) in commands
        .iter()
        .map(|command| (command.name, command.about))
        .chain(groups.iter().map(|group| (group.name, group.about)))
    {
        out.push_str(&format!(
            "complete -c berth -n __fish_use_subcommand -f -a {name} -d {}\n",
            quote(about)
        ));
    }
    let mut flags = |condition: String, command: &Command| {
        for flag in flags_of(command) {
            let short = flag
                .short
                .map_or_else(String::new, |short| format!(" -s {short}"));
            out.push_str(&format!(
                "complete -c berth -n {} -l {}{short} -d {}\n",
                quote(&condition),
                flag.long,
                quote(flag.about)
            ));
        }
    };
    for command in commands {
        flags(format!("__fish_seen_subcommand_from {}", command.name), command);
    }
    for group in groups {
        for command in &group.commands {
            flags(
                format!(
                    "__fish_seen_subcommand_from {}; and __fish_seen_subcommand_from {}",
                    group.name, command.name
                ),
                command,
            );
        }
    }
    for group in groups {
        let names: Vec<&str> = group.commands.iter().map(|command| command.name).collect();
        out.push_str(&format!(
            "complete -c berth -f -n '__fish_seen_subcommand_from {}' -a {}\n",
            group.name,
            quote(&names.join(" "))
        ));
    }
    out
}

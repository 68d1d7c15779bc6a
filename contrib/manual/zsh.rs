//! A completion for zsh: one file for all programs.

use std::fmt::Write as _;

use super::commands::{Command, Offer, offer, repeats, value_of};

/// What `hub names` prints, for the file that the command line names.
const NAMES: &str = r#"_hub_names() {
  # _arguments puts what compadd is to know before the last word.
  local -a config names
  local at=${words[(I)--config]}
  (( at )) && config=(--config ${(Q)words[at+1]})
  at=${words[(I)--config=*]}
  (( at )) && config=(--config ${(Q)words[at]#--config=})
  names=(${(f)"$(hub names ${@[-1]} $config 2>/dev/null)"})
  compadd "${@[1,-2]}" -a names
}
"#;

pub fn script(programs: &[&Command]) -> Result<String, String> {
    let names: Vec<String> = programs.iter().map(|program| program.page()).collect();
    let mut out = format!(
        "#compdef {}\n# zsh completion, made from the command lines of the programs; do not edit.\n\n{}",
        names.join(" "),
        NAMES
    );
    for program in programs {
        for command in program.all() {
            out.push_str(&function(command)?);
        }
    }
    out.push_str("\ncase $service in\n");
    for program in programs {
        let _ = writeln!(out, "  {}) {} ;;", program.page(), function_name(program));
    }
    Ok(out + "esac\n")
}

fn function_name(command: &Command) -> String {
    format!("_hub_of_{}", command.path.join("_").replace('-', "_"))
}

fn function(command: &Command) -> Result<String, String> {
    let mut specs = Vec::new();
    for flag in command.flags() {
        let again = if repeats(&flag.optionality) { "*" } else { "" };
        let value = value_of(flag).map(taken).transpose()?.unwrap_or_default();
        let equals = if value.is_empty() { "" } else { "=" };
        specs.push(format!("{again}{}{equals}[{}]{value}", flag.long, escaped(flag.description)));
    }
    specs.push("--help[show the help]".to_owned());
    if command.path.len() == 1 {
        specs.push("(- *)--version[show the version]".to_owned());
    }
    for (index, one) in command.positionals().enumerate() {
        let place = if repeats(&one.optionality) { "*".to_owned() } else { (index + 1).to_string() };
        specs.push(format!("{place}{}", taken(one.name)?));
    }
    let list = |specs: &[String]| specs.iter().map(|spec| format!(" \\\n    {}", quoted(spec))).collect::<String>();
    let name = function_name(command);
    if command.commands.is_empty() {
        return Ok(format!("\n{name}() {{\n  _arguments{}\n}}\n", list(&specs)));
    }
    specs.push("1:command:->command".to_owned());
    specs.push("*::argument:->argument".to_owned());
    let mut out =
        format!("\n{name}() {{\n  local state line\n  typeset -A opt_args\n  _arguments -C{}\n", list(&specs));
    out.push_str("  case $state in\n    command)\n      local -a commands=(\n");
    for sub in &command.commands {
        let word = sub.path.last().map_or("", String::as_str);
        let _ = writeln!(out, "        {}", quoted(&format!("{word}:{}", sub.summary())));
    }
    out.push_str(
        "      )\n      _describe -t commands command commands\n      ;;\n    argument)\n      case $line[1] in\n",
    );
    for sub in &command.commands {
        let _ = writeln!(out, "        {}) {} ;;", sub.path.last().map_or("", String::as_str), function_name(sub));
    }
    out.push_str("      esac\n      ;;\n  esac\n}\n");
    Ok(out)
}

/// What _arguments has after an option or a place.
fn taken(name: &str) -> Result<String, String> {
    let message = name.replace(':', "\\:");
    Ok(match offer(name)? {
        Offer::Names(kind) => format!(":{message}:_hub_names {kind}"),
        Offer::Files => format!(":{message}:_files"),
        Offer::Folders => format!(":{message}:_files -/"),
        Offer::Words(words) => format!(":{message}:({})", words.join(" ")),
        Offer::Nothing => format!(":{message}: "),
    })
}

fn escaped(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace('[', "\\[").replace(']', "\\]").replace(':', "\\:")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

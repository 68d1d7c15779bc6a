//! A completion for fish.

use std::fmt::Write as _;

use super::commands::{Command, Offer, offer, repeats, value_of};

/// Whether the words before the cursor lead to a command, and how many words it has got already; and what `hub names` prints.
const ENGINE: &str = r#"function @function_at -a path position
    set -l now '@program'
    set -l count 0
    set -l option
    for word in (commandline -opc)[2..-1]
        if set -q option[1]
            set -e option
            continue
        end
        switch "$now $word"
            case @commands
                set now "$now $word"
            case @options
                set option $word
            case '* -*'
            case '*'
                set count (math $count + 1)
        end
    end
    test "$now" = "$path"; and test -z "$position" -o "$position" = "$count"
end

function @function_names -a kind
    command -q hub; or return
    set -l words (commandline -opc)
    set -l config
    if set -l at (contains -i -- --config $words)
        set config --config $words[(math $at + 1)..-1]
    end
    hub names $kind $config 2>/dev/null
end

complete -c @program -f
"#;

pub fn script(program: &Command) -> Result<String, String> {
    let name = program.page();
    let function = format!("__{}", name.replace('-', "_"));
    let (mut lines, mut commands, mut options) = (String::new(), Vec::new(), Vec::new());
    for command in program.all() {
        let path = command.words();
        let at = format!("complete -c {name} -n \"{function}_at '{path}'");
        for sub in &command.commands {
            commands.push(format!("'{}'", sub.words()));
            let (word, text) = (sub.path.last().map_or("", String::as_str), sub.summary());
            let _ = writeln!(lines, "{at} 0\" -a {word} -d {}", quoted(&text));
        }
        for flag in command.flags() {
            let long = flag.long.trim_start_matches('-');
            let takes = match value_of(flag) {
                None => String::new(),
                Some(value) => {
                    options.push(format!("'* {}'", flag.long));
                    format!(" -r{}", offered(&function, value)?)
                }
            };
            let _ = writeln!(lines, "{at}\" -l {long}{takes} -d {}", quoted(flag.description));
        }
        let _ = writeln!(lines, "{at}\" -l help -d 'show the help'");
        if command.path.len() == 1 {
            let _ = writeln!(lines, "{at}\" -l version -s V -d 'show the version'");
        }
        for (index, one) in command.positionals().enumerate() {
            let place = if repeats(&one.optionality) { String::new() } else { format!(" {index}") };
            let offer = offered(&function, one.name)?;
            if offer != " -f" {
                let _ = writeln!(lines, "{at}{place}\"{offer} -d {}", quoted(one.description));
            }
        }
    }
    options.sort();
    options.dedup();
    if commands.is_empty() {
        commands.push("''".to_owned());
    }
    let engine = ENGINE
        .replace("@function", &function)
        .replace("@program", &name)
        .replace("@commands", &commands.join(" "))
        .replace("@options", &options.join(" "));
    Ok(format!("# fish completion for {name}, made from its command line; do not edit.\n{engine}{lines}"))
}

fn quoted(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn offered(function: &str, name: &str) -> Result<String, String> {
    Ok(match offer(name)? {
        Offer::Names(kind) => format!(" -f -a '({function}_names {kind})'"),
        Offer::Files => " -F".to_owned(),
        Offer::Folders => " -f -a '(__fish_complete_directories)'".to_owned(),
        Offer::Words(words) => format!(" -f -a '{}'", words.join(" ")),
        Offer::Nothing => " -f".to_owned(),
    })
}

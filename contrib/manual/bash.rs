//! A completion for bash. It needs nothing of the package bash-completion but to be loaded by it.

use std::fmt::Write as _;

use super::commands::{Command, Offer, offer, repeats, value_of};

/// What every script does: it walks the words up to the cursor, and offers what fits there. `@` and `=` part words in
/// readline's eyes, so the words are taken from the line, and what readline has already is taken off again.
const ENGINE: &str = r#"@function() {
    local line=${COMP_LINE:0:COMP_POINT} path='@program' cur='' option='' count=0 word name
    local IFS=$' \t\n' quote='' char before='' index start=0
    local -a words=() config=()
    for ((index = 0; index < ${#line}; index++)); do
        char=${line:index:1}
        if [[ $quote == '\' || ($quote && $char != "$quote" && ($char != '\' || $quote == "'")) ]]; then
            cur+=$char
            [[ $quote != '\' ]] || quote=''
        elif [[ $quote && $char == "$quote" ]]; then
            quote=''
        elif [[ $char == [\"\'\\] ]]; then
            quote=$char
        elif [[ $char == [[:space:]] ]]; then
            [[ -z $cur ]] || words+=("$cur")
            cur='' start=0
        else
            [[ $char != '@' || $COMP_WORDBREAKS != *@* ]] || start=${#cur}
            cur+=$char
            [[ $char == '@' || $COMP_WORDBREAKS != *"$char"* ]] || start=${#cur}
        fi
    done
    COMPREPLY=()
    for word in "${words[@]:1}"; do
        if [[ -n $option ]]; then
            [[ $option != --config ]] || config=(--config "$word")
            option=''
            continue
        fi
        case "$path $word" in
            @commands) path+=" $word" ;;
            *' --config='*) config=(--config "${word#*=}") ;;
            @options) option=$word ;;
            *' -'*) ;;
            *) count=$((count + 1)) ;;
        esac
    done
    if [[ -z $option && $cur == --*=* ]]; then
        option=${cur%%=*}
        before=$option=
        cur=${cur#*=}
    fi
    local offer=''
    if [[ -n $option ]]; then
        case "$path $option" in
@values
        esac
    elif [[ $cur == -* ]]; then
        case $path in
@flags
        esac
    else
        case "$path $count" in
@positionals
        esac
    fi
    case $offer in
        files | folders)
            compopt -o filenames
            while IFS= read -r name; do COMPREPLY+=("$name"); done < <(
                if [[ $offer == files ]]; then compgen -f -- "$cur"; else compgen -d -- "$cur"; fi
            )
            ;;
        names:*)
            while IFS= read -r name; do
                [[ $name != "$cur"* ]] || COMPREPLY+=("$name")
            done < <(hub names "${offer#names:}" "${config[@]}" 2>/dev/null)
            ;;
        *)
            for name in $offer; do
                [[ $name != "$cur"* ]] || COMPREPLY+=("$name")
            done
            ;;
    esac
    # Readline replaces what follows the last of its separators.
    for index in "${!COMPREPLY[@]}"; do
        name=$before${COMPREPLY[index]}
        COMPREPLY[index]=${name:start}
    done
}
complete -F @function @program
"#;

pub fn script(program: &Command) -> Result<String, String> {
    let name = program.page();
    let (mut values, mut flags, mut positionals) = (String::new(), String::new(), String::new());
    let (mut commands, mut options) = (Vec::new(), Vec::new());
    for command in program.all() {
        let path = command.words();
        commands.extend(command.commands.iter().map(|sub| quoted(&sub.words())));
        let mut all: Vec<&str> = command.flags().map(|flag| flag.long).collect();
        for flag in command.flags() {
            let Some(value) = value_of(flag) else { continue };
            options.push(format!("*' {}'", flag.long));
            if let Some(offer) = offered(value)? {
                let _ = writeln!(values, "            '{path} {}') offer='{offer}' ;;", flag.long);
            }
        }
        all.push("--help");
        if command.path.len() == 1 {
            all.push("--version");
        }
        let _ = writeln!(flags, "            '{path}') offer='{}' ;;", all.join(" "));
        let names: Vec<&str> = command.commands.iter().filter_map(|sub| sub.path.last().map(String::as_str)).collect();
        if !names.is_empty() {
            let _ = writeln!(positionals, "            '{path} 0') offer='{}' ;;", names.join(" "));
        }
        for (index, one) in command.positionals().enumerate() {
            let place =
                if repeats(&one.optionality) { format!("'{path} '*") } else { quoted(&format!("{path} {index}")) };
            if let Some(offer) = offered(one.name)? {
                let _ = writeln!(positionals, "            {place}) offer='{offer}' ;;");
            }
        }
    }
    options.sort();
    options.dedup();
    if commands.is_empty() {
        // No word of a case may be missing.
        commands.push("''".to_owned());
    }
    let script = ENGINE
        .replace("@function", &format!("_{}", name.replace('-', "_")))
        .replace("@program", &name)
        .replace("@commands", &commands.join(" | "))
        .replace("@options", &options.join(" | "))
        .replace("@values\n", &values)
        .replace("@flags\n", &flags)
        .replace("@positionals\n", &positionals);
    Ok(format!("# bash completion for {name}, made from its command line; do not edit.\n{script}"))
}

fn quoted(text: &str) -> String {
    format!("'{text}'")
}

fn offered(name: &str) -> Result<Option<String>, String> {
    Ok(match offer(name)? {
        Offer::Names(kind) => Some(format!("names:{kind}")),
        Offer::Files => Some("files".to_owned()),
        Offer::Folders => Some("folders".to_owned()),
        Offer::Words(words) => Some(words.join(" ")),
        Offer::Nothing => None,
    })
}

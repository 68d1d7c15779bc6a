use super::roots::{self, Roots};

/// The operating system's name for people: `PRETTY_NAME` of os-release(5).
pub(super) fn os(roots: &Roots) -> String {
    let files = ["etc/os-release", "usr/lib/os-release"];
    let name = files
        .iter()
        .filter_map(|file| roots::read(&roots.host(file)).ok())
        .find_map(|text| pretty(&roots::text(&text)));
    name.unwrap_or_else(|| "Linux".to_owned())
}

/// The value of `PRETTY_NAME`, without the quotes and backslashes of a shell's assignment.
fn pretty(text: &str) -> Option<String> {
    let value = text.lines().rev().find_map(|line| line.trim().strip_prefix("PRETTY_NAME="))?.trim();
    let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
    let inner = quote.and_then(|quote| value[1..].strip_suffix(quote)).unwrap_or(value);
    let mut name = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        let kept = if character == '\\' && quote != Some('\'') { characters.next() } else { Some(character) };
        name.extend(kept.filter(|character| !character.is_control()));
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pretty_name_is_read_as_a_shell_would() {
        let names = [
            ("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n", Some("Debian GNU/Linux 12 (bookworm)")),
            ("PRETTY_NAME='A \\B'", Some("A \\B")),
            ("PRETTY_NAME=\"A \\\"B\\\"\"", Some("A \"B\"")),
            ("PRETTY_NAME=Arch", Some("Arch")),
            ("PRETTY_NAME=\"\"", None),
            ("PRETTY_NAME=\"", Some("\"")),
            ("", None),
        ];
        for (text, expected) in names {
            assert_eq!(pretty(text).as_deref(), expected, "{text}");
        }
    }
}

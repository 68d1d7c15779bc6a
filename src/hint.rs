//! How another command of the hub is to be typed, for a sentence that advises it: with the program's path where PATH does not
//! lead to it, and with the flag and the environment that this process got, so that it is about the same state and configuration.

use std::path::{Path, PathBuf};

/// The command, as this process would have to be told it: `hint("hub", "retry acme/infra")`.
pub fn hint(program: &str, command: &str) -> String {
    command_line(program, command, own_flag().as_deref())
}

/// The same with another `--config`, or with none.
pub fn command_line(program: &str, command: &str, flag: Option<&Path>) -> String {
    let mut words = Vec::new();
    for name in ["HUB_STATE_DIR", "HUB_CONFIG", "PORT"] {
        if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
            words.push(format!("{name}={}", quoted(&value.to_string_lossy())));
        }
    }
    // All of them lie in one folder.
    let path = std::env::current_exe().map_or_else(|_| program.into(), |own| own.with_file_name(program));
    let on_path = std::env::var_os("PATH")
        .is_some_and(|folders| std::env::split_paths(&folders).any(|folder| folder.join(program) == path));
    words.push(if on_path { program.to_owned() } else { quoted(&path.to_string_lossy()) });
    words.push(command.to_owned());
    if let Some(flag) = flag {
        let flag = std::path::absolute(flag).unwrap_or_else(|_| flag.to_owned());
        words.push(format!("--config {}", quoted(&flag.to_string_lossy())));
    }
    words.join(" ")
}

/// A word for a shell.
pub fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=+,@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn own_flag() -> Option<PathBuf> {
    let mut words = std::env::args_os().skip(1).skip_while(|word| word != "--config");
    words.nth(1).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for (word, expected) in
            [("/srv/hub", "/srv/hub"), ("/srv/my hub", "'/srv/my hub'"), ("", "''"), ("it's", "'it'\\''s'")]
        {
            assert_eq!(quoted(word), expected);
        }
    }
}

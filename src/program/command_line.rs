use std::process::ExitCode;

use close_fds::CloseFdsBuilder;

use super::Exit;
use super::answer::print;
use crate::text;

/// The first descriptor after standard input, output and error.
const FIRST_OTHER: i32 = 3;

/// Parses the process's command line, and keeps what its caller has open from its children: a script that reads a file of root's
/// does not mean it for whomever a repository's commands run as.
///
/// Returns the parsed arguments, or the exit code to end with after help or the version (0, on stdout) or a usage error (2, on
/// stderr) was printed. argh itself would end a usage error with 1, which the hub keeps for failed work.
///
/// # Errors
/// The exit code, when there is nothing left to do but to end.
pub fn arguments<T: argh::FromArgs>(program: &str) -> Result<T, ExitCode> {
    CloseFdsBuilder::new().cloexecfrom(FIRST_OTHER);
    let mut words = Vec::new();
    for word in std::env::args_os().skip(1) {
        match word.into_string() {
            Ok(word) => words.push(word),
            Err(word) => {
                return Err(usage_error(program, &format!("{program}: argument {} is not UTF-8", word.display())));
            }
        }
    }
    parse_arguments(program, &words)
}

/// Parses `words`, the command line without the program's name, like `arguments`.
///
/// # Errors
/// The exit code, when there is nothing left to do but to end.
pub fn parse_arguments<T: argh::FromArgs>(program: &str, words: &[String]) -> Result<T, ExitCode> {
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    // argh knows the long one only. Behind an option it may be that one's value.
    if let Some(word) = words.iter_mut().find(|word| word.starts_with('-')).filter(|word| **word == "-h") {
        *word = "--help";
    }
    // Whatever follows: who asks which version it is may have a configuration that is wrong.
    if let ["--version" | "-V", ..] = words[..] {
        print(&format!("{program} {}", crate::VERSION));
        return Err(Exit::Done.into());
    }
    T::from_args(&[program], &apart::<T>(program, &words)).map_err(|early| match early.status {
        Ok(()) => {
            print(&with_version(program, &early.output));
            Exit::Done.into()
        }
        Err(()) => usage_error(&command::<T>(program, &words), early.output.trim_end()),
    })
}

/// The program and the command that the words begin with, as its help names itself.
fn command<T: argh::FromArgs>(program: &str, words: &[&str]) -> String {
    let named = words.iter().take_while(|word| !word.starts_with('-')).count();
    let mut names = (1..=named).rev().map(|count| [&[program], &words[..count]].concat().join(" "));
    let is_command = |name: &String| {
        let asked: Vec<&str> = name.split(' ').skip(1).chain(["--help"]).collect();
        T::from_args(&[program], &asked).is_err_and(|early| early.output.starts_with(&format!("Usage: {name} ")))
    };
    names.find(is_command).unwrap_or_else(|| program.to_owned())
}

/// `--name=value` as the two words that argh takes, where the name is an option's: a switch has no value.
fn apart<'a, T: argh::FromArgs>(program: &str, words: &[&'a str]) -> Vec<&'a str> {
    let mut apart = Vec::new();
    let mut rest = words.iter().copied();
    for word in rest.by_ref() {
        apart.push(word);
        if word == "--" {
            break;
        }
        let Some((name, value)) = word.split_once('=').filter(|(name, _)| name.starts_with("--")) else { continue };
        // argh knows which options there are here, and tells it by missing the value of this one.
        let place = apart.len() - 1;
        apart[place] = name;
        let missing = format!("No value provided for option '{name}'.\n");
        if T::from_args(&[program], &apart).is_err_and(|early| early.output == missing) {
            apart.push(value);
        } else {
            apart[place] = word;
        }
    }
    apart.extend(rest);
    apart
}

/// What is said without a command: the same as with `--help`, as a usage error.
#[expect(clippy::print_stderr, reason = "help is for the person at the terminal")]
pub fn help<T: argh::FromArgs>(program: &str) -> Exit {
    if let Err(early) = T::from_args(&[program], &["--help"]) {
        eprintln!("{}", with_version(program, early.output.trim_end()));
    }
    Exit::Usage
}

/// A program's help with the option that argh does not know, which is the program's and no command's.
fn with_version(program: &str, help: &str) -> String {
    let is_program_s =
        help.strip_prefix(&format!("Usage: {program} ")).is_some_and(|rest| rest.starts_with(['[', '<']));
    let mut lines = Vec::new();
    for line in help.lines() {
        lines.push(line.replace("  --help, help    ", "  --help, -h, help"));
        if is_program_s && line.starts_with("  --help, help ") {
            lines.push(format!("  --version, -V     display the version: {}", crate::VERSION));
        }
    }
    lines.join("\n")
}

#[expect(clippy::print_stderr, reason = "usage errors are for the person at the terminal")]
fn usage_error(program: &str, reason: &str) -> ExitCode {
    eprintln!("{}\nRun {program} --help for more information.", text::screen(reason));
    Exit::Usage.into()
}

#[cfg(test)]
mod tests {
    use super::apart;

    /// What a test takes.
    #[derive(argh::FromArgs)]
    #[expect(dead_code, reason = "only how it is read is looked at")]
    struct Taken {
        /// an option
        #[argh(option)]
        since: Option<String>,
        /// a switch
        #[argh(switch)]
        json: bool,
        /// what is left
        #[argh(positional)]
        rest: Vec<String>,
    }

    #[test]
    fn an_equals_sign_parts_an_option_from_its_value() {
        for (words, expected) in [
            (&["--since=-1h", "x"][..], &["--since", "-1h", "x"][..]),
            (&["--json", "--since=a=b"], &["--json", "--since", "a=b"]),
            (&["--since="], &["--since", ""]),
            // What is a value already, no option, or after all options stays as it is.
            (&["--since", "--since=1h"], &["--since", "--since=1h"]),
            (&["--json=true"], &["--json=true"]),
            (&["--sinc=1h", "a=b"], &["--sinc=1h", "a=b"]),
            (&["--", "--since=1h"], &["--", "--since=1h"]),
        ] {
            assert_eq!(apart::<Taken>("test", words), expected, "{words:?}");
        }
    }
}

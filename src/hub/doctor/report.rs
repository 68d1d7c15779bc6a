use std::fmt::Write;

use super::findings::{Level, Report};
use crate::hub::terminal::{Terminal, Tone};
use crate::text;

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "not seen",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Ok => Tone::Good,
            Self::Skipped => Tone::Quiet,
            Self::Warning => Tone::Warning,
            Self::Problem => Tone::Bad,
        }
    }
}

/// The column in which findings begin.
const INDENT: usize = 11;

/// The findings for people, under what they are about. Whatever comes from outside loses its control characters.
pub(super) fn format(report: &Report, terminal: Terminal) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, report, terminal);
    text
}

fn write(text: &mut String, report: &Report, terminal: Terminal) -> std::fmt::Result {
    let mut about = "";
    for finding in &report.findings {
        if finding.about != about {
            about = &finding.about;
            let head = terminal.paint(Tone::Strong, &text::sentence(about));
            writeln!(text, "{}{head}", if text.is_empty() { "" } else { "\n" })?;
        }
        let word = terminal.paint(finding.level.tone(), &format!("{:<8}", finding.level.word()));
        let sentence = terminal.wrap(&text::sentence(&finding.finding), INDENT);
        writeln!(text, "  {word} {sentence}")?;
        if let Some(mend) = &finding.mend {
            let mut sign = "> ";
            for line in mend.lines() {
                let line = terminal.paint(Tone::Strong, &format!("{sign}{}", text::sentence(line)));
                writeln!(text, "{}{line}", " ".repeat(INDENT))?;
                sign = "  ";
            }
        }
    }
    let count = |level| report.findings.iter().filter(|finding| finding.level == level).count();
    let counted = [(Level::Problem, "problem"), (Level::Warning, "warning")].map(|(level, word)| {
        let number = count(level);
        let text = format!("{number} {word}{}", if number == 1 { "" } else { "s" });
        if number == 0 { text } else { terminal.paint(level.tone(), &text) }
    });
    let unseen = match count(Level::Skipped) {
        0 => String::new(),
        number => format!(", {number} not seen"),
    };
    writeln!(text, "\n{}{unseen}", counted.join(", "))
}

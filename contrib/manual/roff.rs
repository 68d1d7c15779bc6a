//! Pages in man(7): text with the few marks of Markdown that the pages of contrib/man have.

use std::fmt::Write as _;

/// As long as `mandoc -T lint` lets a line be, with room for fonts.
const WIDTH: usize = 72;

/// A page that is being written.
pub struct Roff(String);

impl Roff {
    pub fn new(name: &str, section: u8, day: &str, version: &str) -> Self {
        let title = name.to_uppercase();
        let mut head =
            String::from(".\\\" Made from the programs' own command lines and from contrib/man; do not edit.\n");
        // A command or a path that is hyphenated is wrong when it is copied.
        let _ = writeln!(head, ".TH {} {section} {day} \"Observability Hub {version}\"\n.nh", escaped(&title));
        Self(head)
    }

    pub fn text(self) -> String {
        self.0
    }

    pub fn heading(&mut self, title: &str) {
        // The name of a table is written as it is.
        let title = if title.starts_with('[') { title.to_owned() } else { title.to_uppercase() };
        let _ = writeln!(self.0, ".SH {}", quoted(&title));
    }

    fn subheading(&mut self, title: &str) {
        let _ = writeln!(self.0, ".SS {}", quoted(title));
    }

    /// A paragraph, without a break before it where it follows a heading.
    pub fn paragraph(&mut self, text: &str) {
        let follows = self.0.lines().last().is_some_and(|line| line.starts_with(".SH") || line.starts_with(".SS"));
        if !follows {
            self.0.push_str(".PP\n");
        }
        self.flow(text);
    }

    /// A term, in bold unless it has marks of its own, and what is said of it.
    pub fn term(&mut self, term: &str, text: &str) {
        let term = if term.contains(['`', '*']) { inline(term) } else { format!("\\fB{}\\fR", escaped(term)) };
        let _ = writeln!(self.0, ".TP\n{}", protected(&term));
        self.flow(text);
    }

    /// Another paragraph of the term before.
    pub fn more(&mut self, text: &str) {
        self.0.push_str(".sp\n");
        self.flow(text);
    }

    /// A line of its own in what is said of the term before.
    pub fn line(&mut self, text: &str) {
        self.0.push_str(".br\n");
        self.flow(text);
    }

    pub fn item(&mut self, text: &str) {
        self.0.push_str(".IP \\(bu 2\n");
        self.flow(text);
    }

    pub fn example(&mut self, lines: &str) {
        let follows = self.0.lines().last().is_some_and(|line| line.starts_with(".SH") || line.starts_with(".SS"));
        self.0.push_str(if follows { ".RS 4\n.EX\n" } else { ".PP\n.RS 4\n.EX\n" });
        for line in lines.lines() {
            let _ = writeln!(self.0, "{}", protected(&escaped(line)));
        }
        // The end of an example hyphenates again.
        self.0.push_str(".EE\n.RE\n.nh\n");
    }

    /// Filled text, broken between words.
    fn flow(&mut self, text: &str) {
        let text = inline(text);
        let mut line = String::new();
        for word in text.split_whitespace() {
            if !line.is_empty() && line.len() + word.len() >= WIDTH {
                let _ = writeln!(self.0, "{}", protected(&line));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        let _ = writeln!(self.0, "{}", protected(&line));
    }

    /// A text of contrib/man.
    pub fn markdown(&mut self, text: &str) {
        let mut blocks = text.trim().split("\n\n").filter(|block| !block.trim().is_empty());
        while let Some(block) = blocks.next() {
            let block = block.trim_matches('\n');
            if let Some(code) = block.strip_prefix("```") {
                let mut code = code.split_once('\n').map_or("", |(_, code)| code).to_owned();
                while !code.trim_end().ends_with("```") {
                    let Some(next) = blocks.next() else { break };
                    code = code + "\n\n" + next;
                }
                self.example(code.trim_end().trim_end_matches("```").trim_end());
            } else if let Some(title) = block.strip_prefix("### ") {
                self.subheading(title);
            } else if let Some(title) = block.strip_prefix("## ") {
                self.heading(title);
            } else if block.starts_with("| ") {
                // The head and the line below it say what a reader of a list of terms sees.
                for row in block.lines().skip(2) {
                    let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
                    self.term(cells[0], &cells[1..].join(". "));
                }
            } else if block.starts_with("- ") {
                for item in format!("\n{block}").split("\n- ").skip(1) {
                    self.item(item);
                }
            } else {
                self.paragraph(block);
            }
        }
    }
}

/// Text in which nothing has a meaning for roff but at the beginning of a line.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '`' => out.push_str("\\(ga"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            '…' => out.push_str("..."),
            char => out.push(char),
        }
    }
    out
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text).replace('"', "\\(dq"))
}

/// A line that roff does not take for a request.
fn protected(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
}

/// `code` and **bold** in bold, *this* in italics.
fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*']) {
        let mark = if rest[at..].starts_with("**") { "**" } else { &rest[at..=at] };
        let after = &rest[at + mark.len()..];
        // A star that stands alone is itself.
        let end = after.find(mark).filter(|end| *end > 0 && (mark == "`" || !after.starts_with(' ')));
        out.push_str(&escaped(&rest[..at]));
        let Some(end) = end else {
            out.push_str(&escaped(mark));
            rest = after;
            continue;
        };
        let font = if mark == "*" { 'I' } else { 'B' };
        let _ = write!(out, "\\f{font}{}\\fR", escaped(&after[..end]));
        rest = &after[end + mark.len()..];
    }
    out + &escaped(rest)
}

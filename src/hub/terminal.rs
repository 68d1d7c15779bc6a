use std::io::IsTerminal;
use std::ops::RangeInclusive;

/// The width that texts are broken at where the output is no terminal, or the terminal does not tell its own.
const WIDTH: usize = 80;
/// Wider lines are hard to read.
const WIDEST: usize = 120;

/// How to write for whoever reads standard output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    pub width: usize,
    coloured: bool,
}

/// What a piece of text is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Warning,
    Bad,
    Quiet,
    Strong,
    Plain,
}

impl Terminal {
    /// Standard output as it is: colours only on a terminal, and not where `NO_COLOR` (no-color.org) is set.
    pub fn stdout() -> Self {
        let stdout = std::io::stdout();
        let is_terminal = stdout.is_terminal();
        let columns =
            if is_terminal { rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| size.ws_col) } else { 0 };
        let width = if columns == 0 { WIDTH } else { usize::from(columns).min(WIDEST) };
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { width, coloured: is_terminal && !unwanted && !dumb }
    }

    /// The text in its colour (ECMA-48, SGR).
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "1;31",
            Tone::Quiet => "2",
            Tone::Strong => "1",
            Tone::Plain => "",
        };
        if self.coloured && !code.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The text in lines that fit beside an indent of so many columns; the first line has none.
    pub fn wrap(self, text: &str, indent: usize) -> String {
        let room = self.width.saturating_sub(indent).max(20);
        let mut lines = vec![String::new()];
        let mut used = 0;
        for word in text.split_whitespace() {
            let length = columns(word);
            if used > 0 && used + 1 + length > room {
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                if used > 0 {
                    line.push(' ');
                    used += 1;
                }
                line.push_str(word);
                used += length;
            }
        }
        lines.join(&format!("\n{}", " ".repeat(indent)))
    }
}

/// Letters and pictures that take two columns of a terminal.
const WIDE: [RangeInclusive<char>; 10] = [
    '\u{1100}'..='\u{115f}',
    '\u{2e80}'..='\u{303e}',
    '\u{3041}'..='\u{a4cf}',
    '\u{ac00}'..='\u{d7a3}',
    '\u{f900}'..='\u{faff}',
    '\u{fe30}'..='\u{fe6f}',
    '\u{ff00}'..='\u{ff60}',
    '\u{ffe0}'..='\u{ffe6}',
    '\u{1f300}'..='\u{1faff}',
    '\u{20000}'..='\u{3fffd}',
];
/// Marks that lie over the letter before them.
const OVER: [RangeInclusive<char>; 3] = ['\u{300}'..='\u{36f}', '\u{20d0}'..='\u{20ff}', '\u{fe00}'..='\u{fe0f}'];

/// How many columns of a terminal a text takes, with nothing hidden in it.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(of_one).sum()
}

fn of_one(c: char) -> usize {
    let is_in = |ranges: &[RangeInclusive<char>]| ranges.iter().any(|range| range.contains(&c));
    if is_in(&OVER) { 0 } else { 1 + usize::from(is_in(&WIDE)) }
}

/// The text in exactly so many columns, cut with an ellipsis where it is longer.
pub(super) fn fit(text: &str, room: usize) -> String {
    let (kept, end) = if columns(text) <= room {
        (text.to_owned(), "")
    } else {
        let mut used = 3;
        let fits = |c: &char| {
            used += of_one(*c);
            used <= room
        };
        (text.chars().take_while(fits).collect(), "...")
    };
    let left = room.saturating_sub(columns(&kept) + end.len());
    format!("{kept}{end}{}", " ".repeat(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_no_word_is_lost() {
        let terminal = Terminal { width: 30, coloured: false };
        let text = "one two three four five six seven a-word-that-is-longer-than-a-line-may-be eight";
        let wrapped = terminal.wrap(text, 4);
        assert!(wrapped.lines().all(|line| line.len() <= 30 || line.trim().starts_with("a-word")), "{wrapped}");
        assert!(wrapped.lines().skip(1).all(|line| line.starts_with("    ")));
        assert_eq!(wrapped.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
        assert_eq!((fit("abc", 5), fit("abcdefgh", 6)), ("abc  ".to_owned(), "abc...".to_owned()));
    }

    #[test]
    fn wide_letters_take_two_columns_and_marks_none() {
        for (text, room, expected) in [
            ("データ", 8, "データ  "),
            ("日本語のデータ", 8, "日本... "),
            ("日本語のデータ", 9, "日本語..."),
            ("e\u{301}", 3, "e\u{301}  "),
            ("💾 /", 5, "💾 / "),
        ] {
            assert_eq!(fit(text, room), expected, "{text}");
        }
        let terminal = Terminal { width: 24, coloured: false };
        assert_eq!(terminal.wrap("日本語の データの 一日", 0), "日本語の データの 一日");
        assert_eq!(terminal.wrap("日本語の データの 一日中に", 0), "日本語の データの\n一日中に");
    }
}

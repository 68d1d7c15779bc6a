//! Random unit files, about what their readers part over: ends of lines, comments, continued lines, marks, quotes,
//! sections that come again, resets.

use super::engine::Dice;

/// The units that a file may be of.
pub const UNITS: [&str; 6] = ["a.service", "a-b.timer", "t@.service", "t@one.service", "srv-data.mount", "x.slice"];

/// Makes the files of one seed.
pub struct Maker(pub Dice);

impl Maker {
    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0.below(limit)
    }

    fn text(&mut self, from: &[&'static str]) -> &'static str {
        from[self.0.below(from.len())]
    }

    /// One unit file or drop-in.
    pub fn unit_file(&mut self) -> Vec<u8> {
        let mut file = String::new();
        if self.below(4) > 0 {
            file.push_str("[Install]\n");
        }
        for _ in 0..self.below(10) {
            self.line(&mut file);
        }
        let mut file = file.into_bytes();
        // A byte that nobody thought of.
        if self.below(6) == 0 && !file.is_empty() {
            let place = self.below(file.len());
            let byte = *self.0.one(b"\n\r\0\\\t #;[]=\"'%\xa0\x0c\x0b\xff\x01A");
            if self.below(2) == 0 {
                file[place] = byte;
            } else {
                file.insert(place, byte);
            }
        }
        file
    }

    fn line(&mut self, file: &mut String) {
        for _ in 0..self.below(3) {
            file.push_str(self.text(&["", "", "", " ", "\t", "\u{feff}", "\u{a0}", "\\\n", "\r", "\n"]));
        }
        match self.below(12) {
            0 => file.push_str(self.text(&[
                "[Unit]",
                "[Service]",
                "[Install]",
                "[install]",
                "[X-Install]",
                "[]",
                "[Install] ",
            ])),
            1 => file.push_str(self.text(&[
                "# x",
                ";x",
                "#\\",
                " # WantedBy=n.target",
                "\\",
                "word",
                "=v",
                "\u{feff}[Install]",
            ])),
            _ => {
                let key = self.text(&[
                    "WantedBy",
                    "RequiredBy",
                    "Alias",
                    "UpheldBy",
                    "WantedBy ",
                    "Wanted",
                    "DefaultInstance",
                    "Also",
                ]);
                file.push_str(key);
                file.push_str(self.text(&["=", "=", "=", " = ", "=\\\n", "= \t"]));
                let words = if key.starts_with("Default") { 1 } else { self.below(4) };
                for _ in 0..words {
                    self.word(key, file);
                    if words > 1 {
                        file.push_str(self.text(&[
                            " ",
                            " ",
                            "\t",
                            " \\\n ",
                            "\\\n# no\n",
                            " \\\n;\\\n",
                            "\\\r\n",
                            "\\\n\r",
                        ]));
                    }
                }
            }
        }
        file.push_str(self.text(&["\n", "\n", "\n", "\r\n", "\r", "\n\n", "\\\n", "\n\r", "\r\r", " \n", "\\\\\n"]));
    }

    fn word(&mut self, key: &str, file: &mut String) {
        let quote = self.text(&["", "", "", "", "", "", "\"", "'"]);
        let word = match key {
            "DefaultInstance" => self.text(&["one", "two", "%p", "a\\x2db", ""]),
            "Also" => self.text(&["a.service", "a-b.timer", "t@.service", ""]),
            "Alias" => self.text(&[
                "b.service",
                "c-%p.service",
                "b.timer",
                "b@.service",
                "b@one.service",
                "b.mount",
                "%N.service",
            ]),
            _ => self.text(&[
                "x.target",
                "y.target",
                "z@.target",
                "z@%i.target",
                "%j.target",
                "a\\x2db.target",
                "x-%n",
                "-.slice",
                "d.device",
            ]),
        };
        file.push_str(quote);
        file.push_str(word);
        file.push_str(quote);
    }
}

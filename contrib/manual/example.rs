//! `contrib/hub.toml`: every key as a comment, with its text and its default or an example.

use observability_hub::config::keys::{Key, SECTIONS, Usual, Value};

const WIDTH: usize = 110;

/// A copy of it changes nothing, and a key has its # directly before it, a sentence a space between.
const HEAD: &str = "\
#:schema /usr/share/observability-hub/hub.schema.json
# Observability Hub: the configuration, with every key and its default or an example. All of it is comments, so that a
# copy changes nothing: take the # off a key, and off the [section] above it. hub.toml(5) is the manual.
# It is looked for in /etc/observability-hub/hub.toml; --config PATH or HUB_CONFIG names another.
# Every key may be left out, and so may the file. `hub up --check` shows whether a file is right.
# What runs loads a changed file two seconds after the last change, or refuses it and goes on with the one before.
# This file is made from src/config/keys: cargo run --example manual -- target/manual && cp target/manual/hub.toml contrib/
";

pub fn example() -> String {
    let mut out = HEAD.to_owned();
    for section in SECTIONS {
        out.push('\n');
        if !section.name.is_empty() {
            wrapped(&mut out, section.text, "# ");
            out.push_str(&if section.many {
                format!("#[[{}]]\n", section.name)
            } else {
                format!("#[{}]\n", section.name)
            });
        }
        for key in section.keys {
            wrapped(&mut out, &text(key), "# ");
            inner(&mut out, key);
            out.push_str(&format!("#{} = {}\n", key.name, key.usual.written()));
        }
    }
    out
}

fn text(key: &Key) -> String {
    match key.usual {
        Usual::Else(usual, _) => format!("{} Default: {usual}.", key.text),
        Usual::Needed(_) => format!("{} It must be written.", key.text),
        Usual::Is(_) => key.text.to_owned(),
    }
}

/// The keys of its table.
fn inner(out: &mut String, key: &Key) {
    let all: Vec<&Value> = match &key.value {
        Value::Either(all) => all.iter().collect(),
        one => vec![one],
    };
    for value in all {
        if let Value::Table(keys) | Value::List(Value::Table(keys)) = value {
            for key in *keys {
                wrapped(out, &format!("{} = {}: {}", key.name, key.usual.written(), text(key)), "#   ");
            }
        }
    }
}

fn wrapped(out: &mut String, text: &str, before: &str) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && before.len() + line.len() + 1 + word.len() > WIDTH {
            out.push_str(&format!("{before}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(&format!("{before}{line}\n"));
}

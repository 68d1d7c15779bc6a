//! The keys of hub.toml as the manual, the schema and the example have them, held against the parser.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use observability_hub::config::Config;
use observability_hub::config::keys::{Key, SECTIONS, Section, Usual, Value};
use serde_json::json;

use crate::command_line::example;
use crate::man_pages::made;
use crate::support::skip::skip;

/// How the keys of a table that stands in a key become a value of that key.
type Around = fn(Vec<String>) -> String;
/// The file that gives a key a value.
type Make = Box<dyn Fn(&str) -> String>;

fn parse(text: &str) -> Result<Config, String> {
    Config::of_text(Path::new("hub.toml"), text).map_err(|error| error.to_string())
}

/// The keys that a parser knows, as its refusal of an unknown one lists them.
fn known(text: &str) -> Vec<String> {
    let error = parse(text).unwrap_err();
    let Some((_, list)) = error.split_once("unknown field `unknown`, expected ") else { panic!("{text}: {error}") };
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Keys with values, each as a line or in a table that stands in a line; what must be written is there.
fn written(keys: &[Key], name: &str, value: &str) -> Vec<String> {
    let needed = keys.iter().filter(|key| matches!(key.usual, Usual::Needed(_)) && key.name != name);
    let needed = needed.map(|key| format!("{} = {}", key.name, key.usual.written()));
    needed.chain([format!("{name} = {value}")]).collect()
}

/// A file that has this key with this value.
fn file(section: &Section, name: &str, value: &str) -> String {
    let lines = written(section.keys, name, value).join("\n") + "\n";
    match (section.name, section.many) {
        ("", _) => lines,
        (table, true) => format!("[[{table}]]\n{lines}"),
        (table, false) => format!("[{table}]\n{lines}"),
    }
}

/// The table that stands in a key.
fn inner(key: &Key) -> Option<(&'static [Key], Around)> {
    let table = |lines: Vec<String>| format!("{{ {} }}", lines.join(", "));
    let list = |lines: Vec<String>| format!("[{{ {} }}]", lines.join(", "));
    match &key.value {
        Value::Table(keys) => Some((keys, table)),
        Value::List(Value::Table(keys)) => Some((keys, list)),
        Value::Either(all) => all.iter().find_map(|value| match value {
            Value::Table(keys) => Some((*keys, table as Around)),
            _ => None,
        }),
        _ => None,
    }
}

/// Every key, those of inner tables too: its name, itself, and the file that gives it a value.
fn all() -> Vec<(String, &'static Key, Make)> {
    let mut found: Vec<(String, &'static Key, Make)> = Vec::new();
    for section in SECTIONS {
        for key in section.keys {
            let name = format!("{}.{}", section.name, key.name);
            found.push((name.clone(), key, Box::new(move |value| file(section, key.name, value))));
            let Some((keys, around)) = inner(key) else { continue };
            for one in keys {
                let make = move |value: &str| file(section, key.name, &around(written(keys, one.name, value)));
                found.push((format!("{name}.{}", one.name), one, Box::new(make)));
            }
        }
    }
    found
}

#[test]
fn the_table_has_the_keys_of_the_parser() {
    let names = |keys: &[Key]| keys.iter().map(|key| key.name.to_owned()).collect::<Vec<_>>();
    let same = |mut known: Vec<String>, mut here: Vec<String>, place: &str| {
        known.sort();
        here.sort();
        assert_eq!(known, here, "{place}: the parser's keys, and those of src/config/keys");
    };
    let top = SECTIONS.iter().filter(|section| !section.name.is_empty()).map(|section| section.name.to_owned());
    same(known("unknown = 1\n"), top.chain(names(SECTIONS[0].keys)).collect(), "the first keys");
    for section in SECTIONS.iter().filter(|section| !section.name.is_empty()) {
        same(known(&file(section, "unknown", "1")), names(section.keys), section.name);
        for key in section.keys {
            let Some((keys, around)) = inner(key) else { continue };
            let text = file(section, key.name, &around(written(keys, "unknown", "1")));
            same(known(&text), names(keys), key.name);
        }
    }
}

#[test]
fn every_key_has_sentences() {
    for (name, key, _) in all() {
        assert!(key.text.len() > 10 && key.text.ends_with('.'), "{name}: {:?}", key.text);
        let is_long = |sentence: &str| sentence.split_whitespace().count() > 40;
        assert!(!key.text.split(". ").any(is_long), "{name}: a sentence of more than 40 words");
    }
}

#[test]
fn a_default_that_is_written_changes_nothing_and_each_example_is_accepted() {
    for section in SECTIONS {
        for key in section.keys {
            let name = format!("{}.{}", section.name, key.name);
            let with = parse(&file(section, key.name, key.usual.written()));
            let with = with.unwrap_or_else(|error| panic!("{name}: {error}"));
            let Usual::Is(_) = key.usual else { continue };
            // Written, it is in force for a table that somebody else made, too.
            if name == "metrics.retention_days" {
                continue;
            }
            let head = if section.many { format!("[[{}]]\n", section.name) } else { String::new() };
            let needed = section.keys.iter().filter(|key| matches!(key.usual, Usual::Needed(_)));
            let lines: Vec<String> = needed.map(|key| format!("{} = {}\n", key.name, key.usual.written())).collect();
            let without = parse(&(head + &lines.concat())).unwrap();
            assert_eq!(format!("{with:?}"), format!("{without:?}"), "{name} = {}", key.usual.written());
        }
    }
    for (name, key, make) in all() {
        parse(&make(key.usual.written())).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn the_example_is_made_from_the_table() {
    let folder = made();
    let now = std::fs::read_to_string(folder.join("hub.toml")).unwrap();
    let kept = std::fs::read_to_string("contrib/hub.toml").unwrap();
    assert!(now == kept, "contrib/hub.toml is out of date; its head says how it is made");
}

/// Whether the schema accepts each document, by the validator of Python's jsonschema.
fn accepted(schema: &Path, texts: &[String]) -> Option<Vec<bool>> {
    let script = "import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft7Validator.check_schema(schema)
validator = jsonschema.Draft7Validator(schema)
print(json.dumps([validator.is_valid(document) for document in json.load(sys.stdin)]))";
    let is_there = Command::new("python3").args(["-c", "import jsonschema"]).stderr(Stdio::null()).status();
    if !is_there.is_ok_and(|status| status.success()) {
        skip("the schema of hub.toml", "there is no python3-jsonschema");
        return None;
    }
    let documents: Vec<_> = texts.iter().map(|text| json!(toml::from_str::<toml::Table>(text).unwrap())).collect();
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(schema).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().unwrap();
    child.stdin.take().unwrap().write_all(json!(documents).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_schema_accepts_what_the_parser_accepts_and_refuses_unknown_keys_and_wrong_types() {
    let folder = made();
    let schema = folder.join("hub.schema.json");
    let files = ["contrib/hub.toml", "contrib/debian/hub.toml"].map(|path| std::fs::read_to_string(path).unwrap());
    let mut texts: Vec<String> = vec![example(), String::new()];
    texts.extend(files);
    let right = texts.len();
    texts.push("unknown = 1\n".to_owned());
    let named = SECTIONS.iter().filter(|section| !section.name.is_empty());
    texts.extend(named.map(|section| file(section, "unknown", "1")));
    let unknown = texts.len();
    let values = [
        "\"x\"",
        "\"\"",
        "\"/x\"",
        "\"a/b\"",
        "0",
        "1",
        "-1",
        "1.5",
        "99",
        "100",
        "44000",
        "true",
        "false",
        "[]",
        "[\"x\"]",
        "[1]",
        "{}",
        "{ x = 1 }",
        "[{}]",
        "\"mongodb\"",
        "\"file:/x\"",
        "\"http://127.0.0.1:1/\"",
        "\"127.0.0.1:9\"",
        "\"1 MiB\"",
        "\"a@b.org\"",
        "\"23:00-07:00\"",
        "\"90s\"",
        "\"sqlite:x\"",
        "443",
    ];
    for (_, key, make) in all() {
        // serde takes a list for the fields of a table, in their order. Nobody writes that, and an editor need not offer it.
        let fits =
            |value: &&&str| matches!(key.value, Value::List(_)) || inner(key).is_none() || !value.starts_with('[');
        texts.extend(values.iter().chain([&key.usual.written()]).filter(fits).map(|value| make(value)));
    }
    let Some(schema) = accepted(&schema, &texts) else { return };
    assert_eq!(&schema[..right], vec![true; right], "the examples");
    assert_eq!(&schema[right..unknown], vec![false; unknown - right], "unknown keys");
    let mut wrong = Vec::new();
    for (text, schema) in texts.iter().zip(schema).skip(unknown) {
        match parse(text) {
            Ok(_) if !schema => wrong.push(format!("the schema refuses what the parser accepts:\n{text}")),
            Err(error) if schema && is_about_the_type(&error) => {
                wrong.push(format!("the schema accepts what the parser refuses ({error}):\n{text}"));
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Other reasons are of the parser alone: whether a name, a path or a pair of keys makes sense.
fn is_about_the_type(error: &str) -> bool {
    [
        ": is the ",
        ": is true; ",
        ": is false; ",
        ": is a ",
        "unknown field",
        "missing field",
        ": expected ",
        "invalid type",
    ]
    .iter()
    .any(|part| error.contains(part))
}

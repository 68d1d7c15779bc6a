//! The BSON corpus as an independent oracle: every valid case in every form, every decode error, every parse error.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::bson::{self, Raw};
use super::columns::Rules;
use super::json::{Shape, value_text};
use super::transform::{Form, Oddities, transform};
use super::{Rejection, extended};

#[path = "../../tests/support/skip.rs"]
#[expect(dead_code, reason = "only one of its functions is needed here")]
mod skip;

/// The corpus ships in this package's source (Apache-2.0); it is fetched and not kept in the repository.
const PACKAGE: &str = "pymongo==4.20.0";

/// Errors of version 2 that version 1 wrote.
const OLD: [&str; 4] = [
    "Bad $numberInt (number, not string)",
    "Bad $numberLong (number, not string)",
    "Bad $numberDouble (number, not string)",
    "Bad $date (number, not string or hash)",
];

/// The folder of the corpus; none, said aloud, where it cannot be fetched.
fn corpus() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp/bson-corpus");
    if !folder.join("done").exists() {
        let made = std::fs::create_dir_all(&folder).is_ok() && fetch(&folder);
        if !made {
            skip::skip("the BSON corpus", &format!("pip cannot download {PACKAGE}, or tar is missing"));
            return None;
        }
        std::fs::write(folder.join("done"), "").unwrap();
    }
    Some(folder.join("test/bson_corpus"))
}

fn fetch(folder: &Path) -> bool {
    let archive = folder.join(format!("{}.tar.gz", PACKAGE.replace("==", "-")));
    if !archive.exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "pymongo", PACKAGE]);
        if !pip.arg("--dest").arg(folder).output().is_ok_and(|output| output.status.success()) {
            return false;
        }
    }
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(archive).arg("--directory").arg(folder).arg("--strip-components=1");
    tar.output().is_ok_and(|output| output.status.success())
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

fn parsed(json: &[u8]) -> Result<Vec<u8>, Rejection> {
    extended::to_bson(json).map(|converted| converted.bson)
}

fn text(document: &[u8], shape: Shape) -> Result<String, Rejection> {
    bson::check(document)?;
    value_text(Raw::Document(document), shape, &mut Oddities::default())
}

/// The relaxed form of a canonical value, after the specification's table.
fn relaxed(canonical: &Value) -> Value {
    let Value::Object(members) = canonical else {
        return match canonical {
            Value::Array(items) => items.iter().map(relaxed).collect(),
            other => other.clone(),
        };
    };
    if let (1, Some((key, Value::String(text)))) = (members.len(), members.iter().next()) {
        match key.as_str() {
            "$numberInt" | "$numberLong" => return json!(text.parse::<i64>().unwrap()),
            "$numberDouble" => {
                let value: f64 = text.parse().unwrap();
                let bare = value.is_finite() && !(value == 0.0 && value.is_sign_negative());
                return if bare { json!(value) } else { canonical.clone() };
            }
            _ => {}
        }
    }
    if let Some(milliseconds) = canonical["$date"]["$numberLong"].as_str() {
        let milliseconds: i64 = milliseconds.parse().unwrap();
        let text = super::json::rfc3339(milliseconds).filter(|_| milliseconds >= 0);
        return text.map_or_else(|| canonical.clone(), |text| json!({ "$date": text }));
    }
    members.iter().map(|(key, value)| (key.clone(), relaxed(value))).collect::<serde_json::Map<_, _>>().into()
}

fn value(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

/// A file of the corpus and how many cases of each kind were tried.
fn try_file(content: &Value, counts: &mut [usize; 3]) {
    let list = |name: &str| content[name].as_array().cloned().unwrap_or_default();
    for case in list("valid") {
        counts[0] += 1;
        let what = format!("{}: {}", content["description"], case["description"]);
        let document = bytes(case["canonical_bson"].as_str().unwrap());
        let canonical = case["canonical_extjson"].as_str().unwrap();
        if let Some(degenerate) = case["degenerate_bson"].as_str() {
            let degenerate = text(&bytes(degenerate), Shape::Canonical).unwrap();
            assert_eq!(value(&degenerate), value(canonical), "{what}");
        }
        let ours = text(&document, Shape::Canonical).unwrap();
        if case["lossy"] != true {
            assert_eq!(parsed(ours.as_bytes()).as_ref(), Ok(&document), "{what}: {ours}");
            for form in ["canonical_extjson", "degenerate_extjson"] {
                let parsed = case[form].as_str().map(|json| parsed(json.as_bytes()));
                assert!(parsed.is_none_or(|parsed| parsed == Ok(document.clone())), "{what}: {form}");
            }
        }
        match text(&document, Shape::Extended) {
            Ok(ours) => {
                assert_eq!(value(&ours), relaxed(&value(canonical)), "{what}");
                let given = case["relaxed_extjson"].as_str().map(value);
                // The corpus writes a negative zero bare, and PostgreSQL's jsonb would lose its sign.
                let is_negative_zero = canonical.contains("\"-0.0\"");
                assert!(is_negative_zero || given.is_none_or(|given| given == value(&ours)), "{what}: {ours}");
            }
            Err(rejection) => assert!(rejection == Rejection::Nul && ours.contains("\\u0000"), "{what}: {rejection}"),
        }
        assert!(text(&document, Shape::Plain).is_ok(), "{what}");
    }
    for case in list("decodeErrors") {
        counts[1] += 1;
        let document = bytes(case["bson"].as_str().unwrap());
        let outcome =
            transform(&document, Form::Bson, "", &Rules::of(crate::config::Json::Extended), &mut Oddities::default());
        assert!(outcome.is_err(), "{}: {}", content["description"], case["description"]);
    }
    if matches!(content["bson_type"].as_str(), Some("0x00" | "0x05" | "0x13")) {
        for case in list("parseErrors") {
            counts[2] += 1;
            let json = case["string"].as_str().unwrap();
            // For decimals the string is the number, not JSON.
            let json = if content["bson_type"] == "0x13" {
                json!({ "d": { "$numberDecimal": json } }).to_string()
            } else {
                json.to_owned()
            };
            let what = format!("{}: {}", content["description"], case["description"]);
            let is_old = OLD.iter().any(|old| case["description"] == *old);
            assert_eq!(parsed(json.as_bytes()).is_ok(), is_old, "{what}: {json}");
        }
    }
}

#[test]
fn the_corpus_holds() {
    let Some(folder) = corpus() else { return };
    let mut counts = [0; 3];
    let mut failed = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let content = value(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
        // Every file is tried, so that one failure does not hide another.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| try_file(&content, &mut counts))).is_err() {
            failed.push(content["description"].clone());
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    assert!(counts[0] > 700 && counts[1] > 70 && counts[2] > 100, "valid, decode errors, parse errors: {counts:?}");
}

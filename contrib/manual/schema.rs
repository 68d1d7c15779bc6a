//! The JSON Schema of hub.toml, for editors (draft 7, which taplo reads).

use observability_hub::config::keys::{Key, SECTIONS, Usual, Value};
use serde_json::{Map, Value as Json, json};

pub fn schema() -> Result<String, String> {
    let mut properties = Map::new();
    for section in SECTIONS {
        if section.name.is_empty() {
            for key in section.keys {
                properties.insert(key.name.to_owned(), described(key)?);
            }
            continue;
        }
        let mut table = of_table(section.keys)?;
        table["description"] = json!(section.text);
        let value = if section.many { json!({ "type": "array", "items": table }) } else { table };
        properties.insert(section.name.to_owned(), value);
    }
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "hub.toml",
        "description": "The configuration of Observability Hub; hub.toml(5) is its manual.",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    serde_json::to_string_pretty(&schema).map(|text| text + "\n").map_err(|error| error.to_string())
}

fn of_table(keys: &[Key]) -> Result<Json, String> {
    let mut properties = Map::new();
    for key in keys {
        properties.insert(key.name.to_owned(), described(key)?);
    }
    let needed: Vec<&str> =
        keys.iter().filter(|key| matches!(key.usual, Usual::Needed(_))).map(|key| key.name).collect();
    let mut table = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !needed.is_empty() {
        table["required"] = json!(needed);
    }
    Ok(table)
}

fn described(key: &Key) -> Result<Json, String> {
    let mut value = of_value(&key.value)?;
    value["description"] = json!(key.text);
    match key.usual {
        Usual::Is(text) => value["default"] = written(text)?,
        Usual::Else(_, text) | Usual::Needed(text) => value["examples"] = json!([written(text)?]),
    }
    Ok(value)
}

/// A value as the file has it.
fn written(text: &str) -> Result<Json, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{text} is no value of TOML: {error}");
    let table: toml::Table = toml::from_str(&format!("value = {text}")).map_err(|error| wrong(&error))?;
    serde_json::to_value(&table["value"]).map_err(|error| wrong(&error))
}

fn of_value(value: &Value) -> Result<Json, String> {
    Ok(match value {
        Value::Text("") => json!({ "type": "string" }),
        Value::Text(form) => json!({ "type": "string", "pattern": form }),
        Value::Word(words) => json!({ "enum": words }),
        Value::Number(numbers) => json!({ "enum": numbers }),
        Value::Size => json!({ "anyOf": [
            { "type": "string", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB|TiB)?$" },
            { "type": "integer", "minimum": 0 },
        ] }),
        Value::Whole(_, least, most) => {
            let mut number = json!({ "type": "integer", "minimum": least });
            if *most < u64::MAX {
                number["maximum"] = json!(most);
            }
            number
        }
        Value::Limit(_, below) => {
            let mut number = json!({ "type": "number", "exclusiveMinimum": 0 });
            if *below < u64::MAX {
                number["exclusiveMaximum"] = json!(below);
            }
            json!({ "anyOf": [number, { "const": false }] })
        }
        Value::Switch => json!({ "type": "boolean" }),
        Value::List(inner) => json!({ "type": "array", "items": of_value(inner)? }),
        Value::Table(keys) => of_table(keys)?,
        Value::Either(all) => {
            json!({ "anyOf": all.iter().map(of_value).collect::<Result<Vec<_>, _>>()? })
        }
    })
}

//! The columns of a row, from the fields of a document: what has a column of its own, and where the rest goes.

use super::bson::{self, Raw};
use super::json::{Shape, Without, Writer, value_text, without_nul};
use super::key::{Key, key, source_id};
use super::{Oddities, Rejection, time};
use crate::config::{FieldPath, Json, Map, Pipeline};
use crate::store::{Keys, Reading};

/// The key of `meta` for what no column and no payload has.
const UNMAPPED: &str = "unmapped";
/// The key of `meta` for a timestamp that is none.
const TIMESTAMP: &str = "timestamp";

/// What a pipeline makes of its documents.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub json: Json,
    pub keys: Keys,
    map: Map,
    /// A field that is left out, because the hub itself changes it.
    left_out: Option<&'static str>,
}

impl Rules {
    pub(super) fn new(pipeline: &Pipeline, keys: Keys) -> Self {
        let left_out = pipeline.marks_status().then_some("status");
        Self { json: pipeline.json, keys, map: pipeline.map.clone(), left_out }
    }

    /// Those of the defaults, for documents of files.
    #[cfg(test)]
    pub(super) fn of(json: Json) -> Self {
        Self { json, keys: Keys::Values, map: Map::default(), left_out: None }
    }

    pub(super) fn shape(&self) -> Shape {
        match self.json {
            Json::Plain => Shape::Plain,
            Json::Extended => Shape::Extended,
        }
    }

    fn paths(&self) -> [&FieldPath; 5] {
        let Map { event_timestamp, source, event_type, payload, meta } = &self.map;
        [event_timestamp, source, event_type, payload, meta]
    }
}

/// The fields of a document that columns are made of.
struct Fields<'a> {
    id: Option<Raw<'a>>,
    /// In the order of `Rules::paths`.
    mapped: [Option<Raw<'a>>; 5],
    /// What the rest of the document is without.
    without: Without<'a>,
    /// How many other fields there are.
    others: u64,
}

impl<'a> Fields<'a> {
    /// Reads a document's own fields, and those inside of others that columns are made of.
    fn read(document: &'a [u8], rules: &'a Rules, oddities: &mut Oddities) -> Result<Self, Rejection> {
        let paths = rules.paths();
        let mut fields = Self { id: None, mapped: [None; 5], without: Without::default(), others: 0 };
        let mut left_out = false;
        for element in bson::elements(document)? {
            let (name, value) = element?;
            let column = paths.iter().position(|path| path.text == name);
            let again = match column {
                _ if name == "_id" => fields.id.replace(value).is_some(),
                Some(column) => fields.mapped[column].replace(value).is_some(),
                None if Some(name) == rules.left_out => std::mem::replace(&mut left_out, true),
                None => {
                    fields.others += 1;
                    false
                }
            };
            // Of the rest, the writer finds out itself.
            if again && rules.json == Json::Extended {
                return Err(Rejection::DuplicateKey(name.to_owned()));
            }
            oddities.duplicate_keys += u64::from(again);
        }
        for (column, path) in paths.into_iter().enumerate() {
            // A path that several columns share was given to the first.
            let same = paths[..column].iter().position(|earlier| earlier == &path);
            if path.text == "_id" {
                fields.mapped[column] = fields.id;
            } else if let Some(same) = same {
                fields.mapped[column] = fields.mapped[same];
            } else if fields.mapped[column].is_some() {
                fields.without.top.push(&path.text);
            } else if path.names.len() > 1
                && let Some((value, is_plain)) = inside(document, &path.names)?
            {
                fields.mapped[column] = Some(value);
                if is_plain {
                    fields.without.deep.push(&path.names);
                }
            }
        }
        fields.without.top.extend(rules.left_out);
        Ok(fields)
    }
}

/// The value inside of others, and whether there are only documents on the way: without an item, a list would be another.
pub(super) fn inside<'a>(document: &'a [u8], names: &[String]) -> Result<Option<(Raw<'a>, bool)>, Rejection> {
    let (mut value, mut is_plain) = (Raw::Document(document), true);
    for name in names {
        let inner = match value {
            Raw::Document(inner) => inner,
            Raw::Array(inner) => {
                is_plain = false;
                inner
            }
            _ => return Ok(None),
        };
        match bson::find(inner, name)? {
            Some(found) => value = found,
            None => return Ok(None),
        }
    }
    Ok(Some((value, is_plain)))
}

/// The row of a document that is sound; the key is made first, because a dead letter needs it too.
pub(super) fn columns(
    document: &[u8],
    place: &str,
    rules: &Rules,
    oddities: &mut Oddities,
) -> Result<Reading, (Option<Key>, Rejection)> {
    let id = bson::find(document, "_id").map_err(|rejection| (None, rejection))?;
    let key = match id {
        Some(id) => key(id, rules.keys).map_err(|rejection| (None, rejection))?,
        None => Key::without_id(place, document),
    };
    match row(document, &key, rules, oddities) {
        Ok(row) => Ok(row),
        Err(rejection) => Err((Some(key), rejection)),
    }
}

fn row(document: &[u8], key: &Key, rules: &Rules, oddities: &mut Oddities) -> Result<Reading, Rejection> {
    let shape = rules.shape();
    let mut fields = Fields::read(document, rules, oddities)?;
    // A key that is a hash does not tell the id.
    if key.is_whole {
        fields.without.top.push("_id");
    } else if fields.id.is_some() {
        fields.others += 1;
    }
    let [timestamp, source, event_type, payload, meta] = fields.mapped;
    let event_timestamp = timestamp.and_then(time::milliseconds);
    let no_time = timestamp.filter(|value| event_timestamp.is_none() && !matches!(value, Raw::Null | Raw::Undefined));
    oddities.timestamps_kept_in_meta += u64::from(no_time.is_some());
    let mut row = Reading {
        mongo_id: key.text.clone(),
        source_id: fields.id.map(|id| source_id(id, key)).transpose()?,
        event_timestamp,
        source: source.map_or(Ok(None), |value| text(value, shape, oddities))?,
        event_type: event_type.map_or(Ok(None), |value| text(value, shape, oddities))?,
        payload: payload.map(|value| value_text(value, shape, oddities)).transpose()?,
        meta: None,
    };
    let mut unmapped = None;
    if rules.map.payload.is_whole() {
        let without = Without { top: rules.left_out.into_iter().collect(), deep: Vec::new() };
        row.payload = Some(rest(document, &without, shape, oddities)?.0);
    } else if fields.others > 0 {
        let (rest, count) = rest(document, &fields.without, shape, oddities)?;
        // Nothing is left where a column was made of the only field inside of another.
        if count > 0 {
            oddities.unmapped_fields += count;
            *(if row.payload.is_none() { &mut row.payload } else { &mut unmapped }) = Some(rest);
        }
    }
    let no_time = no_time.map(|value| value_text(value, shape, oddities)).transpose()?;
    row.meta = meta_with(meta, &rules.map.meta.text, unmapped, no_time, shape, oddities)?;
    let content = (event_timestamp, &row.source, &row.event_type, &row.payload, &row.meta);
    oddities.empty_rows += u64::from(content == (None, &None, &None, &None, &None));
    Ok(row)
}

/// A document's text without some of it, and how many fields are in it.
fn rest(
    document: &[u8],
    without: &Without<'_>,
    shape: Shape,
    oddities: &mut Oddities,
) -> Result<(String, u64), Rejection> {
    let mut writer = Writer { text: String::with_capacity(document.len()), shape, oddities };
    let count = writer.document(document, without)?;
    Ok((writer.text, count))
}

/// A column of type text: what is no text in the document is stored as its JSON.
fn text(value: Raw<'_>, shape: Shape, oddities: &mut Oddities) -> Result<Option<String>, Rejection> {
    match value {
        Raw::Null | Raw::Undefined => Ok(None),
        Raw::String(text) => without_nul(text, shape, oddities).map(Some),
        other => value_text(other, shape, oddities).map(Some),
    }
}

/// `meta` with what the hub adds to it. Its keys have more underscores in front than those of the document that are named
/// alike. What is no object, or an empty one, lies among the unmapped fields then.
fn meta_with(
    value: Option<Raw<'_>>,
    name: &str,
    mut unmapped: Option<String>,
    no_time: Option<String>,
    shape: Shape,
    oddities: &mut Oddities,
) -> Result<Option<String>, Rejection> {
    let (mut timestamp, mut others) = (TIMESTAMP.to_owned(), UNMAPPED.to_owned());
    let text = value.map(|value| value_text(value, shape, oddities)).transpose()?;
    if let Some(Raw::Document(document)) = value {
        (timestamp, others) = (own_key(document, TIMESTAMP)?, own_key(document, UNMAPPED)?);
        if others != UNMAPPED {
            // Otherwise nobody could tell whose it is.
            unmapped.get_or_insert_with(|| "{}".to_owned());
        }
    }
    if unmapped.is_none() && no_time.is_none() {
        return Ok(text);
    }
    let mut members = "}";
    match (&text, value) {
        (Some(text), Some(Raw::Document(_))) if text != "{}" => members = text.strip_prefix('{').unwrap_or("}"),
        (Some(text), _) => {
            let name = value_text(Raw::String(name), shape, oddities)?;
            let more = unmapped.as_deref().filter(|unmapped| *unmapped != "{}");
            let more = more.and_then(|unmapped| unmapped.strip_prefix('{')).map(|rest| format!(",{rest}"));
            unmapped = Some(format!("{{{name}:{text}{}", more.as_deref().unwrap_or("}")));
        }
        (None, _) => {}
    }
    let mut meta = String::from("{");
    for (key, value) in [(timestamp, no_time), (others, unmapped)] {
        if let Some(value) = value {
            meta = format!("{meta}\"{key}\":{value},");
        }
    }
    if members == "}" {
        meta.pop();
    }
    meta.push_str(members);
    Ok(Some(meta))
}

/// A key of this name with more underscores in front than any of the document's has.
fn own_key(document: &[u8], name: &str) -> Result<String, Rejection> {
    let mut own = name.to_owned();
    for element in bson::elements(document)? {
        let (key, _) = element?;
        if key.len() >= own.len() && key.trim_start_matches('_') == name {
            own = format!("_{key}");
        }
    }
    Ok(own)
}

use super::*;

fn of(line: &str, json: Json) -> (Outcome, Oddities) {
    let mut oddities = Oddities::default();
    let outcome = transform(line.as_bytes(), Form::Line, "file:1", &Rules::of(json), &mut oddities);
    (outcome, oddities)
}

fn plain(line: &str) -> Reading {
    of(line, Json::Plain).0.unwrap()
}

#[test]
fn a_document_of_the_go_version_becomes_its_row() {
    let row = plain(
        r#"{"_id":{"$oid":"5f43a1b2c3d4e5f601020304"},"status":"ingested","event_type":"cpu","source":"agent",
           "timestamp":"2026-01-04T12:00:00Z","payload":{"value":99.0,"f":0.5,"at":{"$date":"2026-01-04T12:00:00.120Z"},
           "id":{"$oid":"5f43a1b2c3d4e5f601020304"},"n":{"$numberLong":"5"}},"meta":{"host":"h"}}"#,
    );
    assert_eq!(row.mongo_id, "5f43a1b2c3d4e5f601020304");
    assert_eq!(row.event_timestamp, Some(1_767_528_000_000));
    assert_eq!((row.source.as_deref(), row.event_type.as_deref()), (Some("agent"), Some("cpu")));
    assert_eq!(
        row.payload.unwrap(),
        r#"{"value":99,"f":0.5,"at":"2026-01-04T12:00:00.12Z","id":"5f43a1b2c3d4e5f601020304","n":5}"#
    );
    assert_eq!(row.meta.unwrap(), r#"{"unmapped":{"status":"ingested"},"host":"h"}"#);
    assert_eq!(row.source_id.unwrap(), "5f43a1b2c3d4e5f601020304");
}

#[test]
fn timestamps_of_every_shape() {
    let expected = Some(1_767_528_000_000);
    for shape in [
        "1767528000",
        "1767528000000",
        "1767528000.0",
        r#""1767528000""#,
        r#""1767528000000""#,
        r#""2026-01-04T12:00:00Z""#,
        r#""2026-01-04T13:00:00+01:00""#,
        r#""2026-01-04 12:00:00""#,
        r#"{"$date":"2026-01-04T12:00:00Z"}"#,
        r#"{"$numberLong":"1767528000"}"#,
        r#"{"$timestamp":{"t":1767528000,"i":1}}"#,
    ] {
        assert_eq!(plain(&format!(r#"{{"_id":1,"timestamp":{shape}}}"#)).event_timestamp, expected, "{shape}");
    }
    for (meta, kept) in [
        (r#""meta":{"a":1},"#, r#"{"timestamp":"soon","a":1}"#),
        (r#""meta":{"timestamp":1},"#, r#"{"_timestamp":"soon","timestamp":1}"#),
        (r#""meta":{"__timestamp":1},"#, r#"{"___timestamp":"soon","__timestamp":1}"#),
        (r#""meta":[1],"#, r#"{"timestamp":"soon","unmapped":{"meta":[1]}}"#),
        (r#""meta":null,"x":{"y":1},"#, r#"{"timestamp":"soon","unmapped":{"meta":null}}"#),
        (r#""meta":{},"#, r#"{"timestamp":"soon","unmapped":{"meta":{}}}"#),
        ("", r#"{"timestamp":"soon"}"#),
    ] {
        let row = plain(&format!(r#"{{"_id":1,{meta}"timestamp":"soon"}}"#));
        assert_eq!((row.event_timestamp, row.meta.as_deref()), (None, Some(kept)));
    }
    for number in [i64::MIN, i64::MAX, 9_007_199_254_740_993] {
        let row = plain(&format!(r#"{{"_id":1,"timestamp":{number}}}"#));
        assert_eq!((row.event_timestamp, row.meta), (None, Some(format!(r#"{{"timestamp":{number}}}"#))));
    }
    let far = plain(r#"{"_id":1,"timestamp":{"$date":{"$numberLong":"9223372036854775807"}}}"#);
    assert_eq!(far.meta.as_deref(), Some(r#"{"timestamp":"9223372036854775807"}"#));
}

/// Rules with a map of these keys, as hub.toml has it, on MongoDB or on files.
fn mapped(map: &str, source: &str, json: Json) -> Rules {
    let folder = tempfile::tempdir().unwrap();
    let json = if json == Json::Plain { "plain" } else { "extended" };
    let text = format!(
        "state_dir = \"/nowhere\"\n[[pipeline]]\nname = \"r\"\nsource = \"{source}\"\njson = \"{json}\"\n{map}\n"
    );
    let path = folder.path().join("hub.toml");
    std::fs::write(&path, text).unwrap();
    let config = crate::config::Config::load(Some(&path)).unwrap();
    Rules::new(&config.pipelines[0], crate::store::Keys::Values)
}

fn by(rules: &Rules, line: &str) -> (Reading, Oddities) {
    let mut oddities = Oddities::default();
    let row = transform(line.as_bytes(), Form::Line, "file:1", rules, &mut oddities).unwrap();
    (row, oddities)
}

#[test]
fn nothing_of_a_document_is_dropped() {
    let files = mapped("", "file:/x", Json::Plain);
    for (line, payload, meta, unmapped) in [
        (r#"{"_id":1,"level":"warn","n":{"a":[1]}}"#, Some(r#"{"level":"warn","n":{"a":[1]}}"#), None, 2),
        (r#"{"_id":1,"payload":{"a":1},"b":2}"#, Some(r#"{"a":1}"#), Some(r#"{"unmapped":{"b":2}}"#), 1),
        (r#"{"_id":1,"payload":null,"b":2}"#, Some("null"), Some(r#"{"unmapped":{"b":2}}"#), 1),
        (r#"{"_id":1,"payload":1,"b":2,"meta":{"h":1}}"#, Some("1"), Some(r#"{"unmapped":{"b":2},"h":1}"#), 1),
        (r#"{"_id":1,"payload":1,"b":2,"meta":"m"}"#, Some("1"), Some(r#"{"unmapped":{"meta":"m","b":2}}"#), 1),
        (
            r#"{"_id":1,"payload":1,"b":2,"meta":{"unmapped":3}}"#,
            Some("1"),
            Some(r#"{"_unmapped":{"b":2},"unmapped":3}"#),
            1,
        ),
        (r#"{"_id":1,"payload":1,"meta":{"unmapped":3}}"#, Some("1"), Some(r#"{"_unmapped":{},"unmapped":3}"#), 0),
        (r#"{"_id":1,"payload":1,"meta":[5]}"#, Some("1"), Some("[5]"), 0),
        (r#"{"_id":1,"status":"ingested"}"#, Some(r#"{"status":"ingested"}"#), None, 1),
        (r#"{"b":1}"#, Some(r#"{"b":1}"#), None, 1),
        (r#"{"_id":1,"source":"s"}"#, None, None, 0),
    ] {
        let (row, oddities) = by(&files, line);
        assert_eq!((row.payload.as_deref(), row.meta.as_deref()), (payload, meta), "{line}");
        assert_eq!((oddities.unmapped_fields, oddities.empty_rows), (unmapped, 0), "{line}");
    }
    assert_eq!(by(&files, r#"{"_id":1}"#).1.empty_rows, 1);
    // What the hub itself changes.
    let mongodb = mapped("", "mongodb", Json::Plain);
    let (row, oddities) = by(&mongodb, r#"{"_id":1,"status":"ingested","payload":1}"#);
    assert_eq!((row.payload.as_deref(), row.meta, oddities.unmapped_fields), (Some("1"), None, 0));
    let cursor = mapped("select = { cursor = \"_id\" }", "mongodb", Json::Plain);
    assert_eq!(by(&cursor, r#"{"_id":1,"status":"x"}"#).0.payload.as_deref(), Some(r#"{"status":"x"}"#));
    // A key that does not tell the id.
    let long = "x".repeat(5000);
    let (row, _) = by(&files, &format!(r#"{{"_id":"{long}","payload":1}}"#));
    assert_eq!(row.meta.unwrap(), format!(r#"{{"unmapped":{{"_id":"{long}"}}}}"#));
}

#[test]
fn a_map_makes_columns_of_other_fields() {
    let map = r#"map = { event_timestamp = "created.at", source = "host.name", event_type = "kind", payload = "" }"#;
    let rules = mapped(map, "mongodb", Json::Plain);
    let line = r#"{"_id":1,"kind":"k","created":{"at":"2026-01-04T12:00:00Z","by":"me"},"host":{"name":"h"},"status":"ingested","x":1}"#;
    let (row, oddities) = by(&rules, line);
    assert_eq!((row.source.as_deref(), row.event_type.as_deref()), (Some("h"), Some("k")));
    assert_eq!(row.event_timestamp, Some(1_767_528_000_000));
    let whole = line.replace(r#","status":"ingested""#, "");
    assert_eq!((row.payload.unwrap(), row.meta, oddities.unmapped_fields), (whole, None, 0));

    let map =
        r#"map = { event_timestamp = "created.at", source = "host.name", payload = "data.body", meta = "about" }"#;
    let rules = mapped(map, "file:/x", Json::Extended);
    for (line, payload, meta) in [
        // What is inside of others is taken out of them, and nothing else.
        (
            r#"{"_id":1,"created":{"at":1767528000,"by":"me"},"host":{"name":"h"},"data":{"body":[1],"more":2},"meta":3}"#,
            Some("[1]"),
            Some(r#"{"unmapped":{"created":{"by":"me"},"data":{"more":2},"meta":3}}"#),
        ),
        // A field with the dots in its name.
        (r#"{"_id":1,"host.name":"h","host":{"name":"other"}}"#, Some(r#"{"host":{"name":"other"}}"#), None),
        (r#"{"_id":1,"host":[{"name":"h"}],"about":{"a":1}}"#, Some(r#"{"host":[{"name":"h"}]}"#), Some(r#"{"a":1}"#)),
        (r#"{"_id":1,"host":"h","created":null}"#, Some(r#"{"host":"h","created":null}"#), None),
        (r#"{"_id":1,"host":{"name":"h"}}"#, None, None),
        (r#"{"_id":1,"created":{"at":"soon"}}"#, None, Some(r#"{"timestamp":"soon"}"#)),
    ] {
        let (row, _) = by(&rules, line);
        assert_eq!((row.payload.as_deref(), row.meta.as_deref()), (payload, meta), "{line}");
    }
    let one = mapped(r#"map = { source = "who", event_type = "who" }"#, "file:/x", Json::Plain);
    let (row, _) = by(&one, r#"{"_id":1,"who":"w"}"#);
    assert_eq!((row.source.as_deref(), row.event_type.as_deref(), row.payload), (Some("w"), Some("w"), None));
}

#[test]
fn numbers_beyond_64_bits_are_never_rounded() {
    let (row, oddities) =
        of(r#"{"_id":12345678901234567890,"n":18446744073709551615,"e":1e400,"f":[-1e-400,0.5]}"#, Json::Plain);
    let row = row.unwrap();
    assert_eq!(row.payload.unwrap(), r#"{"n":"18446744073709551615","e":"1e400","f":["-1e-400",0.5]}"#);
    assert_eq!((row.mongo_id.as_str(), oddities.numbers_as_text), (r#"{"$numberDecimal":"12345678901234567890"}"#, 4));
    let other = plain(r#"{"_id":12345678901234567891}"#).mongo_id;
    assert_ne!(other, row.mongo_id);
    let (outcome, oddities) = of(r#"{"_id":7,"n":18446744073709551615}"#, Json::Extended);
    let (key, rejection) = outcome.unwrap_err();
    assert_eq!((key.as_str(), rejection, oddities), (r#"{"$numberInt":"7"}"#, Rejection::Number, Oddities::default()));
    assert_eq!(of(r#"{"_id":12345678901234567890}"#, Json::Extended).0.unwrap_err().1, Rejection::Number);
}

#[test]
fn whole_doubles_are_told_from_integers_in_extended_json() {
    let payload = |line: &str, json| of(line, json).0.unwrap().payload.unwrap();
    let line =
        r#"{"_id":1,"payload":[1e18,1e16,5.0,-3.0,1e300,9.922444955766851,99999999999999.98,-9223372036854775808.0]}"#;
    // With all its digits: PostgreSQL's numbers have no exponent, and would make an integer of it.
    let large = format!("{:.1}", 1e300);
    let extended = format!(
        "[1000000000000000000.0,10000000000000000.0,5.0,-3.0,{large},9.922444955766851,99999999999999.98,-9223372036854775808.0]"
    );
    assert_eq!(payload(line, Json::Extended), extended);
    let plain =
        "[1000000000000000000,10000000000000000,5,-3,1e300,9.922444955766851,99999999999999.98,-9223372036854775808]";
    assert_eq!(payload(line, Json::Plain), plain);
    let query = r#"{"_id":1,"payload":{"$regularExpression":{"pattern":"a","options":""}}}"#;
    assert_eq!(payload(query, Json::Plain), r#""/a/""#);
}

#[test]
fn what_a_database_cannot_hold_has_one_policy_in_each_shape() {
    let line =
        r#"{"_id":1,"source":"a\u0000","payload":{"n":{"$numberDouble":"NaN"},"k":"x\u0000","d":1,"d":2,"z":-0.0}}"#;
    let (row, oddities) = of(line, Json::Plain);
    let row = row.unwrap();
    assert_eq!(row.payload.unwrap(), r#"{"n":"NaN","k":"x␀","d":2,"z":0}"#);
    assert_eq!(row.source.unwrap(), "a␀");
    assert_eq!((oddities.nul_replaced, oddities.non_finite, oddities.duplicate_keys), (2, 1, 1));
    for (payload, rejection) in
        [(r#"{"k":"x\u0000"}"#, Rejection::Nul), (r#"{"d":1,"d":2}"#, Rejection::DuplicateKey("d".into()))]
    {
        let (outcome, oddities) = of(&format!(r#"{{"_id":1,"payload":{payload}}}"#), Json::Extended);
        assert_eq!((outcome.unwrap_err().1, oddities), (rejection, Oddities::default()));
    }
    let twice = r#"{"_id":1,"payload":1,"other":1,"other":1,"payload":2}"#;
    let (row, oddities) = of(twice, Json::Plain);
    assert_eq!((row.unwrap().payload.as_deref(), oddities.duplicate_keys), (Some("2"), 2));
    assert_eq!(of(twice, Json::Extended).0.unwrap_err().1, Rejection::DuplicateKey("payload".into()));
    let (row, _) = of(r#"{"_id":1,"payload":{"z":-0.0,"n":{"$numberDouble":"NaN"}}}"#, Json::Extended);
    assert_eq!(row.unwrap().payload.unwrap(), r#"{"z":{"$numberDouble":"-0.0"},"n":{"$numberDouble":"NaN"}}"#);
}

#[test]
fn a_key_that_looks_like_a_type_is_kept_out_of_extended_json() {
    // {_id: 1, payload: {$oid: "5"}}, which only BSON can say.
    let document = b"\x2c\0\0\0\x10_id\0\x01\0\0\0\x03payload\0\x11\0\0\0\x02$oid\0\x02\0\0\x005\0\0\0";
    let document = [&(document.len() as i32).to_le_bytes()[..], &document[4..]].concat();
    let transformed = |json| transform(&document, Form::Bson, "", &Rules::of(json), &mut Oddities::default());
    assert_eq!(transformed(Json::Plain).unwrap().payload.unwrap(), r#"{"$oid":"5"}"#);
    assert_eq!(transformed(Json::Extended).unwrap_err().1, Rejection::Ambiguous("$oid".into()));
}

#[test]
fn lines_that_are_no_documents_are_rejected_with_their_own_keys() {
    let mut keys = std::collections::HashSet::new();
    for line in ["", "{", "[1]", r#"{"a":"\ud800"}"#, "nonsense", r#"{"_id":{"$oid":"5"}}"#, "{\"a\":1}x"] {
        let (key, _) = of(line, Json::Plain).0.unwrap_err();
        assert!(keys.insert(key), "{line}");
    }
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(of(&format!(r#"{{"a":{deep}}}"#), Json::Plain).0.unwrap_err().1, Rejection::TooDeep);
}

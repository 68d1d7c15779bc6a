//! What serde says of a value of the wrong type, in the words of the file: what stands there, and what to write.

/// The reason for a person. `key` is the dotted path of the value; what is not about a type stays as it is.
pub(super) fn reason(key: &str, message: &str) -> String {
    let found = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    let Some((found, expected)) = found.and_then(|text| text.rsplit_once(", expected ")) else {
        return message.to_owned();
    };
    match right(key, found, expected) {
        Some(right) => format!("is {}; write {right}", shown(found)),
        None => message.to_owned(),
    }
}

/// What was found, as serde's `Unexpected` writes it: `integer `8085``, `string "x"`, `map`.
fn shown(found: &str) -> String {
    match found.split_once(' ') {
        Some(("string", text)) => format!("the text {text}"),
        Some(("integer", number)) => format!("the number {}", number.trim_matches('`')),
        Some(("floating", number)) => format!("the number {}", number.trim_start_matches("point ").trim_matches('`')),
        Some(("boolean", value)) => value.trim_matches('`').to_owned(),
        None if found == "map" => "a table".to_owned(),
        None if found == "sequence" => "a list".to_owned(),
        _ => found.to_owned(),
    }
}

/// What would be right; none for what the file's types do not ask for.
fn right(key: &str, found: &str, expected: &str) -> Option<String> {
    let is_section = !key.contains(['.', '[']);
    // serde takes a list for the fields of a section, in their order; then the first table is its first field.
    if let Some(section) = key.strip_suffix("[0]").filter(|section| !section.contains(['.', '[']))
        && found == "map"
    {
        return Some(format!("[{section}] instead of [[{section}]]"));
    }
    let right = match expected {
        "a string" => text_in_quotes(key, found),
        "a sequence" if is_section => format!("[[{key}]]"),
        "a sequence" if found == "map" => "a list of tables: [{ … }]".to_owned(),
        "a sequence" => {
            let text = found.strip_prefix("string \"").and_then(|text| text.strip_suffix('"')).unwrap_or("make build");
            let words: Vec<String> = text.split_whitespace().map(|word| format!("\"{word}\"")).collect();
            format!("a list of words: [{}]", words.join(", "))
        }
        "u16" => whole_number(key, "0 to 65535"),
        "u32" => whole_number(key, "0 to 4294967295"),
        "u64" => whole_number(key, "0 or more"),
        "a nonzero u32" => whole_number(key, "1 to 4294967295"),
        _ if expected.starts_with("\"status\" or") => expected.to_owned(),
        _ if expected.starts_with("struct ") && is_section => format!("[{key}]"),
        _ if expected.starts_with("struct ") => "a table: { … }".to_owned(),
        _ => return None,
    };
    Some(right)
}

/// What stands there as text; of an address and of a size more than a number.
fn text_in_quotes(key: &str, found: &str) -> String {
    let number = found.strip_prefix("integer `").and_then(|number| number.strip_suffix('`'));
    let example = match (key.rsplit('.').next().unwrap_or(key), number) {
        ("listen", port) => format!(", such as \"127.0.0.1:{}\"", port.unwrap_or("8085")),
        ("admin_listen", port) => format!(", such as \"127.0.0.1:{}\"", port.unwrap_or("8086")),
        (_, Some(number)) => format!(": \"{number}\""),
        (_, None) => String::new(),
    };
    format!("text in quotes{example}")
}

/// Keys of a time end in its unit.
fn whole_number(key: &str, range: &str) -> String {
    let unit = ["days", "seconds"].into_iter().find(|unit| key.ends_with(&format!("_{unit}")));
    let unit = unit.map(|unit| format!(" of {unit}")).unwrap_or_default();
    format!("a whole number{unit}, {range}, without quotes")
}

#[cfg(test)]
mod tests {
    fn error(text: &str) -> String {
        let parsed = super::super::file::parse(std::path::Path::new("hub.toml"), text);
        parsed.err().expect("the text is wrong").to_string()
    }

    #[test]
    fn a_wrong_type_is_told_in_the_words_of_the_file() {
        let days = "write a whole number of days, 0 to 4294967295, without quotes";
        for (text, expected) in [
            ("[repository]\nname = \"a/b\"", "1: repository: is a table; write [[repository]]"),
            ("pipeline = \"reading\"", "1: pipeline: is the text \"reading\"; write [[pipeline]]"),
            ("[[proxy]]\n", "1: proxy[0]: is a table; write [proxy] instead of [[proxy]]"),
            ("metrics = 30", "1: metrics: is the number 30; write [metrics]"),
            ("[metrics]\nretention_days = \"30\"", &format!("2: metrics.retention_days: is the text \"30\"; {days}")),
            ("[metrics]\nretention_days = -1", &format!("2: metrics.retention_days: is the number -1; {days}")),
            ("[metrics]\nhourly_days = \"2y\"", &format!("2: metrics.hourly_days: is the text \"2y\"; {days}")),
            ("[metrics]\nretention_days = 1.5", &format!("2: metrics.retention_days: is the number 1.5; {days}")),
            (
                "[gitops]\nfetch_timeout_seconds = 0",
                "2: gitops.fetch_timeout_seconds: is the number 0; write a whole number of seconds, 1 to 4294967295",
            ),
            (
                "[proxy]\nadmin_hosts = \"hub.lan\"",
                "2: proxy.admin_hosts: is the text \"hub.lan\"; write a list of words: [\"hub.lan\"]",
            ),
            ("[proxy]\nlisten = true", "2: proxy.listen: is true; write text in quotes, such as \"127.0.0.1:8085\""),
            ("[gate]\nport = \"443\"", "2: gate.port: is the text \"443\"; write a whole number, "),
        ] {
            let (error, expected) = (error(text), format!("hub.toml:{expected}"));
            assert!(error.starts_with(&expected), "{text:?}\n  gave     {error}\n  expected {expected}");
        }
        for (line, expected) in [
            (
                "build = \"make build\"",
                "build: is the text \"make build\"; write a list of words: [\"make\", \"build\"]",
            ),
            ("build = [\"make\", 1]", "build[1]: is the number 1; write text in quotes: \"1\""),
            ("restart = { paths = [\"a\"], units = [] }", "restart: is a table; write a list of tables: [{ … }]"),
            ("restart = [\"app.service\"]", "restart[0]: is the text \"app.service\"; write a table: { … }"),
            ("health = 10", "health: is the number 10; write a table: { … }"),
        ] {
            let error = error(&format!("[[repository]]\nname = \"a/b\"\nurl = \"/x\"\npath = \"/y\"\n{line}\n"));
            let expected = format!("hub.toml:5: repository[0].{expected}");
            assert!(error.starts_with(&expected), "{line:?}\n  gave     {error}\n  expected {expected}");
        }
    }
}

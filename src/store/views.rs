use super::METRICS_TABLE;
pub(super) use super::view_list::VIEWS;

/// A view over `system_metrics` with a `time` column, `host`, and values as columns, so that a panel needs no JSON.
/// Its numbers are double precision in both databases; true and false become 1 and 0; what is not there becomes NULL, in
/// PostgreSQL also what is no number (tables of the Go version may hold anything).
pub(super) struct View {
    pub name: &'static str,
    /// The version of `Object::MetricViews` that it came with.
    pub since: i64,
    /// The `metric_type` it shows.
    pub metric_type: &'static str,
    pub rows: Rows,
    pub columns: &'static [Column],
}

/// A column of a view.
#[derive(Clone, Copy)]
pub(super) struct Column {
    pub name: &'static str,
    /// Dotted path in the payload, or in each value of it.
    pub path: &'static str,
    /// True for a text, false for a number.
    pub is_text: bool,
}

/// What becomes a row of a view.
pub(super) enum Rows {
    /// The payload itself.
    Payload,
    /// Every object in the payload, or in its object of this name; its key becomes a column of that name.
    EachObject(Option<&'static str>, &'static str),
    /// Every number in an object of the payload: the object's key, the column for the keys, the column for the numbers.
    EachNumber(&'static str, &'static str, &'static str),
    /// Every number in every object of the payload: the columns for the objects' keys, the numbers' and the numbers.
    EachNumberOfEach(&'static str, &'static str, &'static str),
}

/// How a database writes the parts of a view.
pub(super) trait Dialect {
    /// The columns that every view begins with, of the table `m`.
    const HEAD: &'static str;
    /// The payload of the table `m`.
    const PAYLOAD: &'static str;
    /// The beginning of a statement that makes a view.
    const CREATE: &'static str;
    /// A column expression: the number at a dotted path of a JSON expression.
    fn number(json: &str, path: &str) -> String;
    /// A column expression: the text at a dotted path of a JSON expression; of an object or array its JSON text.
    fn text(json: &str, path: &str) -> String;
    /// A FROM item that gives, as `name`, `key` and `value` of every member of the JSON expression, or of the object at
    /// `path` in it; nothing where that is none.
    fn each(name: &str, json: &str, path: Option<&str>) -> String;
    /// A condition: the value of the row `name` of `each` is an object, or else a number.
    fn is_object(name: &str, object: bool) -> String;
}

/// The statement that makes a view, up to `D::CREATE` anew.
pub(super) fn statement<D: Dialect>(view: &View) -> String {
    let mut columns = vec![D::HEAD.to_owned()];
    let mut from = vec![format!("{METRICS_TABLE} AS m")];
    let mut conditions = vec![format!("m.metric_type = '{}'", view.metric_type)];
    let mut json = D::PAYLOAD;
    let mut descend = |name: &'static str, path: Option<&str>, key: &str, is_object: bool| {
        from.push(D::each(name, json, path));
        conditions.push(D::is_object(name, is_object));
        columns.push(format!("{name}.key AS {key}"));
        json = if name == "each" { "each.value" } else { "inner_each.value" };
    };
    let value = match view.rows {
        Rows::Payload => None,
        Rows::EachObject(path, key) => {
            descend("each", path, key, true);
            None
        }
        Rows::EachNumber(object, key, value) => {
            descend("each", Some(object), key, false);
            Some(value)
        }
        Rows::EachNumberOfEach(outer, key, value) => {
            descend("each", None, outer, true);
            descend("inner_each", None, key, false);
            Some(value)
        }
    };
    columns.extend(value.map(|name| format!("{} AS {name}", D::number(json, ""))));
    columns.extend(view.columns.iter().map(|Column { name, path, is_text }| {
        let expression = if *is_text { D::text(json, path) } else { D::number(json, path) };
        format!("{expression} AS {name}")
    }));
    format!(
        "{} {} AS SELECT {} FROM {} WHERE {}",
        D::CREATE,
        view.name,
        columns.join(", "),
        from.join(" CROSS JOIN "),
        conditions.join(" AND ")
    )
}

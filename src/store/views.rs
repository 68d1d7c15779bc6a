use crate::kinds::{self, Each, Part};

/// A view over `system_metrics` with a `time` column, `host`, and values as columns, so that a panel needs no JSON.
/// Its numbers are double precision in both databases; true and false become 1 and 0; what is not there becomes NULL, in
/// PostgreSQL also what is no number (tables of the Go version may hold anything).
#[derive(Clone, Copy)]
pub(super) struct View {
    pub name: &'static str,
    /// The version of `Object::MetricViews` that it came with. Whoever changes a view raises that version, and adds columns
    /// at the end only: PostgreSQL replaces no view by one with other columns before. No column has a name that SQL reserves.
    pub since: i64,
    /// The `metric_type` it shows.
    metric_type: &'static str,
    part: &'static Part,
}

/// Every view: one for each part of a kind that has one.
pub(super) fn all() -> impl Iterator<Item = View> {
    let of_part = |metric_type: &'static str, part: &'static Part| {
        part.view.map(|(name, since)| View { name, since, metric_type, part })
    };
    kinds::ALL.iter().flat_map(move |kind| kind.parts.iter().filter_map(move |part| of_part(kind.name, part)))
}

/// How a database writes the parts of a view.
pub(super) trait Dialect {
    /// The columns that every view begins with, of the table `m`.
    const HEAD: &'static str;
    /// The relation that has the rows.
    const ROWS: &'static str;
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
pub(super) fn statement<D: Dialect>(view: View) -> String {
    let mut columns = vec![D::HEAD.to_owned()];
    let mut from = vec![format!("{} AS m", D::ROWS)];
    let mut conditions = vec![format!("m.metric_type = '{}'", view.metric_type)];
    let mut json = D::PAYLOAD;
    let mut descend = |name: &'static str, path: Option<&str>, key: &str, is_object: bool| {
        from.push(D::each(name, json, path));
        conditions.push(D::is_object(name, is_object));
        columns.push(format!("{name}.key AS {key}"));
        json = if name == "each" { "each.value" } else { "inner_each.value" };
    };
    match view.part.each {
        Each::Row => {}
        Each::Object(within, name) => {
            descend("each", Some(within).filter(|within| !within.is_empty()), name.column, true);
        }
        Each::Number(within, name) => descend("each", Some(within), name.column, false),
        Each::Nested(outer, inner) => {
            descend("each", None, outer.column, true);
            descend("inner_each", None, inner.column, false);
        }
    }
    let shown = view.part.table.iter().filter(|measure| !measure.column.is_empty());
    columns.extend(shown.map(|measure| {
        let expression = if measure.is_text { D::text(json, measure.key) } else { D::number(json, measure.key) };
        format!("{expression} AS {}", measure.column)
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
